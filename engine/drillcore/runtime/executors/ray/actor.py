"""What runs inside a Ray actor: one worker with its device, and blocks that overlap."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from drillcore.backends import all_versions
from drillcore.backends.base import Backend, Prepared, States, Work
from drillcore.backends.device import Hardware, host_hardware
from drillcore.backends.source import HUB_PATTERNS, locate
from drillcore.errors import NumericsError
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.runtime.work.pipeline import extract_blocks
from drillcore.runtime.work.tasks import BlockDone, BlockFailed, BlockTask, ModelTask
from drillcore.runtime.work.worker import Worker
from drillcore.system.machine import free_memory_bytes
from drillcore.system.progress import Progress, with_lines
from drillcore.system.versions import installed_versions
from drillcore.tokens.sequences import Sequences

PIECE_BYTES = 16 * 2**20
# Calls that an actor takes at a time: two blocks, reading ahead, and a question.
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

    progress_seconds: how often it says how far a block is.
    """

    def __init__(self, extract: Extract, progress_seconds: float) -> None:
        self._extract = extract
        self._progress_seconds = progress_seconds
        self._worker = Worker()
        self._model, self._turn = threading.Lock(), threading.Lock()

    def facts(self) -> Facts:
        """Who this is."""
        import ray as untyped

        ray: Any = untyped
        visible = ",".join(str(i) for i in ray.get_gpu_ids())
        node = ray.get_runtime_context().get_node_id()
        gpus = next((n["Resources"].get("GPU", 0) for n in ray.nodes() if n["NodeID"] == node), 0)
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

    def extract(self, task: BlockTask) -> Iterator[int | BlockDone | BlockFailed]:
        """Extract one block; yields sentences done since the last count, from time to time, and then the outcome."""
        counts = [0]

        def advance(count: int) -> None:
            counts[0] += count

        reported = 0
        with ThreadPoolExecutor(1, "block") as thread:
            outcome = thread.submit(self._extract_block, task, Progress(advance))
            while not outcome.done():
                wait([outcome], self._progress_seconds)
                if counts[0] > reported:
                    yield counts[0] - reported
                    reported = counts[0]
            yield outcome.result()

    def _extract_block(self, task: BlockTask, progress: Progress) -> BlockDone | BlockFailed:
        with self._model:
            turn = Turn(self._worker.load(task.model), self._turn)
        try:
            (done,) = extract_blocks(turn, [task], self._worker.sink, progress)
        except NumericsError as error:
            # A retry would fail in the same way.
            return BlockFailed.of(task, str(error), error.hint)
        finally:
            turn.end()
        done.seconds["forward"] -= turn.waited_seconds
        return done


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
