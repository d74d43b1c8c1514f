"""Small jobs whose stores have results, for tests that read stores; `small_store_fixtures` runs one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml


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
