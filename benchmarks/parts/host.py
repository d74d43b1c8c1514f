"""From a finished pass to committed shards, without a model: what each step takes.

    python -m benchmarks.parts.host [--shape 8b] [--dtype bfloat16] [--store-dtype float32] [--repeats 5] [--out FILE]

The states of a batch are on the device; they come to the host, are put into shards, encoded and committed, as in a run.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import results, write_json
from drillcore.backends.base import Work
from drillcore.backends.transformers.host import BatchCopy, keep_freed_memory
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.runtime.work.blocks import make_blocks, rows_digest
from drillcore.runtime.work.pipeline import Assembler, Buffers, Shard, extract_blocks
from drillcore.runtime.work.sink import ShardSink
from drillcore.runtime.work.tasks import BlockTask, ModelTask
from drillcore.store.layout import choose_shape
from drillcore.store.places.location import Location
from drillcore.store.shards import Encoding, threads
from drillcore.store.writer import StoreWriter
from drillcore.system.progress import Progress
from drillcore.tokens.batches import Batch
from drillcore.tokens.places import gathering
from drillcore.tokens.sequences import Sequences

# Gathered sentences of a batch, layers, hidden size.
SHAPES = {"8b": (1260, 34, 4096), "135m": (1300, 32, 576), "toy": (64, 6, 256)}


class Finished:
    """A backend whose passes are over: the same states on the device, batch after batch, in the order of packs."""

    def __init__(self, states_GKH: torch.Tensor, batches: int) -> None:
        self.states_GKH, self.count = states_GKH, len(states_GKH)
        self.passes = [states_GKH.clone() for _ in range(batches)]
        self.side = torch.cuda.Stream() if states_GKH.is_cuda else None

    def lay_out(self, block: Sequences) -> Any:
        """Batches that hold the block's sentences in random order."""
        order = np.random.default_rng(0).permutation(len(block))
        nodes = np.arange(self.count)
        parts = []
        for low in range(0, len(block), self.count):
            here = np.sort(order[low : low + self.count])
            grid = np.zeros((1, len(here)), np.int64)
            parts.append(Batch(grid, grid, grid, nodes[: len(here)], here, nodes[: len(here)], np.array([len(here)])))
        return Work(len(block), len(block), 0, parts)

    def renew(self) -> None:
        """Let the passes be over once more; not timed."""
        for states_GKH in self.passes:
            states_GKH.copy_(self.states_GKH)

    def run(self, work: Any) -> Any:
        """The states of each batch, brought to the host."""
        for batch, states_GKH in zip(work.parts, self.passes, strict=True):
            states = states_GKH[: len(batch.node_G)]
            yield from BatchCopy(batch, gathering(batch, ()), [states], "", self.side, work.store_dtype).take()


def measure_host(
    scratch: Path, shape: str, dtype: str, store_dtype: str, *, batches: int = 1, repeats: int = 5, steps: str = ""
) -> dict[str, dict[str, float]]:
    """Seconds and states a second by step, each in turn; medians. steps: only those whose names hold this."""
    keep_freed_memory()
    num_nodes, num_layers, hidden = SHAPES[shape]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    # Like residual streams, whose values of one dimension are of one size.
    scale = torch.exp(torch.randn(hidden))
    states = (torch.randn(num_nodes, num_layers, hidden) * scale).to(device, getattr(torch, dtype))
    backend = Finished(states, batches)
    ways = {step: run for step, run in make_steps(backend, store_dtype, scratch).items() if steps in step}
    times: dict[str, list[float]] = {step: [] for step in ways}
    for k in range(repeats + 1):
        for step, run in ways.items():
            backend.renew()
            started = time.perf_counter()
            run(k)
            if k:
                times[step].append(time.perf_counter() - started)
    count, medians = num_nodes * batches, {step: statistics.median(t) for step, t in times.items()}
    return {step: {"seconds": t, "states_per_second": count / t} for step, t in medians.items()}


def main() -> None:
    """Measure every step, and print states a second."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="bfloat16")
    parser.add_argument("--store-dtype", choices=("float32", "float16"), default="float32")
    parser.add_argument("--batches", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", default="", help="only those whose names hold this, for their peak of memory")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure_host(
            Path(scratch),
            options.shape,
            options.dtype,
            options.store_dtype,
            batches=options.batches,
            repeats=options.repeats,
            steps=options.steps,
        )
    for step, row in rows.items():
        print(f"{step:40} {row['seconds'] * 1e3:9.1f} ms  {row['states_per_second']:12,.0f} states/s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak {peak / 2**20:.2f} GiB")
    if options.out is not None:
        write_json(options.out, results("host", options, {"steps": rows, "peak_kib": peak}))


def make_steps(backend: Finished, store_dtype: str, scratch: Path) -> dict[str, Callable[[int], Any]]:
    """The steps by name; each takes the number of the round."""
    num_nodes, num_layers, hidden = backend.states_GKH.shape
    count = num_nodes * len(backend.passes)
    layers = tuple(range(num_layers))
    shape = choose_shape(count, layers, [str(k) for k in layers], hidden, store_dtype)
    tokens = Sequences(np.zeros(count, np.int32), np.arange(count + 1))
    block = -(-count // shape.shard) * shape.shard
    blocks = make_blocks(lambda *rows: rows_digest(tokens.slice(*rows)), {}, count, shape.shard, block)
    extract = Extract(store_dtype=store_dtype)
    model = ModelTask(Model(id="m"), "", "finished", extract, layers, None, tokens.slice(0, 1))

    def task(number: int) -> BlockTask:
        place = str(scratch / f"{number}.zarr")
        store = StoreWriter(Location(place), "job", "0")
        store.set_groups(["m/d"])
        store.dataset("m", "d").ensure(shape, ())
        return BlockTask(model, "d", place, "m/d", shape, blocks[0], tokens)

    work = backend.lay_out(tokens)
    work = replace(work, store_dtype=store_dtype)
    only_task = task(-1)

    buffers, encoders = Buffers(), ThreadPoolExecutor(threads(), "encode")

    def assembled() -> Iterator[Shard]:
        assembler = Assembler(only_task, buffers)
        for part in backend.run(work):
            yield from assembler.add(part)

    def assemble(_: int) -> None:
        for shard in list(assembled()):
            buffers.give(shard.buffer_SKH)

    def encode_all(_: int) -> None:
        under_way = [(shard, Encoding(shard.states_SKH, shape, encoders)) for shard in assembled()]
        for shard, encoding in under_way:
            deque(encoding.pieces(), maxlen=0)
            buffers.give(shard.buffer_SKH)

    backend.renew()
    stored = [shard.states_SKH.astype(store_dtype) for shard in assembled()]

    def encode(_: int) -> None:
        for encoding in [Encoding(states, shape, encoders) for states in stored]:
            deque(encoding.pieces(), maxlen=0)

    def commit(number: int) -> None:
        list(extract_blocks(backend, [task(number)], ShardSink(), Progress()))

    return {
        "pass to host": lambda _: [None for _ in backend.run(work)],
        "pass to the encoder's input": assemble,
        "encoding alone": encode,
        "pass to encoded bytes": encode_all,
        "pass to committed shards": commit,
    }


if __name__ == "__main__":
    main()
