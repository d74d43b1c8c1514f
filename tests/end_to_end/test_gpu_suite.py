"""The GPU suite runs bare, at toy size, on whatever there is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_suite_runs_from_the_checkout_and_its_states_are_right(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu.suite", "--toy", "--steps", STEPS, "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'engine'}:{ROOT}"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert found["git_commit"] and found["versions"]["torch"] and found["hardware"]
    steps = found["steps"]
    assert list(steps) == STEPS.split(",") and steps["ceilings"]["matmul_flops"] > 0
    assert set(steps["writer"]["toy"]) >= {"pass to host", "pass to committed shards"}
    ways = steps["streamed"]["toy"]
    assert len(ways) == 4 and all(way["right"] and way["nodes_per_second"] > 0 for way in ways.values())
    (row,) = steps["models"]
    assert row["check"]["right"] and row["merged"]["check"]["right"]
    assert [path.name for path in tmp_path.glob("profile-toy-*")]
    for text in ("free text", "templates"):
        rates = row["texts"][text]
        assert set(rates["job over peers"]) == {"hf_loop", "hf_padded"}
        assert {way.split(", ")[1] for way in rates if ", " in way} == {
            "device alone",
            "whole run",
            "job to the committed store",
        }


STEPS = "ceilings,correctness,models,writer,streamed"
