"""A worker: one process with one model loaded at a time, whichever executor it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from drillcore.backends import BACKENDS
from drillcore.backends.base import Backend, Prepared
from drillcore.backends.source import locate
from drillcore.runtime.work.pipeline import extract_blocks
from drillcore.runtime.work.tasks import BlockDone, BlockTask, ModelTask
from drillcore.store.places.location import Location
from drillcore.store.writer import GroupWriter
from drillcore.system.progress import Progress
from drillcore.system.registry import load_by_name


def open_backend(task: ModelTask) -> Backend:
    """Load a task's model; it is not prepared yet."""
    source = locate(task.model, Path(task.base))
    backend: Backend = load_by_name("backend", task.backend, BACKENDS)(source, task.extract, task.layers)
    return backend


class Worker:
    """Loads models as tasks ask for them, and keeps the last one."""

    def __init__(self) -> None:
        self._backend: Backend | None = None
        self._key: tuple[object, ...] | None = None
        self._prepared: Prepared | None = None
        self._groups: dict[tuple[str, str], GroupWriter] = {}

    def prepare(self, task: ModelTask) -> Prepared:
        """Load the task's model unless it is loaded, with its self-check; the task's numerics, if any, hold."""
        if self._key == task.key and self._prepared is not None and _agree(task.numerics, self._prepared.numerics):
            return self._prepared
        if self._key != task.key or self._backend is None:
            self.close()
            self._backend, self._key = open_backend(task), task.key
        try:
            self._prepared = self._backend.prepare(task.sample, task.numerics)
        except BaseException:
            self.close()
            raise
        return self._prepared

    def load(self, task: ModelTask) -> Backend:
        """The backend with the task's model prepared."""
        self.prepare(task)
        assert self._backend is not None
        return self._backend

    def extract(self, tasks: Iterable[BlockTask], progress: Progress) -> Iterator[BlockDone]:
        """Extract blocks of one model; the writing of one overlaps with the next."""
        tasks = iter(tasks)
        first = next(tasks, None)
        if first is not None:
            yield from extract_blocks(self.load(first.model), chain([first], tasks), self, progress)

    def open(self, task: BlockTask) -> GroupWriter:
        """The arrays that a task's shards go to, opened once."""
        place = (task.store, task.group)
        if place not in self._groups:
            store = Location(task.store).open()
            group = zarr.open_group(store, path=task.group, mode="r+", use_consolidated=False)
            self._groups[place] = GroupWriter(group)
        return self._groups[place]

    def commit(self, task: BlockTask, shard: int, states: NDArray[np.generic], absmax: NDArray[np.float32]) -> None:
        """Write a shard of a task and then its fingerprint, unless it is committed already."""
        if shard in task.committed:
            return
        print_ = task.block.fingerprints[shard - task.block.first_shard]
        self.open(task).commit(shard * task.shape.shard, shard, states, absmax, print_)

    def close(self) -> None:
        """Unload the model."""
        backend, self._backend = self._backend, None
        self._key = self._prepared = None
        if backend is not None:
            backend.close()


def _agree(wanted: dict[str, Any] | None, numerics: dict[str, Any]) -> bool:
    """Whether a model prepared with `numerics` is what a task wants; tasks carry further entries of their own."""
    return wanted is None or all(wanted.get(name) == value for name, value in numerics.items())
