# Everything installs into .venv with the versions of constraints.txt. Needs Python 3.11 to 3.13, make, a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DOCS_INSTALLED := $(VENV)/.installed-docs
VLLM_VENV := .venv-vllm
PEERS_VENV := .venv-peers
PAGE := engine/drillcore/pictures/report/assets
JOB ?= jobs/demo.yaml
TEST_PROCESSES ?= 2
VLLM_TESTS ?= long or not long
EACH ?= 1000000
FAILING ?= torture-failing.txt
quoted = '$(subst ','\'',$(1))'

.DEFAULT_GOAL := help
.PHONY: help install demo check page test test-long docs reference vllm test-vllm torture bench bench-peers bench-gpu support-table schemas wheel format clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Install drillcore with all that the targets below need into .venv

$(INSTALLED): pyproject.toml constraints.txt
	@echo "== installing into $(VENV) (a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "drillcore needs Python 3.11 to 3.13: make PYTHON=python3.12 ..."; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(INSTALLED) ## Run the source experiment on a real pretrained model, from job file to pictures
	@echo "== fetching and converting the demo model, once (SmolLM2-135M-Instruct, 4-bit weights, 90 MB)"
	@$(BIN)/drillcore demo-model
	@echo "== running $(JOB)"
	@$(BIN)/drillcore run $(JOB)

check: $(INSTALLED) ## Lint, types, import layers, sizes, dependencies, schemas, the page's scripts where node is
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tools/sizes.py
	$(BIN)/python tools/dependencies.py
	@! command -v node >/dev/null || for script in $(PAGE)/*.js; do node --check $$script || exit 1; done
	@! test -x tools/page/node_modules/.bin/eslint || { echo '"use strict"; (() => {'; cat $(PAGE)/*.js; echo '})();'; } \
	  | tools/page/node_modules/.bin/eslint --config tools/page/eslint.config.mjs --stdin --stdin-filename report.js
	@$(BIN)/drillcore schema job | cmp - schemas/job.schema.json || { echo "schemas/ is stale: make schemas"; exit 1; }

page: ## Install ESLint, with which `make check` then looks at the scripts of the report's page (needs npm)
	@npm install --silent --no-save --no-package-lock --no-audit --no-fund --prefix tools/page

test: $(INSTALLED) ## The test suite, in two processes (TEST_PROCESSES=1 for one; 40 minutes on two cores)
	@echo "== testing; the demo model is fetched once"
	@$(BIN)/drillcore demo-model
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile
	@echo "== tests passed"

test-long: $(INSTALLED) ## The long forms of the tests
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile -m "long or not long"

docs: $(DOCS_INSTALLED) ## The documentation as a site, build/site/index.html; broken links and anchors fail
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/site
	@echo "== built: build/site/index.html"

$(DOCS_INSTALLED): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

reference: $(INSTALLED) ## Write anew what of docs/ is made from the code: job, Python, blocks that no test runs
	$(BIN)/python -m tools.job_reference
	$(BIN)/python -m tools.python_reference
	$(BIN)/python -m tools.pages

torture: $(INSTALLED) ## Kills at every file operation, damage to every file (EACH=20 for a part, TRIAL=... for one; hours)
	@PYTHONPATH=tests $(BIN)/python -m torture --each $(EACH) --trial $(call quoted,$(TRIAL)) --failing $(FAILING)

vllm: ## Install vLLM into an environment of its own, .venv-vllm (3.5 GB); docs/vllm.md
	@test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	@bash tools/setup_vllm.sh $(VLLM_VENV)
	@echo "== vLLM is ready: $(VLLM_VENV)/bin/drillcore run JOB"

test-vllm: vllm ## The backend contract on real vLLM, jobs that are killed and resume (VLLM_TESTS="not long" for a part)
	DRILLCORE_REQUIRE=vllm $(VLLM_VENV)/bin/python -m pytest tests/conformance/test_vllm_*.py --timeout 1200 -m "$(VLLM_TESTS)"

bench: $(INSTALLED) ## Throughput of every stage and of the peers, interleaved in one run
	$(BIN)/python -m benchmarks.peers.run

bench-peers: $(INSTALLED) ## Install the peers that the benchmark compares with
	bash benchmarks/peers/adapters/setup.sh $(PEERS_VENV)

bench-gpu: $(INSTALLED) ## The GPU suite, eight minutes at most: ceilings, correctness, throughput, peers, profiles, the writer
	$(BIN)/python -m benchmarks.gpu.suite

support-table: $(INSTALLED) ## Try every architecture of the installed transformers and write docs/models.md
	$(BIN)/python -m tools.support_table

schemas: $(INSTALLED) ## Write schemas/ anew from the job model
	$(BIN)/drillcore schema job > schemas/job.schema.json

wheel: $(INSTALLED) ## Build the source distribution and, from it, the wheel into dist/, and check what they say of themselves
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*

format: $(INSTALLED) ## Format the code
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean: ## Remove environments, caches and runs
	rm -rf $(VENV) .venv-* runs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis engine/*.egg-info
