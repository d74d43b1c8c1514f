#!/usr/bin/env bash
# Fills .gpu in the project's root with the wheels that a bare GPU machine lacks, for one without a network (18 MiB).
# The machine has Python 3.12, torch and transformers; versions are those of constraints.txt.
#   bash benchmarks/gpu/prepare.sh
# There: for wheel in .gpu/wheels/*.whl; do python3 -m zipfile -e "$wheel" SITE; done
#        PYTHONPATH=SITE:engine:. python3 -m benchmarks.gpu.suite --out FOLDER
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
lacking=(zarr numcodecs donfig google-crc32c obstore pydantic pydantic_core annotated-types typing-inspection)
. benchmarks/gpu/wheels.sh
mkdir -p .gpu/wheels
for name in "${lacking[@]}"; do
  fetch_wheel .gpu/wheels "$(grep "^$name==" constraints.txt)"
done
echo "== $(ls .gpu/wheels | wc -l) wheels, $(du -sm .gpu/wheels | cut -f1) MiB in .gpu/wheels"
