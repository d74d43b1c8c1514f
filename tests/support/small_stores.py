"""A small store with results, for tests that read stores: `pytest_plugins = ["support.small_stores"]`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from drillcore.job.file import load_job
from drillcore.runtime.runner import run_stages
from drillcore.runtime.stages import ALL_STAGES
from drillcore.system.progress import Silent


def small_job(folder: Path, model: Path, **changes: Any) -> Path:
    """Write a job of one model on 24 sentences with two labels, at four positions; returns the job file."""
    rows = [{"text": f"the river {i} is", "label": "ab"[i % 2], "source": f"s{i}"} for i in range(24)]
    (folder / "d.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    job = {
        "models": [{"id": str(model), "as": "m"}],
        "datasets": [{"name": "d", "path": "d.jsonl", "keep": ["source"]}],
        "extract": {"backend": "fake", "threads": 1},
        "measure": {"permutations": 9},
        "project": {"method": "pca"},
        "run": {"audit": 0},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job | changes, sort_keys=False), encoding="utf-8")
    return folder / "job.yaml"


@pytest.fixture(scope="session")
def small_store(models, tmp_path_factory) -> Path:
    """A finished store with the groups m/d, m/d~mean, m/d~last-3 and m/d~all; tests must not change it."""
    folder = tmp_path_factory.mktemp("small")
    positions = {"positions": ["last", "mean", {"last": 3}, "all"], "backend": "transformers", "threads": 1}
    loaded = load_job(small_job(folder, models(), extract=positions))
    run_stages(loaded, ALL_STAGES, Silent())
    return Path(loaded.store)
