"""The job that is tortured: two models and two datasets through all five stages, a few seconds when nothing is there.

A `Place` is a folder with everything that the job reads and writes: texts, job file, store, the folder beside it and a
cache of its own, so that a copy of the folder is a copy of the whole world of a run.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from support.runs import sentences
from support.tiny import tiny_model

SHARD, BLOCK = 16, 32
COUNTS = {"d": 40, "e": 36}
SEEDS = {"d": 5, "e": 6}
MODELS = ("ma", "mb")
STORE, BESIDE, CACHE = "runs/job.zarr", "runs/job", "cache"
# What a version of the inputs changes against the first one.
VERSIONS = ("first", "texts", "labels", "settings", "rows")


@dataclass(frozen=True)
class Place:
    """A folder of the job's own."""

    folder: Path

    @property
    def store(self) -> Path:
        return self.folder / STORE

    def copy(self, to: Path) -> Place:
        """All of it as another place; files are copied, never linked, since runs may write into them."""
        shutil.copytree(self.folder, to, copy_function=shutil.copyfile)
        return Place(to)

    def enter(self) -> None:
        """Make it the working directory of this process, and its cache the one that drillcore uses."""
        os.chdir(self.folder)
        os.environ["XDG_CACHE_HOME"] = str(self.folder / CACHE)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def make_models(folder: Path) -> dict[str, Path]:
    """Two models of the same shape with different weights."""
    return {name: tiny_model(folder / name, seed=i, num_hidden_layers=2) for i, name in enumerate(MODELS)}


def write_inputs(place: Place, models: dict[str, Path], version: str, backend: str, method: str) -> None:
    """Write texts and job file of one version of the inputs."""
    place.folder.mkdir(parents=True, exist_ok=True)
    for name in COUNTS:
        lines = [json.dumps(row) for row in _rows(name, version)]
        (place.folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = yaml.safe_dump(_job(models, version, backend, method), sort_keys=False)
    (place.folder / "job.yaml").write_text(text, encoding="utf-8")


def _rows(name: str, version: str) -> list[dict[str, Any]]:
    """Rows of a dataset. Another version changes one text of the first block, all labels, or the number of rows."""
    rows = sentences(SEEDS[name], COUNTS[name] + 8 * (version == "rows"))
    for i, row in enumerate(rows):
        row["kept"] = f"k{i % 5}"
        row["expected_next"] = "ab"[i % 2]
    if version == "texts":
        rows[3]["text"] = rows[3]["text"][::-1]
    if version == "labels":
        for row in rows[: COUNTS[name] // 2]:
            row["label"] = {"Toronto": "Montreal", "Montreal": "Toronto"}[row["label"]]
    return rows


def _job(models: dict[str, Path], version: str, backend: str, method: str) -> dict[str, Any]:
    named = {"path": "d.jsonl", "keep": ["kept"], "expected_next": "expected_next", "candidates": ["a", "b"]}
    return {
        "models": [{"id": str(folder), "as": name} for name, folder in models.items()],
        "datasets": [{"name": "d", "label": "label", **named}, {"name": "e", "path": "e.jsonl", "label": "label"}],
        "extract": {"backend": backend, "shard_sentences": SHARD, "block_sentences": BLOCK, "threads": 1},
        "measure": {"permutations": 20, "folds": 3, "seed": int(version == "settings")},
        "project": {"method": method, "n_neighbors": 5, "seed": int(version == "settings")},
        "render": {"panel_px": 150},
    }
