"""The GPU suite runs bare, at toy size, on whatever there is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_suite_runs_and_its_states_are_right(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu.suite", "--toy", "--out", str(tmp_path / "suite.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "suite.json").read_text(encoding="utf-8"))["rows"]
    assert [r["text"] for r in rows] == ["free text", "templates"]
    assert all(r["correctness"]["right"] and set(r["over_peers"]) == {"hf_loop", "hf_padded"} for r in rows)
