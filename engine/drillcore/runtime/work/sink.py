"""Where finished shards go: the groups of the stores that tasks name, opened once each.

Shape legend: S sentences of a shard, K layers, H hidden size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from drillcore.runtime.work.tasks import BlockTask
from drillcore.store.group import GroupWriter
from drillcore.store.places.hold import Hold
from drillcore.store.places.location import Location
from drillcore.store.shards import Encoding
from drillcore.store.states import StatesReader


class ShardSink:
    """Commits shards into the groups of their tasks; one thread at a time."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str, Hold | None], GroupWriter] = {}

    def open(self, task: BlockTask) -> GroupWriter:
        """The group that a task's shards go to, whose arrays exist already. Raises what opening it raises."""
        place = (task.store, task.group, task.hold)
        if place not in self._groups:
            store = Location(task.store, task.hold).open()
            group = zarr.open_group(store, path=task.group, mode="r+", use_consolidated=False)
            self._groups[place] = GroupWriter(group)
        return self._groups[place]

    def commit(
        self, task: BlockTask, shard: int, states: NDArray[Any] | Encoding, absmax_K: NDArray[np.float32]
    ) -> None:
        """Write shard number `shard` and then its fingerprint, unless it is committed already.

        states: [S, K, H], or their encoding under way.
        Raises CommitError where the place refuses the write, or the run that sent the task lost the store: then it is
        another run's, and nothing is written over its states.
        """
        if shard in task.committed:
            return
        check = task.hold.check if task.hold is not None else _unshared
        check()
        fingerprint = task.block.fingerprints[shard - task.block.first_shard]
        first = task.shape.bounds(shard)[0]
        self.open(task).commit(first, shard, states, absmax_K, fingerprint, task.parts_of(shard), before_commit=check)

    def first_rows(self, task: BlockTask, shard: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """States [rows, K, H] and maxima [K] of what a shard holds that is to be completed."""
        stop = task.begun[shard]
        known = task.block.begun[shard - task.block.first_shard]
        fingerprint = next(each.fingerprint for each in known if each.stop == stop)
        return StatesReader(self.open(task).group, by_plan=False).first_rows(
            shard, fingerprint, stop - task.shape.bounds(shard)[0]
        )


def _unshared() -> None:
    """The store is known to nobody else."""
