"""What every executor promises: it decides where work runs, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from drillcore.backends.device import Hardware
from drillcore.job.fields import Extract, Run
from drillcore.runtime.work.tasks import ModelPlan, Outcome
from drillcore.system.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(Protocol):
    """Runs pieces of work somewhere; starts nothing before it is asked to. `say` takes lines for the user."""

    def __init__(self, settings: Run, extract: Extract, say: Callable[[str], None]) -> None: ...

    def describe(self) -> dict[str, Any]:
        """What it runs on and what each worker has done so far, for the manifest."""

    def hardware(self) -> Hardware:
        """What a worker computes with."""

    def sweep(self, models: Sequence[ModelPlan], progress: Progress) -> Iterator[Outcome]:
        """Prepare every model, ask for its blocks, and run them, in any order and several at a time.

        A model that cannot be prepared and a block whose states cannot be stored come back as such, and everything
        else goes on. Raises what is wrong with the job or the place itself (JobError, CommitError).
        """

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], gpus: int = 0, memory: int = 0
    ) -> Iterator[tuple[int, Result]]:
        """Call a module-level function on each item; yields (position, result) in any order, raises what it raises.

        gpus: that a call needs to itself. memory: bytes that a call needs, where it is long enough to be worth a
        process of its own.
        """

    def close(self) -> None:
        """End every process started."""
