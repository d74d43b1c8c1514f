"""The self-check fails on every seeded mistake, and a model that fails it is refused or takes padded batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from drillcore.backends import layers
from drillcore.backends.source import locate
from drillcore.backends.transformers import backend as transformers
from drillcore.backends.transformers import cpu_attention, cpu_trees, masks, packing
from drillcore.backends.transformers.hooks import Gatherer
from drillcore.errors import ModelError, SelfCheckError
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.tokens.sequences import Sequences
from support.tiny import tiny_model


def prepare(folder, layout="auto", wanted="all", dtype="float32"):
    source = locate(Model(id=str(folder)), Path("/"))
    extract = Extract(layout=layout, dtype=dtype)
    backend = transformers.TransformersBackend(source, extract, layers.resolve_layers(wanted, 3))
    return backend.prepare(Sequences.of([]), None)


def test_an_honest_model_passes(models):
    prepared = prepare(models("llama"))
    assert prepared.check.passed and prepared.check.layout == "packed"
    assert set(prepared.check.relative_error) == set(range(5))


def wrong_layer(monkeypatch):
    original = Gatherer._after
    monkeypatch.setattr(Gatherer, "_after", lambda self, k: original(self, k % 3 + 1))


def change_batches(monkeypatch, change):
    """Let all packed batches be changed."""
    for module in (transformers, packing):
        original = module.batches
        monkeypatch.setattr(module, "batches", lambda *a, original=original, **k: map(change, original(*a, **k)))


def pad_token(monkeypatch):
    change_batches(monkeypatch, lambda b: replace(b, node_G=np.full_like(b.node_G, b.token_ids_RW.size - 1)))


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


def leaked_tile(monkeypatch):
    original = cpu_trees._tiles

    def leak(*arguments):
        for tile in original(*arguments):
            # The last query of a tile of a wide pack sees all its keys.
            tile.mask[-1] = 0
            yield tile

    monkeypatch.setattr(cpu_trees, "_tiles", leak)


def shifted_position(monkeypatch):
    # Rotary positions are relative: shift some and not others.
    change_batches(monkeypatch, lambda b: replace(b, position_ids_RW=b.position_ids_RW + (b.position_ids_RW > 2)))


def missing_norm(monkeypatch):
    original = Gatherer.finish
    hidden_by_layer = {}

    def gather(self, layer, hidden):
        hidden_by_layer[layer] = hidden
        return real(self, layer, hidden)

    real = Gatherer._gather
    monkeypatch.setattr(Gatherer, "_gather", gather)
    monkeypatch.setattr(Gatherer, "finish", lambda self, last: original(self, hidden_by_layer.get(3, last)))


def test_a_mistake_in_wide_packs_alone_falls_back_to_dense_masks(models, monkeypatch):
    leaked_tile(monkeypatch)
    prepared = prepare(models("llama"))
    assert prepared.numerics["layout"] == "packed" and prepared.numerics["attention"] == cpu_attention.NAME
    assert any(note.startswith("packed with drillcore_trees: relative error") for note in prepared.notes)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("mutation", [wrong_layer, pad_token, leaked_prefix, shifted_position, missing_norm])
def test_every_seeded_mistake_is_detected(mutation, dtype, models, monkeypatch):
    mutation(monkeypatch)
    with pytest.raises(SelfCheckError, match="disagrees with transformers"):
        prepare(models("llama"), "packed", dtype=dtype)


@pytest.mark.parametrize("size", [1e-3, 0.02])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_error_far_below_the_noise_of_bfloat16_is_detected(dtype, size, models, monkeypatch):
    original = Gatherer.finish

    def off(self, last):
        states = original(self, last)
        return states * (1 + size * torch.sign(torch.arange(states.shape[-1]) % 2 - 0.5)).to(states.dtype)

    monkeypatch.setattr(Gatherer, "finish", off)
    with pytest.raises(SelfCheckError, match="disagrees with transformers"):
        prepare(models("llama"), "packed", dtype=dtype)


def test_noise_of_bfloat16_beyond_its_own_is_detected(models, monkeypatch):
    original = Gatherer.finish

    def rounded(self, last):
        states = original(self, last)
        return states if states.dtype != torch.bfloat16 else (states * 8).to(torch.float8_e4m3fn).to(states.dtype) / 8

    monkeypatch.setattr(Gatherer, "finish", rounded)
    with pytest.raises(SelfCheckError, match=r"bfloat16 is .* times as noisy"):
        prepare(models("llama"), "packed", dtype="bfloat16")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mixtral", "gemma2", "mamba"])
def test_a_lower_precision_passes_and_is_put_back(architecture, dtype, models):
    source = locate(Model(id=str(models(architecture))), Path("/"))
    backend = transformers.TransformersBackend(source, Extract(dtype=dtype), layers.resolve_layers("all", 3))
    before = {n: t.clone() for n, t in backend._loaded.causal.state_dict().items()}
    check = backend.prepare(Sequences.of([]), None).check
    assert check.worst <= 1e-5 and check.rounding.dtype == dtype and 0 < check.rounding.worst_ratio <= 1.5
    after = backend._loaded.causal.state_dict()
    assert all(after[n].dtype == t.dtype and torch.equal(after[n], t) for n, t in before.items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_token_that_sees_a_little_of_the_next_one_is_not_causal(dtype, models, monkeypatch):
    from transformers.models.llama.modeling_llama import LlamaMLP

    original = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: original(self, x + 3e-3 * x.roll(-1, 1)))
    with pytest.raises(ModelError, match="not a causal decoder: what follows a token changes its state by"):
        prepare(models("llama"), dtype=dtype)


@pytest.mark.parametrize("mutation", [pad_token, leaked_prefix, shifted_position])
def test_broken_packs_fall_back_to_padded_batches_with_a_note(mutation, models, monkeypatch):
    mutation(monkeypatch)
    prepared = prepare(models("llama"))
    assert prepared.numerics["layout"] == "padded" and prepared.check.passed
    assert any(note.startswith("packed with drillcore_trees: relative error") for note in prepared.notes)


def test_not_a_number_fails(models, monkeypatch):
    original = Gatherer.finish
    monkeypatch.setattr(Gatherer, "finish", lambda self, last: original(self, last) * float("nan"))
    with pytest.raises(SelfCheckError):
        prepare(models("llama"), "packed")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_model_that_gives_no_numbers_for_one_token_is_refused_for_that_reason(dtype, tmp_path):
    """One row of the embedding is damaged, or too large for the precision that the job asks for."""
    from safetensors.torch import load_file, save_file

    weights = load_file(tiny_model(tmp_path) / "model.safetensors")
    weights["model.embed_tokens.weight"][77] = float("nan") if dtype == "float32" else 1e5
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    source = locate(Model(id=str(tmp_path)), Path("/"))
    backend = transformers.TransformersBackend(source, Extract(dtype=dtype), range(5))
    with pytest.raises(ModelError, match=f"NaN or infinite for a sentence of 3 tokens alone, in {dtype}"):
        backend.prepare(Sequences.of([np.array([5, 6, 77], np.int32)]), None)
