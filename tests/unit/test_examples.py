"""The examples in docstrings are run, and the public functions have one."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil

import pytest
import yaml

import drillcore

# What runs inside vLLM's own environment, or on a GPU.
ELSEWHERE = (
    # Its example needs a model, and is run below.
    "drillcore.api.extractor",
    "drillcore.backends.vllm.worker",
    "drillcore.backends.vllm.engine",
    "drillcore.projections.cuml",
)
MODULES = [m.name for m in pkgutil.walk_packages(drillcore.__path__, "drillcore.") if m.name not in ELSEWHERE]


@pytest.mark.parametrize("name", [n for n in MODULES if not n.endswith("__main__")])
def test_examples_give_what_they_say(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0


@pytest.mark.parametrize("name", ["run", "open", "extract", "Extractor"])
def test_public_functions_have_an_example_that_runs(name, models, tmp_path, monkeypatch):
    """In a folder with `model`, a model's directory, and `job.yaml`, which names it."""
    (tmp_path / "model").symlink_to(models())
    rows = [{"text": f"the river {i} is", "label": "ab"[i % 2]} for i in range(12)]
    (tmp_path / "sentences.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    job = {
        "store": "runs/job.zarr",
        "models": ["./model"],
        "datasets": {"sentences": "sentences.jsonl"},
        "measure": {"permutations": 9},
        "project": {"method": "pca"},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    function = getattr(drillcore, name)
    (test,) = doctest.DocTestFinder(recurse=False).find(function, name, globs={"drillcore": drillcore})
    assert test.examples
    drillcore.run("job.yaml")
    assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0
