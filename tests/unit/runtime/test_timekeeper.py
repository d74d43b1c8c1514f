"""A run tells what it expected of each stage beside what it took, and keeps that for the next one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import drillcore
from drillcore.job.file import load_job
from drillcore.runtime import timekeeper
from drillcore.runtime.manifest import Manifest
from drillcore.runtime.rates import Rates

STAGES = ("extract", "measure", "predict", "project", "render")


@pytest.fixture
def job(tmp_path, models, monkeypatch) -> Path:
    """A job whose runs have a cache of their own, on a machine that nobody else uses."""
    monkeypatch.setattr(timekeeper, "load_average", lambda: 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = [{"text": f"the river {i} is", "label": "ab"[i % 2]} for i in range(24)]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    settings = {
        "models": [str(models("llama"))],
        "datasets": {"d": "texts.jsonl"},
        "measure": {"permutations": 9},
        "project": {"method": "pca"},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return tmp_path / "job.yaml"


def stages_of(store: Path) -> dict:
    return json.loads((store.parent / store.stem / "manifest.json").read_text(encoding="utf-8"))["stages"]


def test_the_second_run_is_estimated_by_the_first(job, tmp_path):
    for name in ("first", "second"):
        drillcore.run(job, store=str(tmp_path / f"{name}.zarr"))
    first, second = stages_of(tmp_path / "first.zarr"), stages_of(tmp_path / "second.zarr")
    assert set(first) == set(second) == set(STAGES)
    for stage in STAGES:
        assert second[stage]["wall_seconds"] >= 0
        if stage == "predict":  # the job predicts nothing
            assert first[stage]["estimated_seconds"] == second[stage]["estimated_seconds"] == 0
        else:
            assert first[stage]["estimated_seconds"] is None
            assert second[stage]["estimated_seconds"] is not None
    kinds = sorted({s.kind for s in Rates.read()._seen})
    assert kinds == ["alone", "forward", "load", "measure", "project", "render"]


def test_a_run_that_finds_all_done_expects_nothing_and_teaches_nothing(job, tmp_path):
    store = tmp_path / "one.zarr"
    drillcore.run(job, store=str(store))
    before = Rates.read()._seen
    drillcore.run(job, store=str(store))
    assert all(stages_of(store)[stage]["estimated_seconds"] == 0 for stage in STAGES)
    assert Rates.read()._seen == before


def test_a_run_goes_on_where_nothing_can_be_estimated_or_kept(job, tmp_path, monkeypatch):
    def broken(*anything) -> None:
        raise RuntimeError("broken")

    (tmp_path / "cache" / "drillcore").mkdir(parents=True)
    (tmp_path / "cache" / "drillcore" / "rates").write_text("a file where the folder should be", encoding="utf-8")
    drillcore.run(job, store=str(tmp_path / "refused.zarr"))
    monkeypatch.setattr(timekeeper, "look", broken)
    drillcore.run(job, store=str(tmp_path / "broken.zarr"))
    for name in ("refused", "broken"):
        found = stages_of(tmp_path / f"{name}.zarr")
        assert all(found[stage]["wall_seconds"] >= 0 for stage in STAGES)
        assert found["extract"]["estimated_seconds"] is None


def test_what_a_run_took_on_a_busy_machine_is_told_and_not_kept(job, tmp_path, monkeypatch):
    monkeypatch.setattr(timekeeper, "load_average", lambda: 1000.0)
    drillcore.run(job, store=str(tmp_path / "busy.zarr"))
    assert stages_of(tmp_path / "busy.zarr")["measure"]["load_average"] == 1000.0
    assert Rates.read()._seen == ()


def test_a_run_on_a_cluster_is_neither_estimated_nor_kept(job, tmp_path):
    loaded = load_job(job, ["run.executor=ray"])
    manifest = Manifest(tmp_path / "manifest.json", loaded)
    # Nothing else of the context is asked for.
    context = SimpleNamespace(job=loaded.job, manifest=manifest)
    kept = timekeeper.Timekeeper(context, STAGES)
    kept.begin("measure")
    kept.end("measure")
    assert manifest.facts["stages"]["measure"] == {"estimated_seconds": None}
    assert Rates.read()._seen == ()
