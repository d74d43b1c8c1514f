#!/usr/bin/env bash
# The peers' environment: bash benchmarks/peers/adapters/setup.sh [FOLDER]. vLLM has one of its own: make vllm.
# torch, transformers and numpy are held at the versions that drillcore is measured with, so that only the peers differ.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
folder=${1:-$root/.venv-peers}
python=${PYTHON:-python3}

test -x "$folder/bin/python" || "$python" -m venv "$folder"
held=$(mktemp)
trap 'rm -f "$held"' EXIT
grep -E '^(torch|transformers|numpy|tokenizers)==' "$root/constraints.txt" > "$held"
echo "== installing TransformerLens, nnsight and datamapplot into $folder (1.6 GB)"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check -c "$held" torch -r "$here/requirements.txt"
for package in transformer_lens nnsight datamapplot; do
  "$folder/bin/python" -c "import $package" || echo "$package does not import: the benchmark reports it as absent"
done
