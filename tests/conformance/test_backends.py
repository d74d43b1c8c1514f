"""The backend contract on the fake part and on `transformers`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from backend_contract import BackendContract, collect

from drillcore.backends import layers
from drillcore.backends.fake import FakeBackend
from drillcore.backends.source import locate
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.tokens.sequences import Sequences
from support.backends import open_transformers
from support.plain import plain_states, random_sentences, relative_error
from support.tiny import ARCHITECTURES, PACKED


@pytest.fixture(scope="module")
def plain_models():
    from transformers import AutoModelForCausalLM

    loaded = {}

    def get(folder: Path):
        if folder not in loaded:
            loaded[folder] = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
        return loaded[folder]

    return get


class TestFake(BackendContract):
    @pytest.fixture
    def opened(self, models):
        def get(wanted):
            source = locate(Model(id=str(models())), Path("/"))
            backend = FakeBackend(source, Extract(), layers.resolve_layers(wanted, source.facts.num_layers))
            backend.prepare(Sequences.of([]), None)

            def plain(sentence):
                whole = FakeBackend(source, Extract(), layers.resolve_layers("all", source.facts.num_layers))
                return collect(whole, Sequences.of([sentence]))[0]

            return backend, plain

        return get


class TestTransformers(BackendContract):
    @pytest.fixture(params=["llama", "qwen2", "gpt2", "gemma", "mistral"])
    def opened(self, request, models, plain_models):
        folder = models(request.param)

        def get(wanted):
            backend, _ = open_transformers(folder, wanted)
            return backend, lambda s: plain_states(plain_models(folder), s, 3)

        return get


class TestPadded(BackendContract):
    @pytest.fixture
    def opened(self, models, plain_models):
        folder = models("llama")

        def get(wanted):
            backend, _ = open_transformers(folder, wanted, layout="padded")
            return backend, lambda s: plain_states(plain_models(folder), s, 3)

        return get


class TestStreamed(BackendContract):
    @pytest.fixture
    def opened(self, models, plain_models):
        folder = models("llama")

        def get(wanted):
            backend, _ = open_transformers(folder, wanted, weights="streamed")
            return backend, lambda s: plain_states(plain_models(folder), s, 3)

        return get


@pytest.mark.parametrize("architecture", [a for a in ARCHITECTURES if a != "mamba"])
def test_every_architecture_equals_the_plain_way(architecture, models, plain_models, seed):
    folder = models(architecture)
    backend, prepared = open_transformers(folder)
    assert prepared.numerics["layout"] == ("packed" if architecture in PACKED else "padded")
    assert prepared.check.passed
    sentences = random_sentences(seed, backend.facts.vocab_size)
    # Long ones too: wide packs have an attention function of their own. Of very many tokens rounding sends one to
    # another expert, in transformers too.
    if architecture != "mixtral":
        sentences += random_sentences(seed + 1, backend.facts.vocab_size, longest=200, count=12)
    states = collect(backend, Sequences.of(sentences))
    want = np.stack([plain_states(plain_models(folder), s, 3) for s in sentences])
    assert relative_error(states, want).max() <= 1e-5
