"""Sweeps: as many batches as memory holds, which go through the decoder layers together.

A batch is computed as it always is, whichever batches are in its sweep, and its packs are those of its block: where a
sweep ends changes no byte.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from drillcore.backends.base import States, Work
from drillcore.backends.transformers.hooks import Store
from drillcore.backends.transformers.host import BatchCopy
from drillcore.backends.transformers.streamed.layers import StreamedLayers
from drillcore.backends.transformers.streamed.scratch import Part, Scratch
from drillcore.backends.transformers.streamed.timing import Timing
from drillcore.tokens.batches import Batch
from drillcore.tokens.places import Gathering, gathering

# Of what parked batches would take of the device, the part that stays there when they wait in the host's memory, and
# batches that are there as a whole at a time.
LEFT, MOVING = 0.25, 3
# Nodes of a row, about, each of which has a value in a mask for every node.
MASK_WIDTH = 64


@dataclass(frozen=True)
class Room:
    """What a sweep may take.

    memory_bytes: of the device. disk_bytes: of its scratch file. node_bytes: of the device, for a node of a batch that
    is parked. size: layers and values of a gathered row. dtype: of the rows. host_bytes: of the host's memory, where
    tensors of parked batches may wait; 0 where the host is the device. leaves: they do, however much the device holds.
    """

    memory_bytes: int
    disk_bytes: int
    node_bytes: int
    size: tuple[int, int]
    dtype: torch.dtype
    host_bytes: int = 0
    leaves: bool = False

    def memory_of(self, batch: Batch) -> int:
        """Bytes of the device that a parked batch takes: its states, and a mask of all nodes of a row by all."""
        rows, width = map(int, batch.token_ids_RW.shape)
        return rows * width * (self.node_bytes + width * self.dtype.itemsize)

    def states_of(self, batch: Batch) -> int:
        """Bytes of a batch's hidden states after one layer."""
        return int(batch.token_ids_RW.size) * self.size[1] * self.dtype.itemsize

    def holds(self, memory: int, count: int, *, in_host: bool) -> bool:
        """Whether so many batches may be parked together, on the device or in the host's memory.

        memory: bytes that all of them take of the device where they stay there. Where they leave it a part is left, of
        what an architecture does not hand to its layers; and three are there as a whole: one that computes, the next
        one, and the one before.
        """
        if not in_host:
            return memory <= self.memory_bytes
        here = memory * (LEFT + MOVING / max(MOVING, count))
        return here <= self.memory_bytes and memory <= self.host_bytes

    @property
    def nodes(self) -> int:
        """Nodes that a sweep has room for, about.

        >>> Room(10**9, 10**12, 8_000, (30, 1_000), torch.bfloat16).nodes
        123031
        >>> Room(10**9, 10**12, 8_000, (30, 1_000), torch.bfloat16, host_bytes=3 * 10**9).nodes
        369094
        """
        return int(max(self.memory_bytes, min(self.host_bytes, self.memory_bytes / LEFT)) // self.node_total)

    @property
    def node_total(self) -> int:
        """Bytes that a parked node takes, with its part of a mask."""
        return self.node_bytes + MASK_WIDTH * self.dtype.itemsize

    def disk_of(self, wanted: Gathering) -> int:
        """Bytes on the disk of what is gathered from a batch."""
        nodes, *means = _counts(wanted)
        return self.size[0] * self.size[1] * (nodes * self.dtype.itemsize + 4 * sum(means))


@dataclass(frozen=True)
class Parked:
    """A batch of a sweep. of: identity of the batch that was announced, of which this may be a half."""

    of: int
    batch: Batch
    work: Work
    wanted: Gathering
    note: str = ""


class Sweeps:
    """Runs the batches of works that were announced, and gives the states of each.

    forward: runs a batch and puts what it gathers into a store. room: what the next sweep may take. halve: the halves
    of a batch that the device has no memory for, and a note on it; raises where it cannot be halved. num_swept: sweeps
    so far, each a reading of all layers.
    """

    def __init__(
        self,
        layers: StreamedLayers,
        forward: Callable[[Batch, Gathering, Store], None],
        room: Callable[[], Room],
        halve: Callable[[Batch, Exception], tuple[Sequence[Batch], str]],
    ) -> None:
        self._layers, self._forward, self._room, self._halve = layers, forward, room, halve
        self.num_swept = 0
        self.expect(())

    def expect(self, works: Iterable[Sequence[Work]]) -> None:
        """These works come next, in this order, and nothing else that was announced; taken as there is room."""
        self._coming = iter(works)
        self._taken: list[Work] = []
        self._waiting: deque[tuple[Batch, Work]] = deque()
        self._done: dict[int, list[tuple[Parked, Part]]] = {}

    def take_one_more(self) -> bool:
        """Take the next works that were announced; whether there were any."""
        works = next(self._coming, None)
        if works is None:
            return False
        self._taken += works
        self._waiting += [(batch, work) for work in works for batch in work.parts]
        return True

    def announce(self, works: Sequence[Work]) -> None:
        """These works come next, and nothing else."""
        self.expect([works])
        self.take_one_more()

    def nodes_at_a_time(self) -> int:
        """Nodes that a sweep has room for now, about."""
        return self._room().nodes

    def timed(self, work: Work) -> Timing:
        """What one sweep over a work takes; its states are dropped."""
        layers = self._layers
        read, computed = layers.read_seconds, layers.computed_seconds
        nodes = sum(states.num_nodes for states in self.run(work))
        spent = layers.read_seconds - read, layers.computed_seconds - computed
        return Timing(*spent, nodes, layers.num_layers)

    def run(self, work: Work) -> Iterator[States]:
        """States of a work, batch by batch, in sweeps that it shares with those that were announced after it."""
        if not any(work is each for each in self._taken):
            self.announce([work])
        for batch in work.parts:
            while id(batch) not in self._done:
                self._sweep()
            for parked, part in self._done.pop(id(batch)):
                copy = BatchCopy(parked.batch, parked.wanted, part.take(), parked.note, None, work.store_dtype)
                yield from copy.take()
        self._taken = [each for each in self._taken if each is not work]

    def _sweep(self) -> None:
        """Run as many of the waiting batches as there is room for, and at least one."""
        room, taken, memory, disk = self._room(), list[Parked](), 0, 0
        in_host = room.leaves
        while self._waiting or self.take_one_more():
            if not self._waiting:
                continue
            batch, work = self._waiting[0]
            wanted = gathering(batch, work.places)
            memory += room.memory_of(batch)
            disk += room.disk_of(wanted)
            leaves = in_host or not room.holds(memory, len(taken) + 1, in_host=False)
            if taken and (disk > room.disk_bytes or (leaves and not room.holds(memory, len(taken) + 1, in_host=True))):
                break
            in_host = room.leaves or (leaves and bool(taken))
            taken.append(Parked(id(batch), batch, work, wanted))
            self._waiting.popleft()
        try:
            self._compute(taken, replace(room, leaves=in_host))
        except BaseException:
            self.expect(())
            raise

    def _compute(self, taken: Sequence[Parked], room: Room) -> None:
        """Run these in one sweep; in two where the device has no memory for that."""
        try:
            self._together(taken, room)
        except torch.OutOfMemoryError as error:
            if len(taken) > 1:
                middle = len(taken) // 2
                again = [taken[:middle], taken[middle:]]
            else:
                (one,) = taken
                halves, note = self._halve(one.batch, error)
                again = [[replace(one, batch=h, wanted=gathering(h, one.work.places), note=note)] for h in halves]
        else:
            return
        # Outside the handler: its traceback keeps the tensors that did not fit alive.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        for some in again:
            self._compute(some, room)

    def _together(self, taken: Sequence[Parked], room: Room) -> None:
        scratch = Scratch()
        parts = [scratch.part(_counts(p.wanted), room.size, room.dtype) for p in taken]
        # Whatever is as large as a batch's states waits in the host's memory, where there is none for it on the device.
        in_host = [room.states_of(p.batch) for p in taken] if room.leaves else []
        forwards = [partial(self._forward, p.batch, p.wanted, part) for p, part in zip(taken, parts, strict=True)]
        self._layers.together(forwards, in_host)
        scratch.settle()
        # Before any of its rows is given away.
        self._layers.check_files()
        self.num_swept += 1
        for parked, part in zip(taken, parts, strict=True):
            self._done.setdefault(parked.of, []).append((parked, part))


def _counts(wanted: Gathering) -> list[int]:
    return [len(wanted.node_G), *(len(mean.rows_S) for mean in wanted.means)]
