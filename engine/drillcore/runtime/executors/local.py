"""The local executor: this process and one device, one piece of work after the other."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Self, TypeVar

from drillcore.backends.device import Hardware, choose_device, host_hardware
from drillcore.errors import ModelError, RunError, SelfCheckError
from drillcore.job.extract import Extract
from drillcore.job.stages import Run
from drillcore.runtime.work.each import CountedProgress, each_block
from drillcore.runtime.work.tasks import BlockTask, ModelFailed, ModelReady, Outcome, SweepModel
from drillcore.runtime.work.worker import Worker
from drillcore.system.machine import free_memory_bytes, num_cores
from drillcore.system.progress import Progress, with_lines

Item = TypeVar("Item")
Result = TypeVar("Result")


def _at(position: int, function: Callable[[Item], Result], item: Item) -> tuple[int, Result, list[str]]:
    return position, *with_lines(function, item)


class LocalSweep:
    """Models one after the other on this process's worker; an error that is not a block's own ends the run."""

    def __init__(
        self, worker: Worker, models: Sequence[SweepModel], progress: Progress, say: Callable[[str], None]
    ) -> None:
        self._worker = worker
        self._models = models
        self._say = say
        self._progress, self._tasks = CountedProgress(progress), tuple[BlockTask, ...]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    def extract(self, model: str, tasks: Sequence[BlockTask]) -> None:
        """Take the pending blocks of the model that is ready."""
        self._tasks = tuple(tasks)

    def __iter__(self) -> Iterator[Outcome]:
        """Load a model, wait for its blocks, run them."""
        for plan in self._models:
            if not self._worker.has(plan.task):
                self._say(f"{plan.name}: loading and checking the model")
            try:
                prepared = self._worker.prepare(plan.task)
            except (ModelError, SelfCheckError) as error:
                yield ModelFailed(plan.name, error)
                continue
            self._tasks = ()
            yield ModelReady(plan.name, prepared)
            yield from each_block(self._worker.extract, self._tasks, self._progress)


class LocalExecutor:
    """Everything on this machine."""

    def __init__(self, settings: Run, extract: Extract, say: Callable[[str], None]) -> None:
        self._worker = Worker()
        self._extract = extract
        self._say = say

    def describe(self) -> dict[str, Any]:
        """Host and cores."""
        return {"executor": "local", "host": platform.node(), "cores": num_cores()}

    def check(self) -> None:
        """Raise JobError where this machine does not have the job's device."""
        choose_device(self._extract)

    def hardware(self) -> Hardware:
        """This host's."""
        return host_hardware(self._extract)

    def sweep(self, models: Sequence[SweepModel], progress: Progress) -> LocalSweep:
        """One model after the other, in the job's order."""
        return LocalSweep(self._worker, models, progress, self._say)

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], gpus: int = 0, memory: int = 0
    ) -> Iterator[tuple[int, Result]]:
        """Call it here, one item after the other; long ones in processes of one thread, as many as memory holds."""
        processes = min(num_cores(), len(items), free_memory_bytes() // memory) if memory else 1
        if gpus or processes < 2:
            for position, item in enumerate(items):
                yield position, function(item)
            return
        from joblib import Parallel, delayed, parallel_config

        try:
            with parallel_config("loky", inner_max_num_threads=1):
                pool = Parallel(processes, return_as="generator_unordered", pre_dispatch=processes, batch_size=1)
                done = pool(delayed(_at)(position, function, item) for position, item in enumerate(items))
                for position, result, lines in done:
                    for line in lines:
                        self._say(line)
                    yield position, result
        except BrokenProcessPool as error:
            # With a cause it is something that could not be pickled, and no process was lost.
            if error.__cause__ is not None:
                raise
            raise RunError(
                "a process that worked on a layer was ended from outside",
                hint="It may have run out of memory. Run the same command again to continue.",
            ) from error

    def close(self) -> None:
        """Unload the model."""
        self._worker.close()
