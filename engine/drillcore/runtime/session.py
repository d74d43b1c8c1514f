"""What the runs of one program share, so that a model is found, loaded and checked once for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from drillcore.backends.source import ModelSource, locate
from drillcore.job.fields import LoadedJob
from drillcore.job.model import Model
from drillcore.runtime.executors import EXECUTORS
from drillcore.runtime.executors.base import Executor
from drillcore.system.progress import ProgressListener, Silent
from drillcore.system.registry import load_by_name


class Session:
    """An executor that keeps its model, for jobs that differ in their datasets alone.

    is_checked: whether a run has ended well, so that the weights' files need not be examined again.
    """

    def __init__(self) -> None:
        self.is_checked = False
        self._executor: Executor | None = None
        self._listener: ProgressListener = Silent()
        self._sources: dict[str, ModelSource] = {}

    def executor(self, loaded: LoadedJob, listener: ProgressListener) -> Executor:
        """The executor of all runs, opened by the first one. listener: of this run, to which its lines go."""
        self._listener, job = listener, loaded.job
        if self._executor is None:
            kind = load_by_name("executor", job.run.executor, EXECUTORS)
            self._executor = executor = cast(
                Executor, kind(job.run, job.extract, lambda line: self._listener.say(line))
            )
            return executor
        return self._executor

    def find(self, model: Model, base: Path) -> ModelSource:
        """A model, found once."""
        named = model.model_dump_json()
        if named not in self._sources:
            self._sources[named] = locate(model, base)
        return self._sources[named]

    def close(self) -> None:
        """Unload the model."""
        executor, self._executor = self._executor, None
        self._sources.clear()
        if executor is not None:
            executor.close()
