"""A small store with results: `pytest_plugins = ["support.small_store_fixtures"]`."""

from __future__ import annotations

from pathlib import Path

import pytest

from drillcore.job.file import load_job
from drillcore.runtime.runner import run_stages
from drillcore.runtime.stages import ALL_STAGES
from drillcore.system.progress import Silent
from support.small_stores import small_job


@pytest.fixture(scope="session")
def small_store(models, tmp_path_factory) -> Path:
    """A finished store with the groups m/d, m/d~mean, m/d~last-3 and m/d~all; tests must not change it."""
    folder = tmp_path_factory.mktemp("small")
    positions = {"positions": ["last", "mean", {"last": 3}, "all"], "backend": "transformers", "threads": 1}
    loaded = load_job(small_job(folder, models(), extract=positions, run={}))
    run_stages(loaded, ALL_STAGES, Silent())
    return Path(loaded.store)
