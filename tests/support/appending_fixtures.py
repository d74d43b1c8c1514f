"""Fixture of tests that add rows: `pytest_plugins = ["support.run_fixtures", "support.appending_fixtures"]`."""

from __future__ import annotations

import pytest

from support.appending import BEFORE, WRITERS, rows_of


@pytest.fixture
def make(new_work, seed):
    """A job whose dataset is a file of `BEFORE` rows of some format; it has run."""

    def made(name="d.jsonl", content=None, run=True, count=BEFORE, **settings):
        work = new_work(f"work-{name}", seed=seed, count=1)
        (work.folder / "d.jsonl").unlink()
        content = WRITERS[name](rows_of(seed, count)) if content is None else content
        (work.folder / name).write_bytes(content)
        keep = {} if name.startswith("d.txt") else {"label": "label", "keep": ["year"]}
        work.job["datasets"] = [{"name": "d", "path": name, **keep, **settings}]
        work.job |= {"measure": {"permutations": 9}, "project": {"method": "pca"}, "render": {"layers": [0]}}
        work.save()
        if run:
            work.finish()
        return work

    return made
