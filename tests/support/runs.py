"""Jobs on tiny models for tests that run, kill and change them; `run_fixtures` makes them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
import zarr

from support.commands import Command, Forge

SHARD, BLOCK = 16, 32
WORDS = ("the", "of", "capital", "river", "is", "a", "city", "near", "north", "old", "where", "lies", "port", "first")


def sentences(seed: int, count: int) -> list[dict[str, str]]:
    """Rows with random sentences that share beginnings."""
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        begun = " ".join(WORDS[: draw.randint(1, 4)])
        rest = " ".join(draw.choice(WORDS) for _ in range(draw.randint(0, 6)))
        rows.append({"text": f"{begun} {rest} {i}", "label": draw.choice(["Toronto", "Montreal"])})
    return rows


@dataclass
class Work:
    """A folder with a job file, its texts and its store.

    job: what the job file holds; `save` writes it.
    """

    folder: Path
    forge: Forge
    job: dict[str, Any]
    file: str = "job.yaml"
    _written: dict[str, bytes] = field(default_factory=dict)

    def save(self) -> None:
        (self.folder / self.file).write_text(yaml.safe_dump(self.job, sort_keys=False), encoding="utf-8")

    def texts(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Write a dataset's file."""
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (self.folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def start(self, *more: str, first: str = "", env: dict[str, str] | None = None) -> Command:
        return self.forge.start("extract", self.file, *more, cwd=self.folder, first=first, env=env)

    def run(self, *more: str, first: str = "", env: dict[str, str] | None = None) -> Command:
        command = self.start(*more, first=first, env=env)
        command.wait()
        return command

    def finish(self, *more: str) -> Command:
        """Run to the end; it must end well."""
        command = self.run(*more)
        assert command.status == 0, command.err
        return command

    @property
    def store(self) -> Path:
        return self.folder / "runs" / "job.zarr"

    @property
    def beside(self) -> Path:
        return self.folder / "runs" / "job"

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.beside / "manifest.json").read_text(encoding="utf-8"))

    def extracted(self, model: str = "m") -> int:
        """Sentences that the last run which loaded this model computed."""
        return self.manifest["models"][model]["extract"]["sentences"]

    def states(self) -> dict[str, bytes]:
        """Every file of the states and their fingerprints, by its path in the store."""
        return {
            str(path.relative_to(self.store)): path.read_bytes()
            for name in ("hidden_states", "shard_fingerprint")
            for path in sorted(self.store.glob(f"*/*/{name}/**/*"))
            if path.is_file()
        }

    def values(self) -> dict[str, Any]:
        """All states of every group, float32 [place, K, H], by its path."""
        root = zarr.open_group(self.store, mode="r", use_consolidated=False)
        paths = sorted(str(path.parent.relative_to(self.store)) for path in self.store.glob("*/*/hidden_states"))
        return {path: np.asarray(root[path]["hidden_states"][...]) for path in paths}  # type: ignore[index]

    def num_records(self) -> int:
        """Shards of the first model and dataset that have a fingerprint's file; quick, to be asked often."""
        try:
            return len(list((self.store / "m" / "d" / "shard_fingerprint" / "c").iterdir()))
        except FileNotFoundError:
            return 0

    def committed(self) -> dict[str, tuple[int, ...]]:
        """Inode and time of change of the two files of every committed shard, by group and shard."""
        found = {}
        for record in self.store.glob("*/*/shard_fingerprint/c/*/0"):
            group, shard = record.parents[3], record.parent.name
            states = group / "hidden_states" / "c" / shard / "0" / "0"
            if any(record.read_bytes()[:32]) and states.exists():
                files = [record, states]
                marks = [n for f in files for n in (f.stat().st_ino, f.stat().st_mtime_ns)]
                found[f"{group.relative_to(self.store)} {shard}"] = tuple(marks)
        return found


def assert_close(these: dict[str, Any], those: dict[str, Any], bound: float = 1e-5) -> None:
    """States of two stores agree: relative error of every row at every layer, as the audit measures it."""
    assert these.keys() == those.keys()
    for path, values in these.items():
        other = those[path]
        assert values.shape == other.shape and (np.isnan(values) == np.isnan(other)).all(), path
        error = np.linalg.norm(np.nan_to_num(values - other), axis=-1)
        assert (error <= bound * np.linalg.norm(np.nan_to_num(other), axis=-1)).all(), (path, error.max())


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything below a folder: time of change and size by path."""
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.stat().st_size if p.is_file() else 0)
        for p in sorted(folder.rglob("*"))
    }
