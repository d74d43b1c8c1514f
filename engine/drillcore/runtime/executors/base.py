"""What every executor promises: it decides where work runs, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, Self, TypeVar

from drillcore.backends.device import Hardware
from drillcore.job.extract import Extract
from drillcore.job.stages import Run
from drillcore.runtime.work.tasks import BlockTask, Outcome, SweepModel
from drillcore.system.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")


class Sweep(Protocol):
    """Models and their blocks under way; workers are given back when its context ends.

    with executor.sweep(models, progress) as sweep:
        for outcome in sweep:
            if isinstance(outcome, ModelReady):
                sweep.extract(outcome.model, pending_blocks)
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def __iter__(self) -> Iterator[Outcome]:
        """Yield what happens, models and blocks in any order and several at a time.

        A model that cannot be prepared and a block whose states cannot be stored are outcomes, and everything else
        goes on. Raises what is wrong with the job or the place itself (JobError, CommitError).
        """

    def extract(self, model: str, tasks: Sequence[BlockTask]) -> None:
        """Hand in the pending blocks of a model that is ready, before the next outcome is asked for."""


class Executor(Protocol):
    """Runs pieces of work somewhere; starts nothing before it is asked to. `say` takes lines for the user."""

    def __init__(self, settings: Run, extract: Extract, say: Callable[[str], None]) -> None: ...

    def describe(self) -> dict[str, Any]:
        """What it runs on and what each worker has done so far, for the manifest."""

    def check(self) -> None:
        """Raise JobError where the job's device, threads or address are not to be had; loads and writes nothing."""

    def hardware(self) -> Hardware:
        """What a worker computes with."""

    def sweep(self, models: Sequence[SweepModel], progress: Progress) -> Sweep:
        """Prepare the models and run their blocks; nothing starts before the sweep is iterated over."""

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], gpus: int = 0, memory: int = 0
    ) -> Iterator[tuple[int, Result]]:
        """Call a module-level function on each item; yields (position, result) in any order, raises what it raises.

        gpus: that a call needs to itself. memory: bytes that a call needs, where it is long enough to be worth a
        process of its own.
        """

    def close(self) -> None:
        """End every process started."""
