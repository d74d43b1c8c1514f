"""One block after another from token ids to commits, with the steps overlapped.

A planning thread lays out the next block, this thread waits for the model, a writing thread encodes and commits; the
queues between them are bounded, and a failure in any of them ends the run with that step's error.

Shape legend: S sentences of a shard, K layers, H hidden size.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from drillcore.backends.base import FloatStates, States, Work
from drillcore.errors import NumericsError
from drillcore.runtime.work.sink import ShardSink
from drillcore.runtime.work.tasks import BlockDone, BlockTask
from drillcore.system.progress import Progress
from drillcore.tokens.sequences import Sequences

# Shards that wait for the writer: one being written, one ready.
WAITING_SHARDS = 2
# A sentence's states from which copying them one sentence at a time is faster than all at once through a copy.
LOOP_BYTES = 16_384


class BlockBackend(Protocol):
    """What the pipeline needs of a backend: one prepared model."""

    def plan(self, block: Sequences) -> Work:
        """Lay out a block, in the planning thread while another block runs."""

    def run(self, work: Work) -> Iterator[States]:
        """Hidden states, batch by batch."""


@dataclass
class Shard:
    """A shard that fills up with states in any order.

    number: of the shard in the array; start: its first sentence in the block. states_SKH: store dtype.
    """

    number: int
    start: int
    states_SKH: NDArray[np.generic]
    absmax_K: NDArray[np.float32]
    missing: int


@dataclass
class Clock:
    """Seconds by step."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, step: str, started: float) -> float:
        """Count the time since `started`; returns now."""
        now = time.perf_counter()
        self.seconds[step] = self.seconds.get(step, 0.0) + now - started
        return now


class Assembler:
    """Puts the states of one block in their places and yields shards as they become whole."""

    def __init__(self, task: BlockTask) -> None:
        self._task, self._open = task, dict[int, Shard]()
        shape, block = task.shape, task.block
        self._limit = float(np.finfo(shape.store_dtype).max)
        self._sizes = [min(shape.shard, len(block) - s) for s in range(0, len(block), shape.shard)]

    def add(self, part: States) -> Iterator[Shard]:
        """Take one batch; raises NumericsError where a state cannot be stored."""
        self._check(part)
        shape = self._task.shape
        shard_S = part.sentence_S // shape.shard
        for local in np.unique(shard_S).tolist():
            mine = shard_S == local
            shard = self._shard(local)
            rows = part.row_S[mine]
            _put(shard.states_SKH, part.sentence_S[mine] - shard.start, part.values_GKH, rows)
            np.maximum(shard.absmax_K, part.absmax_GK[rows].max(axis=0), out=shard.absmax_K)
            shard.missing -= len(rows)
            if shard.missing == 0:
                yield self._open.pop(local)

    def _shard(self, local: int) -> Shard:
        if local not in self._open:
            shape, size = self._task.shape, self._sizes[local]
            states = np.empty((size, len(shape.layers), shape.hidden_size), shape.store_dtype)
            largest = np.zeros(len(shape.layers), np.float32)
            number = self._task.block.first_shard + local
            self._open[local] = Shard(number, local * shape.shard, states, largest, size)
        return self._open[local]

    def _check(self, part: States) -> None:
        wrong = ~(part.absmax_GK <= self._limit)
        if not wrong.any():
            return
        row, slot = (int(i[0]) for i in np.nonzero(wrong))
        shape, largest = self._task.shape, float(part.absmax_GK[row, slot])
        sentence = self._task.block.start + int(part.sentence_S[np.flatnonzero(part.row_S == row)[0]])
        where = f"{self._task.group}: sentence {sentence}, layer {shape.layers[slot]} ({shape.layer_names[slot]})"
        if np.isfinite(largest):
            raise NumericsError(
                f"{where}: a hidden state of {largest:.6g} does not fit {shape.store_dtype}",
                hint="Set extract.store_dtype: float32.",
            )
        raise NumericsError(
            f"{where}: a hidden state is not finite", hint="Set extract.dtype: float32 or bfloat16 for this model."
        )


def _put(
    states_SKH: NDArray[np.generic], sentence_S: NDArray[np.int64], values_GKH: FloatStates, row_S: NDArray[np.int64]
) -> None:
    """states_SKH[sentence_S] = values_GKH[row_S], without the copy of all rows that numpy makes first."""
    if values_GKH[:1].nbytes < LOOP_BYTES:
        states_SKH[sentence_S] = values_GKH[row_S]
        return
    for sentence, row in zip(sentence_S.tolist(), row_S.tolist(), strict=True):
        states_SKH[sentence] = values_GKH[row]


def extract_blocks(
    backend: BlockBackend, tasks: Iterable[BlockTask], sink: ShardSink, progress: Progress
) -> Iterator[BlockDone]:
    """Run blocks one after the other, yielding each once all its shards are committed."""
    with ThreadPoolExecutor(1, "plan") as planner, ThreadPoolExecutor(1, "write") as writer:
        planned = _planned(planner, backend, tasks)
        running: deque[tuple[BlockTask, Work, Clock, list[Future[float]], list[str]]] = deque()
        try:
            for task, work, clock in planned:
                notes: list[str] = []
                writes = list(_forward(backend, task, work, clock, writer, sink, progress, notes))
                running.append((task, work, clock, writes, notes))
                while len(running) > 1:
                    yield _finish(*running.popleft())
            while running:
                yield _finish(*running.popleft())
        finally:
            writer.shutdown(wait=True, cancel_futures=True)


def _planned(
    planner: ThreadPoolExecutor, backend: BlockBackend, tasks: Iterable[BlockTask]
) -> Iterator[tuple[BlockTask, Work, Clock]]:
    """Each task with its work, the next one being planned meanwhile."""

    def plan(task: BlockTask) -> tuple[BlockTask, Work, Clock]:
        clock, started = Clock(), time.perf_counter()
        work = backend.plan(task.tokens)
        task.tokens.release()
        clock.add("plan", started)
        return task, work, clock

    ahead: Future[tuple[BlockTask, Work, Clock]] | None = None
    for task in tasks:
        following = planner.submit(plan, task)
        if ahead is not None:
            yield ahead.result()
        ahead = following
    if ahead is not None:
        yield ahead.result()


def _forward(
    backend: BlockBackend,
    task: BlockTask,
    work: Work,
    clock: Clock,
    writer: ThreadPoolExecutor,
    sink: ShardSink,
    progress: Progress,
    notes: list[str],
) -> Iterator[Future[float]]:
    """Run the model over a block; yields the writes of its shards."""
    assembler = Assembler(task)
    waiting: deque[Future[float]] = deque()

    def write(shard: Shard) -> float:
        started = time.perf_counter()
        sink.commit(task, shard.number, shard.states_SKH, shard.absmax_K)
        return time.perf_counter() - started

    # While the first batch computes: opening it would hold up a small job's only commit, at its very end.
    writer.submit(sink.open, task)
    started = time.perf_counter()
    for part in backend.run(work):
        started = clock.add("forward", started)
        for shard in assembler.add(part):
            while len(waiting) >= WAITING_SHARDS:
                waiting.popleft().result()
            pending = writer.submit(write, shard)
            waiting.append(pending)
            yield pending
        started = clock.add("assemble", started)
        if part.note:
            notes.append(part.note)
        # A writer that failed ends the run now, not at the block's end.
        for future in waiting:
            if future.done():
                future.result()
        progress.advance(len(part.sentence_S))


def _finish(task: BlockTask, work: Work, clock: Clock, writes: list[Future[float]], notes: list[str]) -> BlockDone:
    """Wait for a block's writes and say what it cost."""
    clock.seconds["write"] = sum(w.result() for w in writes)
    return BlockDone(
        model=task.model.model.group,
        dataset=task.dataset,
        block=task.block.index,
        num_sentences=len(task.block),
        num_nodes=work.num_nodes,
        num_padding=work.num_padding,
        num_tokens=len(task.tokens.ids_T),
        committed_bytes=len(task.block) * task.shape.sentence_bytes,
        seconds=dict(clock.seconds),
        notes=tuple(notes),
    )
