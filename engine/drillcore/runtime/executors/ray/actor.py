"""What runs inside a Ray actor: one worker with its device, and blocks that overlap."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from drillcore.backends import all_versions
from drillcore.backends.base import Backend, Prepared, States, Work
from drillcore.backends.device import Hardware, host_hardware
from drillcore.backends.source import HUB_PATTERNS, locate
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.runtime.executors.ray.cluster import Size
from drillcore.runtime.work.each import CountedProgress, each_block
from drillcore.runtime.work.pipeline import extract_blocks
from drillcore.runtime.work.tasks import BlockDone, BlockFailed, BlockTask, ModelTask, RoomForMore
from drillcore.runtime.work.worker import Worker
from drillcore.system.machine import free_memory_bytes, share_machine
from drillcore.system.progress import Progress, with_lines
from drillcore.system.versions import installed_versions
from drillcore.tokens.sequences import Sequences

PIECE_BYTES = 16 * 2**20
# Calls that an actor takes at a time: two blocks (or a sweep, and another block for it), reading ahead, and a question.
CONCURRENCY = 4


@dataclass(frozen=True)
class Facts:
    """Who a worker is. name: host, and GPU or process. versions: of what decides bytes."""

    name: str
    hardware: Hardware
    versions: dict[str, str]


class Turn:
    """A backend that several blocks share: they are laid out at any time, and run the model one at a time.

    waited_seconds: spent waiting for the others.
    """

    def __init__(self, backend: Backend, lock: threading.Lock) -> None:
        self._backend, self._lock = backend, lock
        self._has_turn, self.waited_seconds = False, 0.0

    def lay_out(self, block: Sequences) -> Work:
        """Make a block ready."""
        return self._backend.lay_out(block)

    def run(self, work: Work) -> Iterator[States]:
        """Wait for the model, then run it."""
        started = time.perf_counter()
        self._lock.acquire()
        self._has_turn, self.waited_seconds = True, time.perf_counter() - started
        yield from self._backend.run(work)
        self.end()

    def end(self) -> None:
        """Let the next block have the model; to be called after an error, does nothing otherwise."""
        if self._has_turn:
            self._has_turn = False
            self._lock.release()


class RayWorker:
    """An actor; Ray gives it its GPUs and starts it again when it dies.

    progress_seconds: how often it says how far a block is. size: of each worker.
    """

    def __init__(self, extract: Extract, progress_seconds: float, size: Size) -> None:
        self._extract, self._size = extract, size
        self._progress_seconds = progress_seconds
        # One sweep at a time reads it, which holds the model meanwhile.
        self._given = SimpleQueue[BlockTask | None]()
        self._worker = Worker()
        self._model, self._turn = threading.Lock(), threading.Lock()

    def facts(self) -> Facts:
        """Who this is."""
        import ray as untyped

        ray: Any = untyped
        visible = ",".join(str(i) for i in ray.get_gpu_ids())
        node = ray.get_runtime_context().get_node_id()
        nodes = ray.nodes()
        gpus = next((n["Resources"].get("GPU", 0) for n in nodes if n["NodeID"] == node), 0)
        share_machine(self._size.beside(nodes, node))
        return Facts(
            ", ".join([platform.node(), *([f"GPU {visible}"] if visible else []), f"process {os.getpid()}"]),
            host_hardware(self._extract, int(gpus)),
            {**installed_versions(["drillcore"]), **all_versions()},
        )

    def prepare(self, task: ModelTask) -> Prepared:
        """Load a model."""
        with self._model:
            prepared, lines = with_lines(self._worker.prepare, task)
            return replace(prepared, notes=(*prepared.notes, *lines))

    def read_ahead(self, task: ModelTask) -> int:
        """Bring the weights of the next model near; returns the bytes read."""
        return read_weights(task.model, Path(task.base))

    def extract(self, task: BlockTask, *, streams: bool) -> Iterator[int | BlockDone | BlockFailed | RoomForMore]:
        """Extract a block; yields sentences done since the last count, from time to time, and then what became of it.

        streams: several blocks, as many as a sweep has room for; each `RoomForMore` asks for another one by `give`.
        Counts come before the outcome of the block that they are of, and are below zero where they are taken back.
        """
        counts, reported, outcomes = [0], 0, SimpleQueue[BlockDone | BlockFailed | RoomForMore | None]()

        def advance(count: int) -> None:
            counts[0] += count

        def run() -> None:
            progress = CountedProgress(Progress(advance))
            try:
                for outcome in self._sweep(task, progress, outcomes.put) if streams else self._alone(task, progress):
                    outcomes.put(outcome)
            finally:
                outcomes.put(None)

        with ThreadPoolExecutor(1, "block") as thread:
            running, is_over = thread.submit(run), False
            while not is_over:
                try:
                    outcome = outcomes.get(timeout=self._progress_seconds)
                    is_over = outcome is None
                except Empty:
                    outcome = None
                if counts[0] != reported:
                    count = counts[0]
                    yield count - reported
                    reported = count
                if outcome is not None:
                    yield outcome
            running.result()

    def give(self, task: BlockTask | None) -> None:
        """Another block for the sweep that asked for it, or none."""
        self._given.put(task)

    def _alone(self, task: BlockTask, progress: CountedProgress) -> Iterator[BlockDone | BlockFailed]:
        """Extract a block in turn with another one."""
        with self._model:
            turn = Turn(self._worker.load(task.model), self._turn)

        def run(tasks: Iterable[BlockTask], told: Progress) -> Iterator[BlockDone]:
            for done in extract_blocks(turn, tasks, self._worker.sink, told):
                done.seconds["forward"] -= turn.waited_seconds
                yield done

        try:
            yield from each_block(run, [task], progress)
        finally:
            turn.end()

    def _sweep(
        self, task: BlockTask, progress: CountedProgress, say: Callable[[RoomForMore], None]
    ) -> Iterator[BlockDone | BlockFailed]:
        """Extract blocks in sweeps that take them as they have room."""

        def tasks() -> Iterator[BlockTask]:
            taken: BlockTask | None = task
            while taken is not None:
                yield taken
                say(RoomForMore())
                taken = self._given.get()

        with self._model:
            yield from each_block(self._worker.extract, tasks(), progress)


def read_weights(model: Model, base: Path) -> int:
    """Read a model's safetensors files once, fetching a hub model first; returns the bytes read.

    Reads nothing where they would take more than half of the memory that is free: it would be dropped again.
    """
    if model.random_weights:
        return 0
    source = locate(model, base)
    folder = Path(source.location)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(source.location, revision=source.revision, allow_patterns=HUB_PATTERNS))
    files = sorted(folder.glob("*.safetensors"))
    if sum(f.stat().st_size for f in files) > free_memory_bytes() // 2:
        return 0
    return sum(_read(f) for f in files)


def _read(path: Path) -> int:
    piece, count = bytearray(PIECE_BYTES), 0
    with path.open("rb", buffering=0) as stream:
        while size := stream.readinto(piece):
            count += size
    return count
