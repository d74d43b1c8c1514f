"""How a sweep would keep many GPUs busy: measured times replayed through the planner and order of a real run.

    python -m benchmarks.parts.simulate_cluster [--quick] [--measured FILE] [--gpus 8 64 512] [--models 40]
        [--sentences 1000000] [--out FILE]

Only time is made up: `spread_block` sizes the blocks and `Scheduler` hands them out, as in a run. Loads and seconds a
sentence are those that `benchmarks/parts/sweep.py` measured, block by block; further models are the measured ones, each
so many times as dear. Prints a table and writes JSON.
"""

from __future__ import annotations

import heapq
import json
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, make_parser, parse, write_results
from drillcore.runtime.executors.scheduler import AHEAD, Piece, Scheduler
from drillcore.runtime.work.blocks import MAX_BLOCK, spread_block

QUICK = {"gpus": [8], "models": 6, "sentences": 100_000}
# How many times as dear the dearest model of the sweep is as the cheapest, evenly spread on a logarithmic scale.
SPREAD_OF_COST = 50.0


@dataclass(frozen=True)
class Simulated:
    """A model of the simulated sweep: seconds to load it, and seconds and sentences of each of its blocks."""

    load_seconds: float
    block_seconds: tuple[float, ...]
    block_sentences: tuple[int, ...]


@dataclass
class Worker:
    """One GPU: what it runs, what it holds, and the seconds it loaded and computed for."""

    running: Piece | None = None
    held: deque[Piece] = field(default_factory=deque)
    load_seconds: float = 0.0
    block_seconds: float = 0.0
    num_loads: int = 0

    @property
    def num_blocks(self) -> int:
        """Blocks that it has."""
        return len(self.held) + (self.running is not None and self.running.block is not None)

    @property
    def is_open(self) -> bool:
        """Whether it can take something."""
        loading = self.running is not None and self.running.block is None
        alone = self.running is not None and self.running.alone
        return not loading and not alone and self.num_blocks < AHEAD


@dataclass(frozen=True)
class Outcome:
    """A simulated sweep. Shares are of all GPUs' time from the first load to the last block."""

    num_workers: int
    num_blocks: int
    smallest: int
    largest: int
    wall_seconds: float
    ideal_seconds: float
    idle_share: float
    load_share: float
    loads_per_model: float


def simulate(models: Sequence[Simulated], num_workers: int) -> Outcome:
    """Run the sweep; time passes from one end of a piece to the next."""
    costs = [sum(m.block_seconds) for m in models]
    order = Scheduler(costs, [len(m.block_seconds) for m in models], num_workers)
    workers, ends, ticket = [Worker() for _ in range(num_workers)], list[Any](), count()
    now, last_block = 0.0, 0.0

    def start(worker: Worker, number: int) -> None:
        piece = worker.running = worker.held.popleft()
        model = models[piece.model]
        seconds = model.load_seconds if piece.block is None else model.block_seconds[piece.block]
        heapq.heappush(ends, (now + seconds, next(ticket), number, seconds))

    def feed() -> None:
        for number, worker in enumerate(workers):
            while worker.is_open and (piece := order.next(number, worker.num_blocks)) is not None:
                worker.held.append(piece)
                if worker.running is None:
                    start(worker, number)
            if worker.running is not None and worker.running.block is not None:
                order.ahead(number)

    feed()
    while ends and not (order.is_empty and not any(w.num_blocks for w in workers)):
        now, _, number, seconds = heapq.heappop(ends)
        worker = workers[number]
        piece, worker.running = worker.running, None
        assert piece is not None
        if piece.block is None:
            worker.load_seconds, worker.num_loads = worker.load_seconds + seconds, worker.num_loads + 1
            order.loaded(number, piece.model, seconds)
            if not order.is_open(piece.model):
                sizes = models[piece.model].block_sentences
                order.open(piece.model, [Piece(piece.model, i, size) for i, size in enumerate(sizes)])
        else:
            worker.block_seconds, last_block = worker.block_seconds + seconds, now
            order.done(piece, seconds)
        if worker.held:
            start(worker, number)
        feed()
    return _outcome(models, workers, last_block)


def _outcome(models: Sequence[Simulated], workers: list[Worker], last_block: float) -> Outcome:
    whole = len(workers) * last_block
    computed, loaded = sum(w.block_seconds for w in workers), sum(w.load_seconds for w in workers)
    needed = sum(sum(m.block_seconds) + m.load_seconds for m in models)
    return Outcome(
        num_workers=len(workers),
        num_blocks=sum(len(m.block_seconds) for m in models),
        smallest=min(m.block_sentences[0] for m in models),
        largest=max(m.block_sentences[0] for m in models),
        wall_seconds=last_block,
        ideal_seconds=needed / len(workers),
        idle_share=max(0.0, whole - computed - loaded) / whole,
        load_share=loaded / whole,
        loads_per_model=sum(w.num_loads for w in workers) / len(models),
    )


def make_models(
    measured: dict[str, Any], num_models: int, num_sentences: int, num_workers: int, spread: bool
) -> list[Simulated]:
    """So many models with so many sentences each; in the plan's blocks, or in those of one process."""
    models = []
    known = list(measured["models"].values())
    factors = [SPREAD_OF_COST ** (i / max(1, num_models - 1)) for i in range(num_models)]
    costs = [factor * _rate(known[i % len(known)]) for i, factor in enumerate(factors)]
    for i, facts in enumerate(islice(cycle(known), num_models)):
        factor, block = factors[i], MAX_BLOCK
        if spread:
            block = spread_block(MAX_BLOCK, num_sentences, costs[i] / sum(costs), num_workers)
        sizes = [min(block, num_sentences - s) for s in range(0, num_sentences, block)]
        rates = islice(cycle(b["seconds"] / b["sentences"] for b in facts["blocks"]), i, i + len(sizes))
        seconds = tuple(factor * rate * size for rate, size in zip(rates, sizes, strict=True))
        models.append(Simulated(factor * facts["load_seconds"], seconds, tuple(sizes)))
    return models


def _rate(facts: dict[str, Any]) -> float:
    """Seconds a sentence."""
    return float(sum(b["seconds"] for b in facts["blocks"]) / sum(b["sentences"] for b in facts["blocks"]))


def arguments() -> Any:
    """The command line."""
    parser = make_parser(__doc__, quick="few models on 8 GPUs")
    parser.add_argument("--measured", type=Path, help="what benchmarks.parts.sweep wrote (default: its newest)")
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--models", type=int, default=40)
    parser.add_argument("--sentences", type=int, default=1_000_000, help="of each model")
    return parse(parser, QUICK)


def main() -> int:
    """Simulate, print, write."""
    options = arguments()
    source = options.measured or max(RESULTS.glob("*-sweep.json"), default=None)
    if source is None:
        print("simulate_cluster.py: there are no measured times yet: run benchmarks.parts.sweep first", file=sys.stderr)
        return 2
    measured = json.loads(source.read_text(encoding="utf-8"))
    print(f"{options.models} models x {options.sentences:,} sentences; times from {source.name}\n")
    print(
        "| GPUs | blocks of | blocks a GPU | idle | loading | loads a model | wall over ideal |\n" + "| ---: " * 7 + "|"
    )
    outcomes = []
    for gpus in options.gpus:
        for spread in (False, True):
            done = simulate(make_models(measured, options.models, options.sentences, gpus, spread), gpus)
            outcomes.append(vars(done) | {"planned": spread})
            sizes = f"{done.smallest:,} to {done.largest:,} (the plan)" if spread else f"{done.largest:,}"
            print(
                f"| {gpus} | {sizes} | {done.num_blocks / gpus:.1f} | {done.idle_share:.1%} "
                f"| {done.load_share:.1%} | {done.loads_per_model:.1f} | {done.wall_seconds / done.ideal_seconds:.3f} |"
            )
    write_results("cluster", options, {"measured": source.name, "outcomes": outcomes})
    return 0


if __name__ == "__main__":
    sys.exit(main())
