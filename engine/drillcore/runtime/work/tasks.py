"""Pieces of work that executors hand out, and what comes back: plain data that travels between processes and hosts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from drillcore.backends.base import Prepared
from drillcore.errors import DrillcoreError
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.runtime.work.blocks import Block
from drillcore.store.layout import Shape
from drillcore.store.places.hold import Hold
from drillcore.store.record import BlockPart
from drillcore.tokens.places import LaterPlaces, Places
from drillcore.tokens.sequences import Sequences

NONE = Sequences.of([])


@dataclass(frozen=True)
class ModelTask:
    """Load a model and prepare it.

    base: folder that relative model directories start from. layers: numbers of the layer contract. numerics: those of
    an earlier run, to be used again, or None. sample: some of the job's sentences, for the self-check. witness:
    sentences to be computed one at a time as well, for the audit; witness_places: tokens that the mean is taken over,
    the last one of each where there are none.
    """

    model: Model
    base: str
    backend: str
    extract: Extract
    layers: tuple[int, ...]
    numerics: dict[str, Any] | None
    sample: Sequences
    witness: Sequences = NONE
    witness_places: Places | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """Tasks with equal keys can share one loaded model."""
        return (self.model, self.base, self.backend, self.extract, self.layers)


@dataclass(frozen=True)
class BlockTask:
    """Extract one block of a dataset into the store.

    dataset: its name. store: address. group: path of the group in it. tokens: the block's sentences, truncated.
    committed: numbers of its shards that are committed as they must be, and are left alone. hold: tells the worker
    whether the run that sent the task still holds the store; none for a store that nobody else can know of. places:
    which tokens the rows are of; none for the last one of each sentence. beside: other groups of the same sentences,
    whose states come from the same passes. parts: the rows of all of them, for the record of each shard; none where it
    is alone; for each stretch of its block. counted: whether its rows are the sentences that progress counts.
    offset: rows of the block before those of `tokens`, where the block has several stretches; further: the tasks of
    those after this one that are computed, too. begun: of the shards that are completed, the row after those which they
    hold.
    """

    model: ModelTask
    dataset: str
    store: str
    group: str
    shape: Shape
    block: Block
    tokens: Sequences
    committed: frozenset[int] = frozenset()
    hold: Hold | None = None
    places: LaterPlaces | None = None
    beside: tuple[BlockTask, ...] = ()
    parts: tuple[tuple[BlockPart, ...], ...] = ()
    counted: bool = True
    offset: int = 0
    further: tuple[BlockTask, ...] = ()
    begun: Mapping[int, int] = field(default_factory=dict)

    @property
    def groups(self) -> tuple[BlockTask, ...]:
        """Itself and those beside it."""
        return (self, *self.beside)

    @property
    def stretches(self) -> tuple[BlockTask, ...]:
        """Itself and the tasks of the stretches after it, which are computed one after the other."""
        return (self, *self.further)

    @property
    def num_sentences(self) -> int:
        """Sentences that are computed."""
        return sum(len(each.tokens) for each in self.stretches)

    @property
    def num_tokens(self) -> int:
        """Tokens of those sentences."""
        return sum(len(each.tokens.ids_T) for each in self.stretches)

    def parts_of(self, shard: int) -> tuple[BlockPart, ...]:
        """The rows that were computed together with those of a shard, in each stretch that it has rows of."""
        first, stop = self.shape.bounds(shard)
        stretches = self.block.stretches
        held = [i for i, s in enumerate(stretches) if max(s.start, first) < min(s.stop, stop)]
        if self.parts:
            return tuple(part for i in held for part in self.parts[i])
        return tuple(BlockPart(stretches[i].start, stretches[i].stop) for i in held)

    @property
    def is_committed(self) -> bool:
        """Whether nothing of it is left to be written."""
        shards = range(self.block.first_shard, self.block.first_shard + len(self.block.fingerprints))
        return self.committed.issuperset(shards)

    def all_places(self) -> tuple[Places, ...]:
        """Places of all groups; none where only the last tokens are wanted. Raises ValueError for one outside."""
        if self.places is None and not self.beside:
            return ()
        last = Places.last(self.tokens)
        found = tuple(last if task.places is None else task.places.now() for task in self.groups)
        for places in found:
            places.refuse_outside(self.tokens)
        return found


@dataclass(frozen=True)
class SweepModel:
    """A model of a sweep, before it is loaded.

    num_blocks: how many blocks it will have at most; which ones is known once it is prepared, since they carry its
    numerics. num_sentences: in them. cost: tokens times parameters, to compare models with.
    """

    task: ModelTask
    num_blocks: int
    num_sentences: int
    cost: float

    @property
    def name(self) -> str:
        """Name of the model's group in the store."""
        return self.task.model.group


@dataclass(frozen=True)
class BlockDone:
    """What one block cost.

    seconds: by step, of the thread that does it; `forward` is waiting for states, `write` encoding and committing.
    sweeps: readings of a model's layers that ended in it, where weights are streamed.
    """

    model: str
    dataset: str
    block: int
    num_sentences: int
    num_nodes: int
    num_padding: int
    num_tokens: int
    committed_bytes: int
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()
    sweeps: int = 0


@dataclass(frozen=True)
class BlockFailed:
    """A block that was given up after its retries."""

    model: str
    dataset: str
    block: int
    start: int
    stop: int
    error: str
    hint: str = ""

    @staticmethod
    def of(task: BlockTask, error: str, hint: str = "") -> BlockFailed:
        """The failure of a task."""
        block = task.block
        return BlockFailed(task.model.model.group, task.dataset, block.index, *block.sentences, error, hint)


@dataclass(frozen=True)
class RoomForMore:
    """A sweep of streamed weights has room for another block: its worker waits for one, or for none."""


@dataclass(frozen=True)
class ModelFailed:
    """A model that could not be loaded, or was refused; its blocks are given up."""

    model: str
    error: DrillcoreError


@dataclass(frozen=True)
class ModelReady:
    """A model was loaded and checked for the first time in a sweep: its pending blocks are wanted now."""

    model: str
    prepared: Prepared


Outcome = ModelReady | BlockDone | BlockFailed | ModelFailed
