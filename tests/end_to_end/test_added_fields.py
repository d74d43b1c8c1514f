"""A field that a later version adds to a job, at its default, changes nothing that exists."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import drillcore

pytest_plugins = ["support.run_fixtures"]
PARTS = ("Model", "Dataset", "Extract", "Measure", "Project", "Render", "Run")


def later_version(folder: Path) -> Path:
    """The engine with a field more in every part of a job."""
    shutil.copytree(Path(drillcore.__file__).parent, folder / "drillcore", ignore=shutil.ignore_patterns("__pycache__"))
    counts = dict.fromkeys(PARTS, 0)
    for path in (folder / "drillcore" / "job").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        for part in PARTS:
            # After the docstring of the class, which ends at the first blank line before a field.
            text, count = re.subn(
                rf'(\nclass {part}\(Closed\):\n    """.*?"""\n)', r"\1\n    added_later: int = 7\n", text, flags=re.S
            )
            counts[part] += count
        path.write_text(text, encoding="utf-8")
    assert set(counts.values()) == {1}, counts
    return folder


def test_a_store_stays_up_to_date_when_fields_are_added(new_work, tmp_path):
    settings = {
        "measure": {"permutations": 0, "sample": 50},
        "project": {"method": "pca"},
        "datasets": [{"name": "d", "path": "d.jsonl", "label": "label"}],
    }
    work = new_work(count=40, **settings)
    first = work.forge.run("run", "job.yaml", cwd=work.folder)
    assert first.status == 0, first.err
    before = {p: p.read_bytes() for p in work.store.rglob("*") if p.is_file()}
    environment = {**os.environ, **work.forge.env, "PYTHONPATH": str(later_version(tmp_path / "later"))}
    command = [sys.executable, "-m", "drillcore", "run", "job.yaml"]
    run = subprocess.run(command, cwd=work.folder, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    # The report shows the job, and with it the new fields.
    for what in (
        "all 40 sentences are up to date",
        "measures are up to date",
        "projection is up to date",
        "2 up to date",
    ):
        assert what in run.stderr, run.stderr
    assert {p: p.read_bytes() for p in work.store.rglob("*") if p.is_file()} == before
