"""The benchmark of the steps runs, at toy size; its peers need environments of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_benchmark_runs_and_its_states_are_right(tmp_path):
    out = tmp_path / "own.json"
    command = [
        sys.executable,
        "-m",
        "benchmarks.peers.run",
        "--quick",
        "--sentences",
        "6",
        "--peers",
        "none",
        "--out",
        str(out),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    texts = json.loads(out.read_text(encoding="utf-8"))["texts"]
    assert texts and all(0 < text["agreement"]["job"] <= 1e-5 for text in texts.values())


def test_the_host_path_runs(tmp_path):
    out = tmp_path / "host.json"
    command = [sys.executable, "-m", "benchmarks.parts.host", "--shape", "toy", "--repeats", "1", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    steps = json.loads(out.read_text(encoding="utf-8"))["steps"]
    assert len(steps) == 5 and all(row["seconds"] > 0 for row in steps.values())
