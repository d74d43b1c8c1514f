"""The self-check fails on every seeded mistake, and a model that fails it is refused or takes padded batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from drillcore.backends import layers
from drillcore.backends.source import locate
from drillcore.backends.transformers import backend as transformers
from drillcore.backends.transformers import masks
from drillcore.backends.transformers.hooks import Gatherer
from drillcore.errors import SelfCheckError
from drillcore.job.fields import Extract, Model
from drillcore.tokens.sequences import Sequences


def prepare(folder, layout="auto", wanted="all"):
    source = locate(Model(id=str(folder)), Path("/"))
    backend = transformers.TransformersBackend(source, Extract(layout=layout), layers.resolve_layers(wanted, 3))
    return backend.prepare(Sequences.of([]), None)


def test_an_honest_model_passes(models):
    prepared = prepare(models("llama"))
    assert prepared.check.passed and prepared.check.layout == "packed"
    assert set(prepared.check.relative_error) == set(range(5))


def wrong_layer(monkeypatch):
    original = Gatherer._after
    monkeypatch.setattr(Gatherer, "_after", lambda self, k: original(self, k % 3 + 1))


def pad_token(monkeypatch):
    original = transformers.batches
    monkeypatch.setattr(
        transformers,
        "batches",
        lambda *a, **k: (replace(b, node_G=np.full_like(b.node_G, b.token_ids_RW.size - 1)) for b in original(*a, **k)),
    )


def leaked_prefix(monkeypatch):
    original = masks.ancestors

    def leak(*arguments):
        allowed = original(*arguments)
        # Each node sees the one before it, whoever's it is.
        allowed |= torch_eye(allowed.shape[-1])
        return allowed

    def torch_eye(width):
        import torch

        return torch.eye(width, dtype=torch.bool).roll(-1, 1).tril(-1)

    monkeypatch.setattr(masks, "ancestors", leak)


def shifted_position(monkeypatch):
    original = transformers.batches

    def shift(*arguments, **named):
        for batch in original(*arguments, **named):
            # Rotary positions are relative: shift some and not others.
            yield replace(batch, position_ids_RW=batch.position_ids_RW + (batch.position_ids_RW > 2))

    monkeypatch.setattr(transformers, "batches", shift)


def missing_norm(monkeypatch):
    original = Gatherer.finish
    hidden_by_layer = {}

    def gather(self, layer, hidden):
        hidden_by_layer[layer] = hidden
        return real(self, layer, hidden)

    real = Gatherer._gather
    monkeypatch.setattr(Gatherer, "_gather", gather)
    monkeypatch.setattr(Gatherer, "finish", lambda self, last: original(self, hidden_by_layer.get(3, last)))


@pytest.mark.parametrize("mutation", [wrong_layer, pad_token, leaked_prefix, shifted_position, missing_norm])
def test_every_seeded_mistake_is_detected(mutation, models, monkeypatch):
    mutation(monkeypatch)
    with pytest.raises(SelfCheckError, match="disagrees with transformers"):
        prepare(models("llama"), "packed")


@pytest.mark.parametrize("mutation", [pad_token, leaked_prefix, shifted_position])
def test_broken_packs_fall_back_to_padded_batches_with_a_note(mutation, models, monkeypatch):
    mutation(monkeypatch)
    prepared = prepare(models("llama"))
    assert prepared.numerics["layout"] == "padded" and prepared.check.passed
    assert any(note.startswith("packed: relative error") for note in prepared.notes)


def test_not_a_number_fails(models, monkeypatch):
    original = Gatherer.finish
    monkeypatch.setattr(Gatherer, "finish", lambda self, last: original(self, last) * float("nan"))
    with pytest.raises(SelfCheckError):
        prepare(models("llama"), "packed")
