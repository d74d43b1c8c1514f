"""Jobs on tiny models, extracted in this process, and what an audit said of their stores."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from drillcore.job.fields import Job, LoadedJob
from drillcore.runtime.runner import run_stages
from support.records import as_written

WORDS = ["the", "of", "capital", "river", "is", "a", "city", "near", "north", "old", "where", "lies", "port", "first"]
SHARD, BLOCK = 16, 32


class Listener:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def start(self, stage: str, total: int, unit: str) -> None: ...

    def advance(self, count: int) -> None: ...

    def finish(self, summary: str) -> None:
        self.lines.append(summary)

    def say(self, message: str) -> None:
        self.lines.append(message)

    warn = say


@dataclass
class Audited:
    """A folder with one model, texts, a job and its store. name: the model's in the job. more: other parts of it."""

    folder: Path
    model: Path
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    datasets: dict[str, str] = field(default_factory=dict)
    name: str = "m"
    more: dict[str, Any] = field(default_factory=dict)

    def texts(self, name: str, count: int, *, same: str | None = None) -> list[str]:
        """Write a dataset of random sentences, or of one sentence many times, and name it in the job."""
        draw = random.Random(f"{self.seed}{name}")
        texts = [same or f"{' '.join(draw.choices(WORDS, k=draw.randint(1, 9)))} {i}" for i in range(count)]
        lines = [json.dumps({"text": text}) for text in texts]
        (self.folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        self.datasets[name] = f"{name}.jsonl"
        return texts

    def run(self, *, stages: tuple[str, ...] = ("extract",), executor: str = "local", audit: Any = "auto", **extract):
        """Run the job; returns what was said. Raises what the run raises."""
        listener = Listener()
        sizes = {"threads": 1, "shard_sentences": SHARD, "block_sentences": BLOCK}
        job = Job.model_validate(
            {
                "store": str(self.store),
                "models": [{"id": str(self.model), "as": self.name}],
                "datasets": self.datasets,
                "extract": {**sizes, **self.settings, **extract},
                "run": {"executor": executor, "audit": audit},
                **self.more,
            }
        )
        run_stages(LoadedJob(job=job, base=self.folder, source="job.yaml"), stages, listener)
        return listener.lines

    @property
    def store(self) -> Path:
        return self.folder / "job.zarr"

    @property
    def figures(self) -> dict[str, Any]:
        """What the manifest says of the audit."""
        manifest = json.loads((self.folder / "job" / "manifest.json").read_text(encoding="utf-8"))
        return manifest["models"]["m"]["audit"]

    def group(self, path: str = "m/d", mode: str = "r") -> zarr.Group:
        return zarr.open_group(self.store, path=path, mode=mode, use_consolidated=False)

    def committed(self, path: str = "m/d") -> list[int]:
        """Numbers of the shards that have a fingerprint."""
        return np.flatnonzero(np.asarray(self.group(path)["shard_fingerprint"][:]).any(axis=1)).tolist()

    def withdraw(self, shard: int, path: str = "m/d") -> None:
        """Clear the fingerprint of a shard, as a run that was killed would have left it."""
        self.group(path, "r+")["shard_fingerprint"][shard] = 0

    def permute(self, name: str, rows: list[int], path: str = "m/d") -> None:
        """Give each of these rows of an array the value of the next one; all records stay right."""
        array = self.group(path, "r+")[name]
        values = np.asarray(array[:])
        values[rows] = values[rows[1:] + rows[:1]]
        array[:] = values
        as_written(self.store)


def another_theta(work: Audited) -> None:
    """Make the base of the model's rotary positions 5 percent larger."""
    path = work.model / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["rope_parameters"]["rope_theta"] *= 1.05
    path.write_text(json.dumps(config), encoding="utf-8")
