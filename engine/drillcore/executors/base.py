"""What every executor promises: it decides where work runs, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from drillcore.backends.base import Prepared
from drillcore.work import BlockDone, BlockFailed, BlockTask, ModelTask, Progress

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(Protocol):
    """Runs pieces of work somewhere."""

    def describe(self) -> dict[str, Any]:
        """What it runs on, for the manifest."""

    def prepare(self, task: ModelTask) -> Prepared:
        """Load a model on some worker and return its numerics and self-check."""

    def extract(self, tasks: Sequence[BlockTask], progress: Progress) -> Iterator[BlockDone | BlockFailed]:
        """Run blocks, in any order; a block that keeps failing is returned as such and the rest goes on."""

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[int, Result]]:
        """Call a module-level function on each item; yields (position, result) in any order."""

    def close(self) -> None:
        """End every process started."""
