"""The whole job on given token ids: blocks through a backend into a scratch store, from first token to last commit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr

from drillcore.backends import layers as contract
from drillcore.backends.device import host_hardware
from drillcore.runtime.work.blocks import block_sentences, make_blocks, rows_digest
from drillcore.runtime.work.tasks import BlockDone, BlockTask, ModelTask
from drillcore.runtime.work.worker import Worker
from drillcore.store.attributes import make_group
from drillcore.store.layout import Shape, choose_shape
from drillcore.store.places.location import Location
from drillcore.store.writer import GroupWriter
from drillcore.system.progress import Progress
from drillcore.tokens.sequences import Sequences

DATASET = "bench"


@dataclass(frozen=True)
class JobTimes:
    """What a whole job took. wall_seconds: from the first token id to the last commit; blocks: by block."""

    wall_seconds: float
    blocks: tuple[BlockDone, ...]

    @property
    def num_nodes(self) -> int:
        """Nodes computed, without padding."""
        return sum(b.num_nodes for b in self.blocks)

    @property
    def num_padding(self) -> int:
        """Padding computed beside the nodes."""
        return sum(b.num_padding for b in self.blocks)

    @property
    def committed_bytes(self) -> int:
        """Bytes of states committed, before compression."""
        return sum(b.committed_bytes for b in self.blocks)

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds by step, each in its own thread: they overlap, so that their sum may exceed the wall's."""
        totals: dict[str, float] = {}
        for block in self.blocks:
            for step, seconds in block.seconds.items():
                totals[step] = totals.get(step, 0.0) + seconds
        return totals


@dataclass(frozen=True)
class ScratchJob:
    """Blocks of one set of sentences, and the store that takes their states; created again for every measurement."""

    tasks: tuple[BlockTask, ...]
    group: zarr.Group

    @property
    def shape(self) -> Shape:
        """Of the store's arrays."""
        return self.tasks[0].shape

    def run(self, worker: Worker) -> JobTimes:
        """Extract and commit all blocks, as an executor's worker does; raises what the pipeline raises."""
        worker.load(self.tasks[0].model)
        started = time.perf_counter()
        done = tuple(worker.extract(iter(self.tasks), Progress()))
        return JobTimes(time.perf_counter() - started, done)

    def states(self) -> Any:
        """The committed `hidden_states`, a Zarr array [sentence, layer, hidden]."""
        return self.group["hidden_states"]


def make_job(
    model: ModelTask, num_layers: int, hidden_size: int, tokens: Sequences, store: Path, block: int | None = None
) -> ScratchJob:
    """Create the store and cut the sentences into blocks of `block` (by default as `drillcore extract` would)."""
    extract = model.extract
    shard = None if extract.shard_sentences == "auto" else extract.shard_sentences
    shape = choose_shape(
        len(tokens), model.layers, _names(model.layers, num_layers), hidden_size, extract.store_dtype, shard
    )
    zarr.create_group(Location(str(store)).open())
    group = make_group(Location(str(store)).open(), f"model/{DATASET}")
    GroupWriter(group).ensure(shape, ())
    size = block or block_sentences(shape.shard, shape.sentence_bytes, host_hardware(extract).memory_bytes)
    blocks = make_blocks(lambda start, stop: rows_digest(tokens.slice(start, stop)), {}, len(tokens), shape.shard, size)
    tasks = tuple(
        BlockTask(model, DATASET, str(store), group.path, shape, b, tokens.slice(b.start, b.stop)) for b in blocks
    )
    return ScratchJob(tasks, group)


def _names(layers: Sequence[int], num_layers: int) -> list[str]:
    return [contract.layer_name(k, num_layers) for k in layers]
