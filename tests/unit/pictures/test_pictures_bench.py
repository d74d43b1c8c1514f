"""The benchmark of pictures at toy size: every contender draws, and the table names all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.long
def test_the_benchmark_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.parts.pictures", "--quick"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for words in ("31 × 6,000 | drillcore_grid", "matplotlib_scatter", "310 × 50 | matplotlib_fastest", "datamapplot"):
        assert words in done.stdout
