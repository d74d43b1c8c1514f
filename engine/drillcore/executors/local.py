"""The local executor: this process and one device for extraction, one process a core for measures and projection."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from drillcore.backends.base import Prepared
from drillcore.job import Run
from drillcore.work import BlockDone, BlockFailed, BlockTask, ModelTask, Progress
from drillcore.worker import Worker

Item = TypeVar("Item")
Result = TypeVar("Result")


class LocalExecutor:
    """Everything on this machine."""

    def __init__(self, settings: Run) -> None:
        self._worker = Worker()

    def describe(self) -> dict[str, Any]:
        """Host and cores."""
        return {"executor": "local", "host": platform.node(), "cores": len(os.sched_getaffinity(0))}

    def prepare(self, task: ModelTask) -> Prepared:
        """Load the model here."""
        return self._worker.prepare(task)

    def extract(self, tasks: Sequence[BlockTask], progress: Progress) -> Iterator[BlockDone | BlockFailed]:
        """Run the blocks one after the other; the first error ends the run."""
        yield from self._worker.extract(tasks, progress)

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[int, Result]]:
        """Call it here, one item after the other."""
        for position, item in enumerate(items):
            yield position, function(item)

    def close(self) -> None:
        """Unload the model."""
        self._worker.close()
