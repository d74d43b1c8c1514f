"""Sentences one at a time by plain `transformers`, and the bounds that follow from their noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from drillcore.backends.alone import Alone, relative_errors
from drillcore.backends.base import all_states
from drillcore.backends.source import locate
from drillcore.backends.transformers.plain import (
    alone_states,
    compute_alone,
    float32_noise,
    plain_model,
    single_states,
    suspects_noise,
)
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.tokens.sequences import Sequences
from support.backends import open_transformers
from support.models_table import layers_of
from support.plain import plain_states, random_sentences, relative_error
from support.tiny import VOCAB
from tools.architectures.tiny import architectures, random_model


def source_of(folder):
    return locate(Model(id=str(folder)), Path("/"))


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3_text", "mixtral", "opt", "bloom", "mamba"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_layer_is_that_of_the_sentence_alone(models, architecture, dtype, seed):
    """In float32 also where the model computes in bfloat16."""
    folder = models(architecture)
    sentences = random_sentences(seed, VOCAB, count=6)
    alone = alone_states(source_of(folder), Extract(dtype=dtype, threads=1), range(5), Sequences.of(sentences))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).float().eval()
    want_CKH = np.stack([plain_states(model, sentence, 3) for sentence in sentences])
    # Without an entry for the embedding theirs begins after the first layer.
    layers = [*range(5)] if architecture != "mamba" else [3, 4]
    assert relative_error(alone.states_CKH[:, layers], want_CKH[:, layers]).max() <= 1e-5
    assert (alone.dtype, alone.own_dtype) == ("float32", dtype)
    assert (alone.noise_CK.max() > 1e-3) == (dtype == "bfloat16")


def test_some_layers_of_a_model_that_is_cut(models, seed):
    sentences = Sequences.of(random_sentences(seed, VOCAB, count=4))
    every = alone_states(source_of(models()), Extract(threads=1), range(5), sentences)
    some = alone_states(source_of(models()), Extract(threads=1), [0, 2], sentences)
    assert relative_error(some.states_CKH, every.at([0, 2]).states_CKH).max() <= 1e-6


def test_the_model_is_put_back_bit_for_bit(models, seed):
    sentences = Sequences.of(random_sentences(seed, VOCAB, count=3))
    with plain_model(source_of(models()), Extract(dtype="bfloat16", threads=1), range(5)) as loaded:
        before = {name: t.clone() for name, t in loaded.causal.state_dict().items()}
        compute_alone(loaded, range(5), sentences)
        float32_noise(loaded, range(5), sentences)
        suspects_noise(loaded, range(5), sentences)
        after = loaded.causal.state_dict()
    assert all(t.dtype == after[n].dtype and t.equal(after[n]) for n, t in before.items())


@pytest.mark.parametrize("weights", ["resident", "streamed"])
@pytest.mark.parametrize("architecture", ["llama", "mixtral", "mamba"])
def test_float32_is_compared_with_float64_and_all_is_put_back(models, architecture, weights, seed):
    """Experts by grouped products take no float64: they compute one after the other meanwhile."""
    sentences = Sequences.of(random_sentences(seed, VOCAB, count=3))
    extract = Extract(dtype="float32", weights=weights, threads=1)
    with plain_model(source_of(models(architecture)), extract, range(5)) as loaded:
        before = loaded.causal.get_experts_implementation()
        states_CKH = single_states(loaded, range(5), sentences)
        for noise_CK in (float32_noise(loaded, range(5), sentences), suspects_noise(loaded, range(5), sentences)):
            assert 0 < noise_CK[:, -1].max() < 1e-5
        assert loaded.causal.get_experts_implementation() == before
        assert single_states(loaded, range(5), sentences).tobytes() == states_CKH.tobytes()


def test_an_architecture_that_does_not_compute_in_float64_has_no_noise_known(tmp_path, seed):
    """Values of XGLM's masks fit no float64; what is out of bounds is then wrong."""
    random_model("xglm", with_images=False).save_pretrained(tmp_path / "model")
    sentences = Sequences.of(random_sentences(seed, 90, count=3))
    with plain_model(source_of(tmp_path / "model"), Extract(threads=1), [0, 1]) as loaded:
        states_CKH = single_states(loaded, [0, 1], sentences)
        with pytest.raises(RuntimeError, match="overflow"), loaded.in_precision(torch.float64):
            single_states(loaded, [0, 1], sentences)
        assert not float32_noise(loaded, [0, 1], sentences).any()
        assert single_states(loaded, [0, 1], sentences).tobytes() == states_CKH.tobytes()


@pytest.mark.long
@pytest.mark.parametrize("kind", [k for k in architectures(with_images=False) if layers_of(k)])
def test_the_noise_of_every_architecture_can_be_asked_for(kind, tmp_path, seed):
    random_model(kind, with_images=False).save_pretrained(tmp_path / "model")
    sentences = Sequences.of(random_sentences(seed, 90, count=2))
    with plain_model(source_of(tmp_path / "model"), Extract(threads=1), [0, 1]) as loaded:
        assert suspects_noise(loaded, [0, 1], sentences).max() < 1e-4


def made(noise_CK, dtype="float32", own_dtype="bfloat16", routed=False):
    noise = np.array(noise_CK)
    return Alone(np.ones((*noise.shape, 4), np.float32), noise, dtype, own_dtype, "cpu", routed, 0.0)


def test_bounds_follow_the_noise_of_one_sentence_at_a_time():
    noise = [[0.0, 0.010], [0.0, 0.012], [0.0, 0.011], [0.0, 0.5]]
    bounds = made(noise).bounds_CK("bfloat16")
    assert bounds[:3, 1] == pytest.approx(3 * 0.012), "the noisiest usual sentence counts for all"
    assert bounds[3, 1] == pytest.approx(3 * 0.5), "an unusual one for itself"
    assert (bounds[:, 0] == 2.0**-8).all(), "one unit in the last place"
    assert (made(noise, own_dtype="float32").bounds_CK("float32") == 1e-4).all()
    assert (made(noise, routed=True).bounds_CK("bfloat16") >= 0.25).all()
    half = made(noise, own_dtype="float32").bounds_CK("float32", "float16")
    assert ((half > 1e-4 + 2.0**-11) & (half < 7e-4)).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_right_states_of_a_lower_precision_are_far_from_condemned(models, dtype, seed):
    """Many draws of few sentences: an audit that condemns right states withdraws their shards."""
    sentences = Sequences.of(random_sentences(seed, VOCAB, count=60))
    backend, _ = open_transformers(models(), dtype=dtype, device="cpu")
    alone, states_NKH = backend.alone(sentences), all_states(backend, sentences)
    with plain_model(source_of(models()), Extract(dtype=dtype, threads=1), range(5)) as loaded:
        noise_C = suspects_noise(loaded, range(5), sentences).max(axis=1)
    draw = np.random.default_rng(seed)
    for _ in range(100):
        rows = draw.choice(60, 5, replace=False)
        errors_CK = relative_errors(states_NKH[rows], alone.states_CKH[rows])
        allowed_CK = np.maximum(alone.take(rows).bounds_CK(dtype), 3 * noise_C[rows, None])
        assert (errors_CK <= 0.8 * allowed_CK).all()
        others_CK = relative_errors(np.roll(states_NKH[rows], 1, axis=0), alone.states_CKH[rows])
        assert len(np.unique(alone.states_CKH[rows, -1], axis=0)) < 5 or (others_CK.max(axis=1) > 0.2).all()
