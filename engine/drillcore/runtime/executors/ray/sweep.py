"""A sweep on Ray: hands pieces of work to actors in the scheduler's order, and takes what comes back.

Ray places the actors, restarts them when they die, and carries the calls. A block whose call was lost goes back to the
queue, at most `run.retries` times. Ray's own retries would stay with their actor: when a whole node is gone they are
used up before the cluster knows, while other workers could run the block.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Self

import ray
from ray.exceptions import RayError, RayTaskError

from drillcore.backends.base import Prepared
from drillcore.errors import (
    CommitError,
    DrillcoreError,
    InputError,
    ModelError,
    RunError,
    SelfCheckError,
    WeightsChangedError,
)
from drillcore.runtime.executors.ray.actors import SAY_WAITING_SECONDS, Actors, Call, Remote
from drillcore.runtime.executors.scheduler import Piece, Scheduler
from drillcore.runtime.work.tasks import (
    NONE,
    BlockDone,
    BlockFailed,
    BlockTask,
    ModelFailed,
    ModelReady,
    ModelTask,
    Outcome,
    RoomForMore,
    SweepModel,
)
from drillcore.store.places.hold import LATELY_SECONDS
from drillcore.system.progress import Progress


class RaySweep:
    """One run of `models` on all actors; `on_exit` gets them back, and whether anything failed for good."""

    def __init__(
        self,
        actors: Actors,
        models: Sequence[SweepModel],
        retries: int,
        progress: Progress,
        say: Callable[[str], None],
        on_exit: Callable[[Actors, bool], None],
    ) -> None:
        self._actors = actors
        self._models = models
        self._retries = retries
        self._progress = progress
        self._say = say
        self._on_exit = on_exit
        self._tasks = [self._same_threads(m.task) for m in models]
        self._position = {m.name: i for i, m in enumerate(models)}
        self._scheduler = Scheduler([m.cost for m in models], [m.num_blocks for m in models], actors.size.num_workers)
        self._calls: dict[Any, Call] = {}
        self._has_failures = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._on_exit(self._actors, self._has_failures)

    def _same_threads(self, task: ModelTask) -> ModelTask:
        """The task with the number of threads that every worker has, whatever its host."""
        return replace(task, extract=task.extract.model_copy(update={"threads": self._actors.size.threads}))

    def __iter__(self) -> Iterator[Outcome]:
        """Every outcome as it comes; raises what ends the run."""
        while not self._is_over:
            self._feed()
            for ref in self._ready():
                if ref in self._calls:
                    for outcome in self._receive(ref):
                        self._has_failures |= isinstance(outcome, BlockFailed | ModelFailed)
                        yield outcome
                elif ref in self._actors.asked:
                    self._actors.take_answer(ref)

    def extract(self, model: str, tasks: Sequence[BlockTask]) -> None:
        """Queue the pending blocks of a model that is ready."""
        position = self._position[model]
        if tasks:
            self._tasks[position] = replace(
                self._tasks[position], numerics=tasks[0].model.numerics, witness=NONE, witness_places=None
            )
        task = self._tasks[position]
        pieces = [Piece(position, replace(t, model=task), t.num_tokens) for t in tasks]
        self._scheduler.open(position, pieces)

    def _ready(self) -> list[Any]:
        """All references that are ready now; waits for the first one."""
        refs = [*self._calls, *self._actors.asked]
        ready, _ = ray.wait(refs, timeout=SAY_WAITING_SECONDS, fetch_local=False)
        if not ready and not self._calls:
            self._say(f"waiting for Ray to place a worker of {self._actors.size}")
        if ready and len(refs) > 1:
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
        return ready

    @property
    def _is_over(self) -> bool:
        return self._scheduler.is_empty and all(call.loads for call in self._calls.values())

    def _feed(self) -> None:
        """Give every worker what it can take: nothing where it loads a model, sweeps, or has a block to itself."""
        for worker in self._actors.workers:
            while worker.facts is not None and not any(call.fills_worker for call in worker.calls.values()):
                piece = self._scheduler.next(worker, len(worker.calls))
                if piece is None:
                    self._read_ahead(worker)
                    break
                self._start(worker, piece)

    def _read_ahead(self, worker: Remote) -> None:
        following = self._scheduler.ahead(worker) if worker.calls else None
        if following is not None:
            worker.actor.read_ahead.remote(self._tasks[following])

    def _start(self, worker: Remote, piece: Piece) -> None:
        sweeps = piece.block is not None and worker.streams
        call = Call(worker, [piece], time.perf_counter(), sweeps=sweeps, may_grow=sweeps)
        if piece.block is None:
            self._say(f"{self._models[piece.model].name}: loading and checking the model on {worker.name}")
            ref = worker.actor.prepare.remote(self._tasks[piece.model])
        else:
            ref = worker.actor.extract.options(num_returns="streaming").remote(piece.block, streams=sweeps)
        worker.begin(ref, call)
        self._calls[ref] = call

    def _receive(self, ref: Any) -> Iterator[Outcome]:
        """Take what a call sent: a count of sentences, a question, what became of a block or a model, or its end."""
        call = self._calls[ref]
        try:
            item = ray.get(ref if call.loads else next(ref))
        except (RayError, StopIteration) as error:
            yield from self._lost(ref, error)
            return
        if isinstance(item, int):
            call.counted += item
            self._progress.advance(item)
        elif isinstance(item, RoomForMore):
            self._give_more(call)
            self._end_if_done(ref)
        elif isinstance(item, Prepared):
            self._end(ref)
            yield from self._loaded(call, item)
        else:
            self._count(call, item)
            self._end_if_done(ref)
            yield item

    def _end(self, ref: Any) -> Call:
        call = self._calls.pop(ref)
        return call.worker.end(ref)

    def _end_if_done(self, ref: Any) -> None:
        call = self._calls[ref]
        if not call.pieces and not call.may_grow:
            self._end(ref)

    def _give_more(self, call: Call) -> None:
        """Give a sweep another block, or tell it that there is none for it."""
        model = self._scheduler.model_of(call.worker)
        held = [p for c in self._calls.values() for p in c.pieces if p.model == model and p.block is not None]
        piece = self._scheduler.more(call.worker, call.pieces, sum(p.tokens for p in held))
        if piece is None:
            call.may_grow = False
        else:
            call.pieces.append(piece)
        call.worker.actor.give.remote(None if piece is None else piece.block)

    def _loaded(self, call: Call, prepared: Prepared) -> Iterator[Outcome]:
        """A worker loaded a model; the first time its blocks are wanted."""
        model = call.pieces[0].model
        name = self._models[model].name
        call.worker.loads.append(name)
        call.worker.streams = prepared.streams
        self._scheduler.loaded(call.worker, model, time.perf_counter() - call.started)
        if not self._scheduler.is_open(model):
            yield ModelReady(name, prepared)

    def _count(self, call: Call, item: BlockDone | BlockFailed) -> None:
        """Take a block off its call: they come in the order in which they were given."""
        worker, piece = call.worker, call.pieces.pop(0)
        if isinstance(item, BlockFailed):
            return
        call.counted -= item.num_sentences
        forward_seconds = item.seconds.get("forward", 0.0)
        worker.num_blocks += 1
        worker.num_sentences += item.num_sentences
        worker.num_tokens += item.num_tokens
        worker.num_sweeps += item.sweeps
        worker.forward_seconds += forward_seconds
        self._scheduler.done(piece, forward_seconds)

    def _lost(self, ref: Any, error: BaseException) -> Iterator[Outcome]:
        """A call failed or was lost; where its worker is gone, all other calls of that worker are lost too."""
        call, worker = self._calls[ref], self._calls[ref].worker
        cause = error.cause if isinstance(error, RayTaskError) else None
        if isinstance(cause, WeightsChangedError):
            raise cause  # whichever worker reads them, and whichever blocks it has
        refs = [ref]
        if not isinstance(cause, DrillcoreError):
            refs += [r for r in worker.calls if r != ref]
            if cause is not None:
                # An unexpected error may have left the device unusable.
                ray.kill(worker.actor, no_restart=False)
            self._say(f"worker {worker.name} {'failed' if cause else 'is gone'}: {_reason(cause, error)}")
            self._scheduler.lose(worker)
            self._actors.ask(worker)
        lost = [self._end(each) for each in refs]
        together = sum(len(call.pieces) for call in lost)
        for call in lost:
            self._progress.advance(-call.counted)
            # A sweep that raised one of our errors would raise it whichever blocks it has.
            company = call.had_company or (len(call.pieces) > 1 and not isinstance(cause, DrillcoreError))
            # The last one first, so that they are queued in their order.
            for piece in reversed(call.pieces):
                piece.tries += 1
                if piece.block is None:
                    yield from self._load_failed(call.worker, piece, cause, error)
                    continue
                piece.most = max(1, together // 2)
                yield from self._block_failed(piece, company, cause, error)

    def _block_failed(
        self, piece: Piece, company: bool, cause: BaseException | None, error: BaseException
    ) -> Iterator[Outcome]:
        if piece.block.hold is not None:
            piece.block.hold.check(LATELY_SECONDS)  # nobody can commit for a run that lost its store
        # A block that shared its worker may have failed because of another one: it is retried with half as many, in
        # the end alone, before the failure counts.
        if (piece.tries <= self._retries or company) and self._scheduler.put_back(piece):
            return
        if isinstance(cause, CommitError):
            raise cause
        hint = cause.hint if isinstance(cause, DrillcoreError) else ""
        yield BlockFailed.of(piece.block, _reason(cause, error), hint)

    def _load_failed(
        self, worker: Remote, piece: Piece, cause: BaseException | None, error: BaseException
    ) -> Iterator[Outcome]:
        refused = isinstance(cause, ModelError | SelfCheckError)
        if isinstance(cause, InputError) and not refused:
            raise cause
        name = self._models[piece.model].name
        others = self._scheduler.unload(worker, piece.model, again=not refused and piece.tries <= self._retries)
        if others:
            return
        for queued in self._scheduler.drop(piece.model):
            yield BlockFailed.of(queued.block, f"no worker can load the model: {_reason(cause, error)}")
        if isinstance(cause, ModelError | SelfCheckError):
            yield ModelFailed(name, cause)
        else:
            yield ModelFailed(name, RunError(f"model {name} could not be loaded: {_reason(cause, error)}"))


def _reason(cause: BaseException | None, error: BaseException) -> str:
    """One line that says what went wrong."""
    if isinstance(cause, DrillcoreError):
        return str(cause)
    lines = [line.strip() for line in str(error if cause is None else cause).splitlines() if line.strip()]
    first = lines[0] if lines else ""
    return f"its worker was lost ({first})" if cause is None else f"{type(cause).__name__}: {first}"
