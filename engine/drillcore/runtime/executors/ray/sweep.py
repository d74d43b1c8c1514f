"""A sweep on Ray: hands pieces to actors in the sweep's order, and takes what comes back.

Ray places the actors, starts them again when they die, and carries the calls. A block whose call came to nothing goes
back to the queue, at most `run.retries` times, because an actor call that Ray itself repeats stays with its actor: when
a whole node is gone, Ray's repeats are used up before the cluster knows, while other workers could run the block.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from drillcore.backends.base import Prepared
from drillcore.errors import CommitError, DrillcoreError, InputError, ModelError, RunError, SelfCheckError
from drillcore.runtime.executors.ray.actors import SAY_WAITING_SECONDS, Call, Crew, Remote
from drillcore.runtime.executors.scheduler import Order, Piece
from drillcore.runtime.work.tasks import BlockDone, BlockFailed, ModelFailed, ModelPlan, ModelTask, Outcome
from drillcore.system.progress import Progress


class Sweep:
    """One run of `models` by a crew."""

    def __init__(
        self, crew: Crew, models: Sequence[ModelPlan], retries: int, progress: Progress, say: Callable[[str], None]
    ) -> None:
        self._crew, self._models, self._retries, self._progress, self._say = crew, models, retries, progress, say
        self._tasks = [self._task(m.task) for m in models]
        self._order = Order([m.cost for m in models], [m.num_blocks for m in models], crew.size.num_workers)
        self._calls: dict[Any, Call] = {}

    def _task(self, task: ModelTask) -> ModelTask:
        """A task whose threads are those that every worker has, whatever its host."""
        return replace(task, extract=task.extract.model_copy(update={"threads": self._crew.size.threads}))

    def run(self) -> Iterator[Outcome]:
        """Every outcome as it comes; raises what ends the run."""
        while not self._is_over:
            self._feed()
            for ref in self._ready():
                if ref in self._calls:
                    yield from self._came(ref)
                elif ref in self._crew.asked:
                    self._crew.answered(ref)

    def _ready(self) -> list[Any]:
        """All that came since the last time, or one if it has to be waited for."""
        refs = [*self._calls, *self._crew.asked]
        ready, _ = ray.wait(refs, timeout=SAY_WAITING_SECONDS, fetch_local=False)
        if not ready and not self._calls:
            self._say(f"waiting for Ray to place a worker of {self._crew.size}")
        if ready and len(refs) > 1:
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
        return ready

    @property
    def _is_over(self) -> bool:
        return self._order.is_empty and all(c.piece.block is None for c in self._calls.values())

    def _feed(self) -> None:
        """Give every worker what it can take; one that loads a model, or has a block to itself, takes nothing."""
        for worker in self._crew.workers:
            while worker.facts is not None and not any(
                c.piece.block is None or c.piece.alone for c in worker.calls.values()
            ):
                piece = self._order.next(worker, len(worker.calls))
                if piece is None:
                    self._read_ahead(worker)
                    break
                self._start(worker, piece)

    def _read_ahead(self, worker: Remote) -> None:
        following = self._order.ahead(worker) if worker.calls else None
        if following is not None:
            worker.actor.read_ahead.remote(self._tasks[following])

    def _start(self, worker: Remote, piece: Piece) -> None:
        call = Call(worker, piece, time.perf_counter())
        if piece.block is None:
            self._say(f"{self._models[piece.model].name}: loading and checking the model on {worker.name}")
            ref = worker.actor.prepare.remote(self._tasks[piece.model])
        else:
            ref = worker.actor.extract.options(num_returns="streaming").remote(piece.block)
        worker.begin(ref, call)
        self._calls[ref] = call

    def _came(self, ref: Any) -> Iterator[Outcome]:
        """Something came from a call: a count, its outcome, or its end."""
        call = self._calls[ref]
        try:
            item = ray.get(ref if call.piece.block is None else next(ref))
        except (RayError, StopIteration) as error:
            yield from self._failed(ref, error)
            return
        if isinstance(item, int):
            call.counted += item
            self._progress.advance(item)
            return
        self._end(ref)
        if isinstance(item, Prepared):
            self._loaded(call, item)
        else:
            self._count(call, item)
            yield item

    def _end(self, ref: Any) -> Call:
        call = self._calls.pop(ref)
        return call.worker.end(ref)

    def _loaded(self, call: Call, prepared: Prepared) -> None:
        """A model is loaded; its blocks are asked for when it is the first time."""
        model = call.piece.model
        call.worker.loads.append(self._models[model].name)
        self._order.loaded(call.worker, model, time.perf_counter() - call.started)
        if self._order.is_open(model):
            return
        blocks = self._models[model].blocks(prepared)
        if blocks:
            self._tasks[model] = replace(self._tasks[model], numerics=blocks[0].model.numerics)
        pieces = [Piece(model, replace(b, model=self._tasks[model]), len(b.tokens.ids_T)) for b in blocks]
        self._order.open(model, pieces)

    def _count(self, call: Call, item: BlockDone | BlockFailed) -> None:
        worker = call.worker
        if isinstance(item, BlockFailed):
            self._progress.advance(-call.counted)
            return
        self._progress.advance(item.num_sentences - call.counted)
        forward = item.seconds.get("forward", 0.0)
        worker.num_blocks += 1
        worker.num_sentences += item.num_sentences
        worker.num_tokens += item.num_tokens
        worker.forward_seconds += forward
        self._order.done(call.piece, forward)

    def _failed(self, ref: Any, error: BaseException) -> Iterator[Outcome]:
        """A call came to nothing, and all others of its worker with it where the worker is gone."""
        call, worker = self._calls[ref], self._calls[ref].worker
        cause = error.cause if isinstance(error, RayTaskError) else None
        refs = [ref]
        if not isinstance(cause, DrillcoreError):
            refs += [r for r in worker.calls if r != ref]
            if cause is not None:
                # What is not expected may have left the device unusable.
                ray.kill(worker.actor, no_restart=False)
            self._say(f"worker {worker.name} {'fails' if cause else 'is gone'}: {_reason(cause, error)}")
            self._order.lose(worker)
            self._crew.ask(worker)
        for each in refs:
            call = self._end(each)
            self._progress.advance(-call.counted)
            call.piece.tries += 1
            if call.piece.block is None:
                yield from self._load_failed(call, cause, error)
            else:
                yield from self._block_failed(call, cause, error)

    def _block_failed(self, call: Call, cause: BaseException | None, error: BaseException) -> Iterator[Outcome]:
        piece = call.piece
        # One that had company may have been brought down by it: it counts once it has run alone.
        if (piece.tries <= self._retries or call.company) and self._order.put_back(piece):
            piece.alone = True
        elif isinstance(cause, CommitError):
            raise cause
        else:
            hint = cause.hint if isinstance(cause, DrillcoreError) else ""
            yield BlockFailed.of(piece.block, _reason(cause, error), hint)

    def _load_failed(self, call: Call, cause: BaseException | None, error: BaseException) -> Iterator[Outcome]:
        refused = isinstance(cause, ModelError | SelfCheckError)
        if isinstance(cause, InputError) and not refused:
            raise cause
        piece, name = call.piece, self._models[call.piece.model].name
        others = self._order.unload(call.worker, piece.model, again=not refused and piece.tries <= self._retries)
        if others:
            return
        for left in self._order.drop(piece.model):
            yield BlockFailed.of(left.block, f"no worker can load the model: {_reason(cause, error)}")
        if isinstance(cause, ModelError | SelfCheckError):
            yield ModelFailed(name, cause)
        else:
            yield ModelFailed(name, RunError(f"model {name} could not be loaded: {_reason(cause, error)}"))


def _reason(cause: BaseException | None, error: BaseException) -> str:
    """One line that says what went wrong."""
    if isinstance(cause, DrillcoreError):
        return str(cause)
    found = error if cause is None else cause
    lines = [line.strip() for line in str(found).splitlines() if line.strip()]
    first = lines[0] if lines else ""
    return f"its worker was lost ({first})" if cause is None else f"{type(cause).__name__}: {first}"
