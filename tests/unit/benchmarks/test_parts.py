"""Benchmarks of parts at toy size, in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[3]


def run_part(name: str, folder: Path, *arguments: str) -> tuple[str, dict]:
    """What a benchmark printed, and its results."""
    command = [sys.executable, "-m", f"benchmarks.parts.{name}", "--scratch", str(folder / "scratch")]
    command += [*arguments, "--out", str(folder / "results.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["kind"].startswith("drillcore-") and results["versions"]["torch"] and results["git_commit"]
    assert results["hardware"]["cores"] >= 1 and results["parameters"]["quick"] is ("--quick" in arguments)
    return done.stdout, results


def test_pictures_name_every_contender(tmp_path):
    printed, _ = run_part("pictures", tmp_path, "--quick")
    for words in ("31 × 6,000 | drillcore_grid", "matplotlib_scatter", "310 × 50 | matplotlib_fastest", "datamapplot"):
        assert words in printed


@pytest.mark.parametrize("name", ["store", "memory", "measure", "simulate_cluster"])
def test_the_quick_form_runs(name, tmp_path):
    printed, _ = run_part(name, tmp_path, "--quick")
    assert printed and not list((tmp_path / "scratch").glob("*"))


def test_rounding_is_within_its_bound(models, tmp_path, seed):
    texts = tmp_path / "few.jsonl"
    texts.write_text("".join(json.dumps({"text": f"sentence number {i}"}) + "\n" for i in range(6)), encoding="utf-8")
    arguments = ["--model", str(models()), "--sentences", "5", "--seed", str(seed), "--texts", str(texts)]
    _, facts = run_part("rounding", tmp_path, *arguments)
    results = facts["results"]
    assert set(results) == {"random ids", "few"}
    for rows in results.values():
        assert len(rows) == 7 and all(r["sentences"] == 5 and 0 <= r["worst"] <= 1e-5 for r in rows)
        # Float32 is not float64.
        assert all(r["worst"] > 0 for r in rows if r["against"] == "float64")


def test_streaming_says_how_long_slow_reads_take(models, tmp_path):
    texts = tmp_path / "few.jsonl"
    texts.write_text("".join(json.dumps({"text": f"sentence number {i}"}) + "\n" for i in range(32)), encoding="utf-8")
    printed, facts = run_part("streaming", tmp_path, "--quick", "--model", str(models()), "--texts", str(texts))
    assert "streamed over resident" in printed and [row["sweeps"] for row in facts["slow_reads"]] == [1, 1, 1]
    assert all(row["wall_seconds"] > 0 and row["predicted_seconds"] > 0 for row in facts["slow_reads"])
