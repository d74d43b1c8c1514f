#!/usr/bin/env bash
# Fills .gpu/cuml with cuML for CUDA 13 in pieces of 55 MiB (296 MiB in all), for a machine without a network.
# 26.6.0 is the newest whose libraries load with nvJitLink 13.0.88, which torch 2.11 pins. cudf is left out: cuML only
# compares with its classes, and stand_in_for_cudf.py has those.
#   bash benchmarks/gpu/prepare_cuml.sh
# There: cat .gpu/cuml/part-* | tar xf - -C FOLDER; pip install --no-index --no-deps FOLDER/*.whl
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
. benchmarks/gpu/wheels.sh
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
for name in cuml-cu13 libcuml-cu13 libraft-cu13 librmm-cu13 libnvforest-cu13 nvforest-cu13 pylibraft-cu13 rmm-cu13; do
  fetch_wheel "$box" "$name==26.6.0"
done
for pinned in rapids-logger==0.2.3 treelite==4.8.1 $(grep -E '^(umap-learn|pynndescent)==' constraints.txt); do
  fetch_wheel "$box" "$pinned"
done
mkdir -p .gpu/cuml
tar cf - -C "$box" . | split -b 55M - .gpu/cuml/part-
echo "== $(ls .gpu/cuml | wc -l) pieces, $(du -sm .gpu/cuml | cut -f1) MiB in .gpu/cuml"
