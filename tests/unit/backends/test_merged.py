"""Linear layers that share their input as one product: the same states, the same weights, no more memory."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from backend_contract import collect
from torch import nn

from conftest import require
from drillcore.backends.transformers import merged
from drillcore.backends.transformers.compiled import Compilations
from drillcore.tokens.sequences import Sequences
from support.backends import open_transformers
from support.plain import plain_states, random_sentences, relative_error

HEADS = {"llama": {"head_dim": 16}, "qwen3": {"head_dim": 16}, "mistral": {"head_dim": 16}}
# How many linear layers of one decoder layer are part of a wider one.
MERGED = {"llama": 5, "qwen2": 5, "qwen3": 5, "gemma2": 5, "mistral": 5, "phi": 3, "mixtral": 3, "olmo2": 5}


@pytest.fixture(autouse=True)
def compiler():
    yield
    torch._dynamo.reset()


def stand_ins(backend) -> int:
    """Stand-ins in the first decoder layer."""
    return sum(isinstance(m, merged._First | merged._Later) for m in backend._loaded.decoder_layers[0].modules())


@pytest.mark.parametrize("architecture", MERGED)
def test_merged_products_give_the_states_of_one_sentence_alone(architecture, models, seed):
    from transformers import AutoModelForCausalLM

    folder = models(architecture, **HEADS.get(architecture, {}))
    backend, prepared = open_transformers(folder, merge="on")
    assert prepared.numerics.get("merged") == merged.NAME and not prepared.notes, prepared.notes
    assert stand_ins(backend) == MERGED[architecture]
    sentences = random_sentences(seed, 384, longest=90)
    states = collect(backend, Sequences.of(sentences))
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    want = np.stack([plain_states(plain, s, states.shape[1] - 2) for s in sentences])
    assert relative_error(states, want).max() <= 1e-5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merged_and_compiled(dtype, models, seed):
    if shutil.which("g++") is None:
        require("compiler", "PyTorch compiles for a CPU with g++")
    folder, sentences = models("llama", head_dim=16), Sequences.of(random_sentences(seed, 384, longest=90))
    backend, prepared = open_transformers(folder, merge="on", compile="on", batch_tokens=512, dtype=dtype)
    assert {"merged", "compile"} <= prepared.numerics.keys() and not prepared.notes, prepared.notes
    assert prepared.compiled["breaks"] == 0
    draw = np.random.default_rng(seed)
    # 512 nodes are a batch: one graph for all layers, and none for further batches.
    whole = [Sequences.of([draw.integers(3, 384, 32) for _ in range(16)]) for _ in range(4)]
    collect(backend, whole[0])
    so_far = Compilations.so_far()
    for block in whole[1:]:
        collect(backend, block)
    assert Compilations.so_far() == so_far
    states = collect(backend, sentences)
    alone = backend.alone(sentences)
    bound = 1e-5 if dtype == "float32" else 3 * alone.noise_CK.max()
    assert relative_error(states, alone.states_CKH).max() <= bound


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_the_models_own_and_take_no_more_memory(dtype, models):
    folder = models("qwen2")
    backend, _ = open_transformers(folder, merge="on", dtype=dtype)
    plain, _ = open_transformers(folder, dtype=dtype)
    backend._use_ours()
    attention = backend._loaded.decoder_layers[0].self_attn
    whole = attention.q_proj.merged
    own = plain._loaded.decoder_layers[0].self_attn
    names = ("q_proj", "k_proj", "v_proj")
    assert torch.equal(whole.weight, torch.cat([getattr(own, n).weight for n in names]))
    assert torch.equal(whole.bias, torch.cat([getattr(own, n).bias for n in names]))
    backend._rest()
    for name in names:
        linear = getattr(attention, name)
        assert type(linear) is nn.Linear and torch.equal(linear.weight, getattr(own, name).weight)
        assert linear.weight.untyped_storage().data_ptr() == whole.weight.untyped_storage().data_ptr()


def test_references_run_with_products_apart(models, monkeypatch):
    backend, _ = open_transformers(models("llama"), merge="on")

    def never(*_):
        raise AssertionError("a reference ran through a merged layer")

    monkeypatch.setattr(merged._First, "forward", never)
    assert np.isfinite(backend.alone(Sequences.of([[5, 6, 7], [8]])).states_CKH).all()
    with pytest.raises(AssertionError, match="a reference ran"):
        collect(backend, Sequences.of([[5, 6, 7]]))


def test_products_of_other_states_are_not_handed_on():
    torch.manual_seed(0)
    parent = nn.Module()
    parent.one, parent.two = nn.Linear(8, 4), nn.Linear(8, 6)
    group = merged._Group(parent, {"one": parent.one, "two": parent.two})
    want = parent.two
    group.use()
    states, others = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    parent.one(states)
    assert torch.allclose(parent.two(others), want(others)) and torch.allclose(parent.two(states), want(states))
    group.rest()
    assert parent.two is want


def test_a_model_whose_layers_share_no_input_says_so(models):
    _, prepared = open_transformers(models("gpt_neox"), merge="on")
    assert "merged" not in prepared.numerics
    assert any("no linear layers share their input" in note for note in prepared.notes)


def test_wrong_products_are_not_used(models, monkeypatch):
    real = merged._Later.forward
    monkeypatch.setattr(merged._Later, "forward", lambda self, states: real(self, states) * 1.001)
    _, prepared = open_transformers(models("llama"), merge="on")
    assert "merged" not in prepared.numerics and "merged: " in prepared.notes[0]


def test_without_being_asked_for_nothing_is_merged(models):
    backend, prepared = open_transformers(models("llama"))
    assert "merged" not in prepared.numerics and not stand_ins(backend)
