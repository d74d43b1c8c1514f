"""Fixtures of tests that run commands: `pytest_plugins = ["support.run_fixtures"]`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.commands import Forge
from support.runs import BLOCK, SHARD, Work, sentences


@pytest.fixture(scope="session")
def forge(models, tmp_path_factory):
    """Starts commands; caches of their own."""
    folder = tmp_path_factory.mktemp("commands")
    made = Forge(models(), folder, {"XDG_CACHE_HOME": str(folder / "cache")})
    yield made
    made.close()


@pytest.fixture(scope="session")
def make_work(forge, models):
    """Makes a job in a folder: one model, one dataset, small shards and blocks, the backend without weights."""

    def make(folder: Path, *, seed: int = 0, count: int = 300, backend: str = "fake", **changes: Any) -> Work:
        folder.mkdir(exist_ok=True)
        job = {
            "models": [{"id": str(models()), "as": "m"}],
            "datasets": [{"name": "d", "path": "d.jsonl"}],
            "extract": {"backend": backend, "shard_sentences": SHARD, "block_sentences": BLOCK, "threads": 1},
            **changes,
        }
        work = Work(folder, forge, job)
        work.texts("d", sentences(seed, count))
        work.save()
        return work

    return make


@pytest.fixture
def new_work(make_work, tmp_path):
    """The same, in a folder of the test's own, by name."""
    return lambda name="work", **settings: make_work(tmp_path / name, **settings)
