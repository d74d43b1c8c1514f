"""Extracts one block after another, from token ids to commits, with the steps overlapped.

A planning thread lays out the next block, the calling thread waits for the model, encoding threads take the shards that
are complete, and a writing thread commits them: one shard is encoded while another is flushed to disk. The queues
between them are bounded, and a failure in any thread ends the run with that step's error.

Shape legend: S sentences of a shard, K layers, H hidden size.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drillcore.backends.base import FloatStates, States, Work
from drillcore.errors import NumericsError
from drillcore.runtime.work.sink import ShardSink
from drillcore.runtime.work.tasks import BlockDone, BlockTask
from drillcore.store.shards import Encoding, threads
from drillcore.system.progress import Progress
from drillcore.tokens.sequences import Sequences

# Shards handed to the writer at a time: one being written, one ready.
WAITING_SHARDS = 2
# From so many bytes a sentence, copying one sentence at a time is faster than fancy indexing, which copies twice.
LOOP_BYTES = 16_384
# Dtypes that float32 holds exactly.
NARROW = ("float16", "bfloat16")


class Sweeps(Protocol):
    """What the pipeline needs of a backend that runs batches of several blocks together. num_swept: sweeps so far."""

    num_swept: int

    def expect(self, works: Iterable[Sequence[Work]]) -> None:
        """Works that come next, taken from there as they are needed."""

    def take_one_more(self) -> bool:
        """Take the next ones; whether there were any."""


class BlockBackend(Protocol):
    """What the pipeline needs of a backend: one prepared model."""

    def lay_out(self, block: Sequences) -> Work:
        """Lay out a block, in the planning thread while another block runs."""

    def run(self, work: Work) -> Iterator[States]:
        """Hidden states, batch by batch."""


@dataclass
class Shard:
    """A shard that is filled with states in any order.

    number: of the shard in the array. start: its first sentence, counted within the block. buffer_SKH: memory of a
    whole shard, whose first rows states_SKH are: in the dtype
    that they came in where the store's holds it exactly, else in the store's. missing: sentences whose states have not
    arrived.
    """

    number: int
    start: int
    buffer_SKH: NDArray[Any]
    states_SKH: NDArray[Any]
    absmax_K: NDArray[np.float32]
    missing: int


@dataclass(frozen=True)
class Threads:
    """The threads that shards go through, and the memory that they come back from."""

    encoders: ThreadPoolExecutor
    writer: ThreadPoolExecutor
    buffers: Buffers


@dataclass
class Clock:
    """Seconds spent in each step of a block."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, step: str, started: float) -> float:
        """Add the time since `started` to a step; returns the present time."""
        now = time.perf_counter()
        self.seconds[step] = self.seconds.get(step, 0.0) + now - started
        return now


class Buffers:
    """Memory of shards that are written, for the next ones: fresh memory costs more than what is copied into it."""

    def __init__(self) -> None:
        self._free = list[NDArray[Any]]()

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array with any content."""
        for index, array in enumerate(self._free):
            if (array.shape, array.dtype) == (shape, dtype):
                return self._free.pop(index)
        self._free.clear()  # of a dataset of another shape
        return np.empty(shape, dtype)

    def give(self, array: NDArray[Any]) -> None:
        """Take back an array that nothing reads any more."""
        self._free.append(array)


# A task with the planned work of its stretches.
Planned = tuple[BlockTask, list[Work], Clock]
# States [rows, K, H] and maxima [K] of what the store holds of a task's shard, by its number.
FirstRows = Callable[[BlockTask, int], tuple[NDArray[Any], NDArray[np.float32]]]


class Assembler:
    """Puts the states of one block into its shards, and yields each shard once it is complete."""

    def __init__(self, task: BlockTask, buffers: Buffers | None = None, first_rows: FirstRows | None = None) -> None:
        self._task, self._shards, self._buffers = task, dict[int, Shard](), buffers or Buffers()
        self._first_rows = first_rows
        shape, block = task.shape, task.block
        self._limit = float(np.finfo(shape.store_dtype).max)
        every = task.model.layers
        self._slots = None if every == shape.layers else np.array([every.index(k) for k in shape.layers], np.int64)
        self._sizes = [min(shape.shard, len(block) - s) for s in range(0, len(block), shape.shard)]

    def add(self, part: States, offset: int = 0) -> Iterator[Shard]:
        """Add the states of one batch; raises NumericsError where a state cannot be stored.

        offset: rows of the block before those that the batch is of.
        """
        if offset:
            part = replace(part, sentence_S=part.sentence_S + offset)
        if self._slots is not None:
            values_GKH, absmax_GK = part.values_GKH[:, self._slots], part.absmax_GK[:, self._slots]
            part = replace(part, values_GKH=values_GKH, absmax_GK=absmax_GK)
        self._check(part)
        part, shape = self._missing(part), self._task.shape
        shard_S = part.sentence_S // shape.shard
        for local in np.unique(shard_S).tolist():
            in_shard_S = shard_S == local
            shard = self._shard(local, part.values_GKH.dtype)
            rows = part.row_S[in_shard_S]
            _put(shard.states_SKH, part.sentence_S[in_shard_S] - shard.start, part.values_GKH, rows)
            np.maximum(shard.absmax_K, part.absmax_GK[rows].max(axis=0), out=shard.absmax_K)
            shard.missing -= len(rows)
            if shard.missing == 0:
                yield self._shards.pop(local)

    def _missing(self, part: States) -> States:
        """A batch without the rows that are stored already."""
        task = self._task
        if not task.committed and not task.begun:
            return part
        shard_S = part.sentence_S // task.shape.shard + task.block.first_shard
        stored_S = np.isin(shard_S, list(task.committed))
        for shard, stop in task.begun.items():
            stored_S |= (shard_S == shard) & (part.sentence_S + task.block.start < stop)
        return replace(part, sentence_S=part.sentence_S[~stored_S], row_S=part.row_S[~stored_S])

    def _completed(self, local: int) -> Shard:
        """A shard with the rows that the store holds of it."""
        assert self._first_rows is not None
        shape, size, number = self._task.shape, self._sizes[local], self._task.block.first_shard + local
        states_SKH, absmax_K = self._first_rows(self._task, number)
        buffer = self._buffers.take((shape.shard, len(shape.layers), shape.hidden_size), np.dtype(shape.store_dtype))
        buffer[: len(states_SKH)] = states_SKH
        missing = size - len(states_SKH)
        return Shard(number, local * shape.shard, buffer, buffer[:size], absmax_K.copy(), missing)

    def _shard(self, local: int, dtype: np.dtype[Any]) -> Shard:
        if local not in self._shards and self._task.block.first_shard + local in self._task.begun:
            self._shards[local] = self._completed(local)
        if local not in self._shards:
            shape, size = self._task.shape, self._sizes[local]
            # Copied as they are, and widened by the threads that encode: half the bytes pass through this one.
            kept = dtype if shape.store_dtype == "float32" and dtype.name in NARROW else np.dtype(shape.store_dtype)
            buffer = self._buffers.take((shape.shard, len(shape.layers), shape.hidden_size), kept)
            absmax = np.zeros(len(shape.layers), np.float32)
            number = self._task.block.first_shard + local
            self._shards[local] = Shard(number, local * shape.shard, buffer, buffer[:size], absmax, size)
        return self._shards[local]

    def _check(self, part: States) -> None:
        wrong = ~(part.absmax_GK <= self._limit)
        if not wrong.any():
            return
        row, slot = (int(i[0]) for i in np.nonzero(wrong))
        shape, largest = self._task.shape, float(part.absmax_GK[row, slot])
        sentence = self._task.block.start + int(part.sentence_S[np.flatnonzero(part.row_S == row)[0]])
        what = "sentence" if self._task.block.of is None else "row"
        where = f"{self._task.group}: {what} {sentence}, layer {shape.layers[slot]} ({shape.layer_names[slot]})"
        if np.isfinite(largest):
            raise NumericsError(
                f"{where}: a hidden state of {largest:.6g} does not fit {shape.store_dtype}",
                hint="Set extract.store_dtype: float32.",
            )
        raise NumericsError(
            f"{where}: a hidden state is not finite", hint="Set extract.dtype: float32 or bfloat16 for this model."
        )


def _put(
    states_SKH: NDArray[Any], sentence_S: NDArray[np.int64], values_GKH: FloatStates, row_S: NDArray[np.int64]
) -> None:
    """Set states_SKH[sentence_S] = values_GKH[row_S] without NumPy's intermediate copy of all rows."""
    if values_GKH[:1].nbytes < LOOP_BYTES:
        states_SKH[sentence_S] = values_GKH[row_S]
        return
    for sentence, row in zip(sentence_S.tolist(), row_S.tolist(), strict=True):
        states_SKH[sentence] = values_GKH[row]


def extract_blocks(
    backend: BlockBackend, tasks: Iterable[BlockTask], sink: ShardSink, progress: Progress
) -> Iterator[BlockDone]:
    """Run blocks one after the other; yields each once all its shards are committed.

    Raises what a step raises: NumericsError for a state that cannot be stored, CommitError for a failed write, and
    whatever the backend raises. Shards committed before that stay committed.
    """
    with (
        ThreadPoolExecutor(1, "plan") as planner,
        ThreadPoolExecutor(threads(), "encode") as encoders,
        ThreadPoolExecutor(1, "write") as writer,
    ):
        planned, sweeps = _planned(planner, backend, tasks), sweeps_in(backend)
        if sweeps is not None:
            planned = _in_sweeps(sweeps, planned)
        through = Threads(encoders, writer, Buffers())
        running: deque[tuple[BlockTask, list[Work], Clock, list[Future[float]], list[str], int]] = deque()
        swept = 0 if sweeps is None else sweeps.num_swept
        try:
            for task, works, clock in planned:
                notes: list[str] = []
                writes = list(_forward(backend, task, works, clock, through, sink, progress, notes))
                before, swept = swept, 0 if sweeps is None else sweeps.num_swept
                running.append((task, works, clock, writes, notes, swept - before))
                while len(running) > 1:
                    yield _finish(*running.popleft())
            while running:
                yield _finish(*running.popleft())
        finally:
            if sweeps is not None:
                sweeps.expect(())
            writer.shutdown(wait=True, cancel_futures=True)
            encoders.shutdown(wait=True, cancel_futures=True)


def sweeps_in(backend: object) -> Sweeps | None:
    """What runs a backend's batches in sweeps; None where all weights are on the device."""
    found: Sweeps | None = getattr(backend, "sweeps", None)
    return found


def _planned(planner: ThreadPoolExecutor, backend: BlockBackend, tasks: Iterable[BlockTask]) -> Iterator[Planned]:
    """Yield each task with the planned work of its stretches, while the next one is being planned."""

    def lay_out(task: BlockTask) -> tuple[BlockTask, list[Work], Clock]:
        clock, started, works = Clock(), time.perf_counter(), list[Work]()
        for each in task.stretches:
            laid_out = backend.lay_out(each.tokens)
            works.append(replace(laid_out, places=each.all_places(), store_dtype=task.shape.store_dtype))
            each.tokens.release()
        clock.add("plan", started)
        return task, works, clock

    ahead: Future[tuple[BlockTask, list[Work], Clock]] | None = None
    for task in tasks:
        following = planner.submit(lay_out, task)
        if ahead is not None:
            yield ahead.result()
        ahead = following
    if ahead is not None:
        yield ahead.result()


def _in_sweeps(sweeps: Sweeps, planned: Iterator[Planned]) -> Iterator[Planned]:
    """The same, of which a sweep may take several, as many as memory holds."""
    taken: deque[Planned] = deque()

    def coming() -> Iterator[list[Work]]:
        for each in planned:
            taken.append(each)
            yield each[1]

    sweeps.expect(coming())
    while taken or sweeps.take_one_more():
        yield taken.popleft()


def _forward(
    backend: BlockBackend,
    task: BlockTask,
    works: Sequence[Work],
    clock: Clock,
    threads: Threads,
    sink: ShardSink,
    progress: Progress,
    notes: list[str],
) -> Iterator[Future[float]]:
    """Run the model over a block; yields the pending write of each shard."""

    def first_rows(of: BlockTask, shard: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
        return threads.writer.submit(sink.first_rows, of, shard).result()

    assemblers = [Assembler(each, threads.buffers, first_rows) for each in task.groups]
    waiting: deque[Future[float]] = deque()

    def write(of: BlockTask, shard: Shard, encoding: Encoding) -> float:
        started = time.perf_counter()
        sink.commit(of, shard.number, encoding, shard.absmax_K)
        threads.buffers.give(shard.buffer_SKH)
        return time.perf_counter() - started

    # Open the groups while the first batch computes: later it would delay the only commit of a small job.
    for each in task.groups:
        threads.writer.submit(sink.open, each)
    started, left = time.perf_counter(), task.num_sentences
    for stretch, part in (
        (s, part) for s, work in zip(task.stretches, works, strict=True) for part in backend.run(work)
    ):
        started = clock.add("forward", started)
        of = stretch.groups[part.group]
        for shard in () if of.is_committed else assemblers[part.group].add(part, of.offset):
            while len(waiting) >= WAITING_SHARDS:
                waiting.popleft().result()
            encoding = Encoding(shard.states_SKH, of.shape, threads.encoders)
            pending = threads.writer.submit(write, of, shard, encoding)
            waiting.append(pending)
            yield pending
        started = clock.add("assemble", started)
        if part.note:
            notes.append(part.note)
        # A failed write ends the run now, not at the end of the block.
        for future in waiting:
            if future.done():
                future.result()
        if of.counted and of.block.of is None:
            progress.advance(len(part.sentence_S))
            left -= len(part.sentence_S)
    progress.advance(left)


def _finish(
    task: BlockTask, works: Sequence[Work], clock: Clock, writes: list[Future[float]], notes: list[str], swept: int
) -> BlockDone:
    """Wait for the writes of a block and sum up what it cost."""
    clock.seconds["write"] = sum(w.result() for w in writes)
    return BlockDone(
        model=task.model.model.group,
        dataset=task.dataset,
        block=task.block.index,
        num_sentences=task.num_sentences,
        num_nodes=sum(work.num_nodes for work in works),
        num_padding=sum(work.num_padding for work in works),
        num_tokens=task.num_tokens,
        committed_bytes=sum(len(e.block) * e.shape.sentence_bytes for e in task.groups if not e.is_committed),
        seconds=dict(clock.seconds),
        notes=tuple(notes),
        sweeps=swept,
    )
