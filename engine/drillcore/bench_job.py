"""The whole job on given token ids: blocks through a backend into a scratch store, from first token to last commit."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore import layers as contract
from drillcore.backends.base import Backend
from drillcore.block import extract_blocks
from drillcore.plan import block_sentences, make_blocks
from drillcore.sequences import Sequences
from drillcore.store.layout import Shape, choose_shape
from drillcore.store.location import Location
from drillcore.store.writer import GroupWriter, StoreWriter
from drillcore.work import BlockDone, BlockTask, ModelTask, Progress

DATASET = "bench"


@dataclass(frozen=True)
class JobTimes:
    """What a whole job took. wall_seconds: from the first token id to the last commit; blocks: by block."""

    wall_seconds: float
    blocks: tuple[BlockDone, ...]

    @property
    def num_nodes(self) -> int:
        """Nodes computed that are no padding."""
        return sum(b.num_nodes for b in self.blocks)

    @property
    def num_padding(self) -> int:
        """Padding computed beside them."""
        return sum(b.num_padding for b in self.blocks)

    @property
    def committed_bytes(self) -> int:
        """Bytes of states committed, before compression."""
        return sum(b.committed_bytes for b in self.blocks)

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds by step, each in its own thread: they overlap, so that their sum may exceed the wall's."""
        found: dict[str, float] = {}
        for block in self.blocks:
            for step, seconds in block.seconds.items():
                found[step] = found.get(step, 0.0) + seconds
        return found


@dataclass(frozen=True)
class ScratchJob:
    """Blocks of one set of sentences, and the store that takes their states; made anew for every measurement."""

    tasks: tuple[BlockTask, ...]
    writer: GroupWriter

    @property
    def shape(self) -> Shape:
        """Of the store's arrays."""
        return self.tasks[0].shape

    def run(self, backend: Backend) -> JobTimes:
        """Extract and commit all blocks; raises what the pipeline raises."""
        writer = self.writer

        def commit(task: BlockTask, shard: int, states: NDArray[np.generic], absmax: NDArray[np.float32]) -> None:
            print_ = task.block.fingerprints[shard - task.block.first_shard]
            writer.commit(shard * task.shape.shard, shard, states, absmax, print_)

        started = time.perf_counter()
        done = tuple(extract_blocks(backend, iter(self.tasks), commit, Progress()))
        return JobTimes(time.perf_counter() - started, done)

    def states(self) -> Any:
        """The committed `hidden_states`, a Zarr array [sentence, layer, hidden]."""
        return self.writer.group["hidden_states"]


def make_job(
    model: ModelTask, num_blocks: int, hidden_size: int, tokens: Sequences, store: Path, block: int | None = None
) -> ScratchJob:
    """Create the store and cut the sentences into blocks of `block` (by default as `drillcore extract` would)."""
    extract = model.extract
    shard = None if extract.shard_sentences == "auto" else extract.shard_sentences
    shape = choose_shape(
        len(tokens), model.layers, _names(model.layers, num_blocks), hidden_size, extract.store_dtype, shard
    )
    writer = StoreWriter(Location(str(store)), DATASET, "").dataset("model", DATASET)
    writer.ensure(shape, ())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    size = block or block_sentences(shape.shard, shape.sentence_bytes, memory)
    blocks = make_blocks(tokens, [""] * len(tokens), {}, len(tokens), shape.shard, size)
    tasks = tuple(
        BlockTask(model, DATASET, str(store), writer.group.path, shape, b, tokens.slice(b.start, b.stop))
        for b in blocks
    )
    return ScratchJob(tasks, writer)


def _names(layers: Sequence[int], num_blocks: int) -> list[str]:
    return [contract.name(k, num_blocks) for k in layers]
