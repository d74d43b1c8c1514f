"""A worker: one process with one model loaded at a time, whichever executor it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from drillcore.backends import BACKENDS
from drillcore.backends.base import Backend, Prepared
from drillcore.backends.catalog import locate
from drillcore.block import extract_blocks
from drillcore.plugins import load_by_name
from drillcore.store.location import Location
from drillcore.store.writer import GroupWriter
from drillcore.work import BlockDone, BlockTask, ModelTask, Progress


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

    def prepare(self, task: ModelTask) -> Prepared:
        """Load the task's model unless it is loaded, with its self-check."""
        if self._key == task.key and self._prepared is not None:
            return self._prepared
        self.close()
        backend = open_backend(task)
        try:
            self._prepared = backend.prepare(task.sample, task.numerics)
        except BaseException:
            backend.close()
            raise
        self._backend, self._key = backend, task.key
        return self._prepared

    def extract(self, tasks: Iterable[BlockTask], progress: Progress) -> Iterator[BlockDone]:
        """Extract blocks of one model; the writing of one overlaps with the next."""
        groups: dict[tuple[str, str], GroupWriter] = {}

        def commit(task: BlockTask, shard: int, states: NDArray[np.generic], absmax: NDArray[np.float32]) -> None:
            place = (task.store, task.group)
            if place not in groups:
                store = Location(task.store).open()
                groups[place] = GroupWriter(zarr.open_group(store, path=task.group, mode="r+", use_consolidated=False))
            print_ = task.block.fingerprints[shard - task.block.first_shard]
            groups[place].commit(shard * task.shape.shard, shard, states, absmax, print_)

        tasks = iter(tasks)
        first = next(tasks, None)
        if first is None:
            return
        self.prepare(first.model)
        assert self._backend is not None

        def checked() -> Iterator[BlockTask]:
            yield first
            yield from tasks

        yield from extract_blocks(self._backend, checked(), commit, progress)

    def close(self) -> None:
        """Unload the model."""
        if self._backend is not None:
            self._backend.close()
        self._backend = self._key = self._prepared = None
