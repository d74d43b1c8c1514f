"""The local executor: this process and one device, one piece of work after the other."""

from __future__ import annotations

import os
import platform
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from drillcore.backends.device import Hardware, host_hardware
from drillcore.errors import ModelError, NumericsError, RunError, SelfCheckError
from drillcore.job.fields import Extract, Run
from drillcore.runtime.work.tasks import BlockFailed, BlockTask, ModelFailed, ModelPlan, Outcome
from drillcore.runtime.work.worker import Worker
from drillcore.system.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class Counted:
    """Progress that knows what it counted for blocks that are not done."""

    progress: Progress
    open: int = 0

    def advance(self, count: int) -> None:
        """Pass on, and remember."""
        self.open += count
        self.progress.advance(count)

    def take_back(self) -> None:
        """What was counted is to be computed again."""
        self.progress.advance(-self.open)
        self.open = 0


def _at(position: int, function: Callable[[Item], Result], item: Item) -> tuple[int, Result]:
    return position, function(item)


def _free_memory() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


class LocalExecutor:
    """Everything on this machine."""

    def __init__(self, settings: Run, extract: Extract, say: Callable[[str], None]) -> None:
        self._worker, self._extract, self._say = Worker(), extract, say

    def describe(self) -> dict[str, Any]:
        """Host and cores."""
        return {"executor": "local", "host": platform.node(), "cores": len(os.sched_getaffinity(0))}

    def hardware(self) -> Hardware:
        """This host's."""
        return host_hardware(self._extract)

    def sweep(self, models: Sequence[ModelPlan], progress: Progress) -> Iterator[Outcome]:
        """One model after the other, in the job's order; an error that is no block's own ends the run."""
        for plan in models:
            self._say(f"{plan.name}: loading and checking the model")
            try:
                prepared = self._worker.prepare(plan.task)
            except (ModelError, SelfCheckError) as error:
                yield ModelFailed(plan.name, error)
                continue
            yield from self._blocks(plan.blocks(prepared), Counted(progress))

    def _blocks(self, tasks: Sequence[BlockTask], counted: Counted) -> Iterator[Outcome]:
        left = deque(tasks)
        while left:
            try:
                for done in self._worker.extract(tuple(left), Progress(counted.advance)):
                    left.popleft()
                    counted.open -= done.num_sentences
                    yield done
            except NumericsError:
                # Blocks overlap: which one it was shows when the first that is not done runs alone.
                counted.take_back()
                yield from self._alone(left.popleft(), counted)

    def _alone(self, task: BlockTask, counted: Counted) -> Iterator[Outcome]:
        try:
            yield from self._worker.extract([task], Progress(counted.advance))
            counted.open = 0
        except NumericsError as error:
            counted.take_back()
            yield BlockFailed.of(task, str(error), error.hint)

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], gpus: int = 0, memory: int = 0
    ) -> Iterator[tuple[int, Result]]:
        """Call it here, one item after the other; long ones in processes of one thread, as many as memory holds."""
        processes = min(len(os.sched_getaffinity(0)), len(items), _free_memory() // memory) if memory else 1
        if gpus or processes < 2:
            for position, item in enumerate(items):
                yield position, function(item)
            return
        from joblib import Parallel, delayed, parallel_config
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        try:
            with parallel_config("loky", inner_max_num_threads=1):
                pool = Parallel(processes, return_as="generator_unordered", pre_dispatch=processes, batch_size=1)
                yield from pool(delayed(_at)(position, function, item) for position, item in enumerate(items))
        except TerminatedWorkerError as error:
            raise RunError(
                "a process that worked on a layer was ended from outside",
                hint="Was there too little memory? Run the same command again to go on.",
            ) from error

    def close(self) -> None:
        """Unload the model."""
        self._worker.close()
