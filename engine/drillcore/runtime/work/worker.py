"""A worker: one process with one model loaded at a time, whichever executor it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, cast

from drillcore.backends import load_backend
from drillcore.backends.alone import Alone
from drillcore.backends.base import Audited, Backend, Prepared
from drillcore.backends.source import locate
from drillcore.runtime.work.pipeline import extract_blocks, sweeps_in
from drillcore.runtime.work.sink import ShardSink
from drillcore.runtime.work.tasks import BlockDone, BlockTask, ModelTask
from drillcore.system.progress import Progress


def open_backend(task: ModelTask) -> Backend:
    """Load a task's model; it is not prepared yet. What was begun with streamed weights, or without, goes on so."""
    extract = task.extract
    if extract.weights == "auto" and task.numerics is not None:
        extract = extract.model_copy(update={"weights": task.numerics.get("weights", "resident")})
    return load_backend(task.backend, locate(task.model, Path(task.base)), extract, task.layers)


class Worker:
    """Loads models as tasks ask for them and keeps the last one. sink: where finished shards go."""

    def __init__(self) -> None:
        self._backend: Backend | None = None
        self._key: tuple[object, ...] | None = None
        self._prepared: Prepared | None = None
        self.sink = ShardSink()

    def prepare(self, task: ModelTask) -> Prepared:
        """Load and check the task's model unless it is loaded already; the task's numerics, if any, are used."""
        if self._key == task.key and self._prepared is not None and _agree(task.numerics, self._prepared.numerics):
            if len(task.witness):
                # Another run with the same model has sentences of its own.
                self._prepared = replace(self._prepared, alone=self._alone(task), is_reused=True)
            return self._prepared
        if self._key != task.key or self._backend is None or self._streams_otherwise(task):
            self.close()
            self._backend, self._key = open_backend(task), task.key
        try:
            alone, streams = self._alone(task), sweeps_in(self._backend) is not None
            self._prepared = replace(self._backend.prepare(task.sample, task.numerics), alone=alone, streams=streams)
        except BaseException:
            self.close()
            raise
        return self._prepared

    def _streams_otherwise(self, task: ModelTask) -> bool:
        """Whether `weights: auto` was decided here before another worker, that the task follows, decided otherwise."""
        here, wanted = sweeps_in(self._backend) is not None, (task.numerics or {}).get("weights") == "streamed"
        return task.extract.weights == "auto" and task.numerics is not None and here != wanted

    def _alone(self, task: ModelTask) -> Alone | None:
        """States of the sentences that the task wants computed one at a time."""
        return cast(Audited, self._backend).alone(task.witness, task.witness_places) if len(task.witness) else None

    def has(self, task: ModelTask) -> bool:
        """Whether the task's model is loaded already."""
        return self._key == task.key and self._prepared is not None

    def load(self, task: ModelTask) -> Backend:
        """The backend with the task's model prepared."""
        self.prepare(task)
        assert self._backend is not None
        return self._backend

    def extract(self, tasks: Iterable[BlockTask], progress: Progress) -> Iterator[BlockDone]:
        """Extract blocks of one model; the writing of one overlaps with the next."""
        tasks = iter(tasks)
        first = next(tasks, None)
        if first is not None:
            yield from extract_blocks(self.load(first.model), chain([first], tasks), self.sink, progress)

    def close(self) -> None:
        """Unload the model."""
        backend, self._backend = self._backend, None
        self._key = self._prepared = None
        if backend is not None:
            backend.close()


def _agree(wanted: dict[str, Any] | None, numerics: dict[str, Any]) -> bool:
    """Whether a model prepared with `numerics` is what a task wants; a task's own numerics hold further entries.

    The states of streamed weights and of resident ones are the same, where nothing is compiled or merged.
    """
    if wanted is None:
        return True
    made_over = any((name in wanted) != (name in numerics) for name in ("compile", "merged"))
    return not made_over and all(wanted.get(n) == value for n, value in numerics.items() if n != "weights")
