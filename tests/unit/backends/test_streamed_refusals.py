"""What does not go with streamed weights is refused by name, before anything is loaded or written."""

from __future__ import annotations

import builtins
from pathlib import Path

import pytest

import drillcore
from drillcore.backends import check_backend
from drillcore.backends.source import locate
from drillcore.backends.transformers.streamed import refusals, weights
from drillcore.errors import JobError, MissingExtraError, ModelError
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.tokens.sequences import Sequences
from support.backends import open_transformers


def test_what_is_off_goes_with_it():
    for streams in ("streamed", "auto"):
        assert Extract(weights=streams, compile="off", merge="off").weights == streams


@pytest.mark.parametrize(("name", "way"), [("compile", "compiled"), ("merged", "merged")])
def test_a_store_that_was_begun_with_other_layers(name, way, models):
    backend, prepared = open_transformers(models(), weights="streamed", threads=1)
    with pytest.raises(ModelError, match=f"the store's states were computed with {way} layers") as caught:
        backend.prepare(Sequences.of([]), {**prepared.numerics, name: "as it was"})
    assert "weights: resident" in caught.value.hint
    assert backend.prepare(Sequences.of([]), prepared.numerics).numerics == prepared.numerics
    backend.close()


def test_positions_that_a_batch_changes_for_others(models):
    scaled = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    source = locate(Model(id=str(models("llama", rope_parameters=scaled))), Path("/"))
    with pytest.raises(JobError, match="does not go with dynamic NTK"):
        check_backend("transformers", source, Extract(weights="streamed"))


def test_models_in_memory(models):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (kind.from_pretrained(models()) for kind in (AutoModelForCausalLM, AutoTokenizer))
    with pytest.raises(JobError, match="does not go with a model in memory"):
        drillcore.extract(model, ["a", "b"], tokenizer=tokenizer, weights="streamed")


def test_greenlet_that_is_missing(monkeypatch):
    monkeypatch.setattr(refusals, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="needs greenlet, which is not installed"):
        check_backend("transformers", None, Extract(weights="streamed"))
    check_backend("transformers", None, Extract())


@pytest.mark.parametrize("name", ["get_model_conversion_mapping", "rename_source_key"])
def test_a_transformers_that_lacks_what_is_taken_of_it(name, models, monkeypatch):
    found = builtins.__import__

    def without(module, globals=None, locals=None, fromlist=(), level=0):
        if globals and globals.get("__name__") == weights.__name__ and name in (fromlist or ()):
            raise ImportError(f"cannot import name '{name}'")
        return found(module, globals, locals, fromlist, level)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(JobError, match=f"cannot be read layer by layer with transformers .*{name}"):
        open_transformers(models(), weights="streamed")
