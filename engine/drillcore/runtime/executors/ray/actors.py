"""The actors of a run: one for each share of the cluster. Ray places them, and starts them again when they die."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError

from drillcore.errors import JobError, RunError
from drillcore.job.extract import Extract
from drillcore.runtime.executors.ray.actor import CONCURRENCY, Facts, RayWorker
from drillcore.runtime.executors.ray.cluster import Size
from drillcore.runtime.executors.scheduler import Piece
from drillcore.system.versions import versions

SAY_WAITING_SECONDS = 30.0
PROGRESS_SECONDS, PROGRESS_SECONDS_A_WORKER = 0.5, 0.02


@dataclass(eq=False)
class Call:
    """A call under way.

    pieces: what it has to do: a model to load, a block, or the blocks of a sweep that are not done yet. counted:
    sentences of those reported so far. had_company: the worker ran another block meanwhile. sweeps: whether it takes
    as many blocks as a sweep has room for; may_grow: and may ask for another one.
    """

    worker: Remote
    pieces: list[Piece]
    started: float
    counted: int = 0
    had_company: bool = False
    sweeps: bool = False
    may_grow: bool = False

    @property
    def loads(self) -> bool:
        """Whether it loads a model."""
        return any(piece.block is None for piece in self.pieces)

    @property
    def fills_worker(self) -> bool:
        """Whether its worker takes nothing else meanwhile."""
        return self.sweeps or self.loads or any(piece.most == 1 for piece in self.pieces)


@dataclass(eq=False)
class Remote:
    """An actor as the run sees it.

    facts: None until it answers, and from its death until it is back. streams: whether it streams the weights of its
    model. names, loads: what it called itself after each start, models it loaded. num_sweeps: readings of streamed
    weights. load_seconds, busy_seconds, forward_seconds: spent loading models, having blocks, and waiting for states.
    """

    actor: Any
    facts: Facts | None = None
    streams: bool = False
    calls: dict[Any, Call] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    num_blocks: int = 0
    num_sentences: int = 0
    num_tokens: int = 0
    num_sweeps: int = 0
    load_seconds: float = 0.0
    forward_seconds: float = 0.0
    busy_seconds: float = 0.0
    busy_since: float = 0.0

    @property
    def name(self) -> str:
        """What it called itself after its last start."""
        return self.names[-1] if self.names else "that never started"

    def begin(self, ref: Any, call: Call) -> None:
        """Note a call that was sent to it."""
        if not self.calls:
            self.busy_since = call.started
        for other in self.calls.values():
            other.had_company = True
            call.had_company = True
        self.calls[ref] = call

    def end(self, ref: Any) -> Call:
        """Note that a call is over."""
        call = self.calls.pop(ref)
        now = time.perf_counter()
        if call.loads:
            self.load_seconds += now - call.started
        elif not self.calls:
            self.busy_seconds += now - self.busy_since
        return call

    def describe(self) -> dict[str, Any]:
        """For the manifest; rates over the time in which it had blocks."""
        rate = 1 / max(self.busy_seconds, 1e-9)
        return {
            "worker": self.name,
            "starts": len(self.names),
            "loads": self.loads,
            "blocks": self.num_blocks,
            "sentences": self.num_sentences,
            **({"sweeps": self.num_sweeps} if self.num_sweeps else {}),
            "load_seconds": round(self.load_seconds, 3),
            "busy_seconds": round(self.busy_seconds, 3),
            "forward_seconds": round(self.forward_seconds, 3),
            "sentences_per_second": round(self.num_sentences * rate, 2),
            "tokens_per_second": round(self.num_tokens * rate, 2),
        }


class Actors:
    """All actors of a run; `workers` are those in use, `asked` the questions that await an answer."""

    def __init__(self, size: Size, extract: Extract, say: Callable[[str], None]) -> None:
        self.size, self._say = size, say
        options: dict[str, Any] = {"num_cpus": size.cpus, "num_gpus": size.gpus, "max_concurrency": CONCURRENCY}
        if size.accelerator is not None:
            options["accelerator_type"] = size.accelerator
        # Restarts are unlimited: each of them costs a block one of its tries.
        actor = ray.remote(RayWorker).options(max_restarts=-1, max_task_retries=0, **options)
        # The process that runs the job hears from every worker, so many workers report less often.
        seconds = max(PROGRESS_SECONDS, size.num_workers * PROGRESS_SECONDS_A_WORKER)
        self.workers = [Remote(actor.remote(extract, seconds, size)) for _ in range(size.num_workers)]
        self.all = tuple(self.workers)
        self.asked: dict[Any, Remote] = {}
        self._reference: Facts | None = None
        self._last_error = ""
        for worker in self.workers:
            self.ask(worker)

    def ask(self, worker: Remote) -> None:
        """Ask an actor who it is; it answers once Ray has placed it."""
        worker.facts = None
        self.asked[worker.actor.facts.options(max_task_retries=-1).remote()] = worker

    def first(self) -> Facts:
        """Facts of the first actor that answers; raises RunError where none can, JobError for other versions."""
        while self._reference is None:
            ready, _ = ray.wait([*self.asked], timeout=SAY_WAITING_SECONDS, fetch_local=False)
            for ref in ready:
                self.take_answer(ref)
            if not ready:
                self._say(f"waiting for Ray to place a worker of {self.size}")
        return self._reference

    def take_answer(self, ref: Any) -> None:
        """Take an answer; a worker that differs from the first one is not used, since its bits would differ."""
        worker = self.asked.pop(ref)
        try:
            facts: Facts = ray.get(ref)
        except RayError as error:
            self._last_error = str(error).strip()
            self._leave_out(worker)
            return
        worker.names.append(facts.name)
        if self._reference is None:
            _check_versions(facts)
            self._reference = facts
        reference = self._reference
        if facts.hardware.device != reference.hardware.device or facts.versions != reference.versions:
            self._say(
                f"worker {facts.name} is not used: it has {facts.hardware.device} and {facts.versions}, the first one "
                f"{reference.hardware.device} and {reference.versions}, so that its bits would differ"
            )
            ray.kill(worker.actor)
            self._leave_out(worker)
            return
        worker.facts = facts

    def _leave_out(self, worker: Remote) -> None:
        self.workers.remove(worker)
        if not self.workers:
            raise RunError(
                f"no Ray worker can be started: {self._last_error}",
                hint="Look at `ray status`; drillcore must be installed on every machine of the cluster.",
            )

    def close(self) -> None:
        """End all actors."""
        for worker in self.workers:
            ray.kill(worker.actor)
        self.workers, self.asked = [], {}


def _check_versions(facts: Facts) -> None:
    here = versions()
    other = {k: v for k, v in facts.versions.items() if k in here and here[k] != v}
    if other:
        raise JobError(
            f"worker {facts.name} has {', '.join(f'{k} {v}' for k, v in other.items())}, "
            f"this machine {', '.join(f'{k} {here[k]}' for k in other)}",
            hint="Install the same versions on every machine of the cluster: they decide bits.",
        )
