"""A worker keeps the model that it has loaded, where that is what the next task wants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from drillcore.backends.transformers.backend import TransformersBackend
from drillcore.backends.transformers.streamed import choice
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.runtime.work.tasks import ModelTask
from drillcore.runtime.work.worker import Worker
from drillcore.tokens.sequences import Sequences

FREE = {"streamed": 1000, "resident": 2**40}


@pytest.fixture
def worker():
    made = Worker()
    yield made
    made.close()


@pytest.fixture
def prepared(monkeypatch):
    """How often a model was checked."""
    prepare, calls = TransformersBackend.prepare, []
    monkeypatch.setattr(TransformersBackend, "prepare", lambda *a: (calls.append(0), prepare(*a))[1])
    return calls


def task_of(models, numerics: dict[str, Any] | None = None) -> ModelTask:
    extract = Extract(threads=1, weights="auto")
    layers = (0, 1, 2, 3, 4)
    return ModelTask(Model(id=str(models())), "/", "transformers", extract, layers, numerics, Sequences.of([[5, 6, 7]]))


@pytest.mark.parametrize(("here", "there"), [("streamed", "resident"), ("resident", "streamed")])
def test_auto_that_another_worker_decided_otherwise_loads_nothing_again(
    here, there, worker, models, monkeypatch, prepared
):
    """The states are the same either way; each worker decides by the memory that it has."""
    monkeypatch.setattr(choice, "allowed_memory_bytes", lambda: FREE[here])
    task = task_of(models)
    first = worker.prepare(task)
    assert first.streams == (here == "streamed")
    others = {name: value for name, value in first.numerics.items() if name != "weights"}
    others |= {"weights": "streamed"} if there == "streamed" else {}
    assert worker.prepare(replace(task, numerics=others)) is first and len(prepared) == 1


def test_a_worker_that_joins_later_follows_the_first(worker, models, monkeypatch, prepared):
    monkeypatch.setattr(choice, "allowed_memory_bytes", lambda: FREE["resident"])
    numerics = worker.prepare(task_of(models)).numerics
    other = Worker()
    monkeypatch.setattr(choice, "allowed_memory_bytes", lambda: FREE["streamed"])
    assert not other.prepare(task_of(models, numerics)).streams
    other.close()


@pytest.mark.parametrize("name", ["compile", "merged"])
def test_states_of_layers_that_are_made_over_are_others(name, worker, models, monkeypatch, prepared):
    monkeypatch.setattr(choice, "allowed_memory_bytes", lambda: FREE["streamed"])
    task = task_of(models)
    first = worker.prepare(task)
    wanted = {**first.numerics, name: "some way"}
    del wanted["weights"]
    monkeypatch.setattr(TransformersBackend, "prepare", lambda self, sample, stored: replace(first, numerics=stored))
    assert worker.prepare(replace(task, numerics=wanted)).numerics == wanted
    assert not worker._prepared.streams, "it was loaded again, as the first worker has it"
