"""The backend contract on real vLLM, and the states of the demo model, of two ranks and of stored numerics.

Runs in vLLM's own environment (make test-vllm).
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from backend_contract import BackendContract, collect

from drillcore.backends.demo_model import DEMO_ID
from drillcore.backends.source import locate
from drillcore.errors import RunError
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.tokens.sequences import Sequences
from support.plain import plain_states, random_sentences, relative_error
from support.vllm import CHUNK, open_vllm

pytest_plugins = ["support.vllm_fixtures"]
pytestmark = pytest.mark.usefixtures("installed_vllm")


@pytest.fixture(params=["llama", "gpt2"], scope="module")
def opened(request, tiny, engines, plain_model):
    folder = tiny(request.param)

    def get(wanted):
        return engines.get(str(folder), wanted), lambda s: plain_states(plain_model(folder), s, 3)

    return get


class TestVllm(BackendContract):
    bound = 1e-4
    longest = 3 * CHUNK

    def test_shared_prefixes_are_computed_once(self, opened, seed):
        backend, plain = opened("all")
        draw = np.random.default_rng(seed)
        trunk = draw.integers(3, 384, 3 * CHUNK)
        block = [np.concatenate([trunk, draw.integers(3, 384, n)]).astype(np.int32) for n in range(1, 9)]
        work = backend.lay_out(Sequences.of(block))
        computed = sum(part.num_nodes for part in backend.run(work))
        assert computed == work.num_nodes < len(trunk) + 8 * 64
        states = collect(backend, Sequences.of(block))
        assert max(relative_error(states[i], plain(s)).max() for i, s in enumerate(block)) <= self.bound

    def test_unembed_gives_the_models_own_logits(self, opened, tiny, plain_model, seed):
        import torch

        backend, plain = opened("all")
        folder = Path(backend._source.location)
        sentence = random_sentences(seed, 384, longest=20, count=4)[3]
        with torch.inference_mode():
            want = plain_model(folder)(input_ids=torch.as_tensor(sentence.astype(np.int64))[None]).logits[0, -1].numpy()
        assert relative_error(backend.unembed(plain(sentence)[None, 3].astype(np.float32))[0], want) <= self.bound


def test_blocks_that_return_their_residual_beside_the_whole(tiny, engines, plain_model, seed):
    backend = engines.get(str(tiny("cohere")))
    assert backend.prepare(Sequences.of([]), None).numerics["adds_residual"] is False
    sentences = random_sentences(seed, 384, count=10)
    states = collect(backend, Sequences.of(sentences))
    model = plain_model(tiny("cohere"))
    assert max(relative_error(states[i], plain_states(model, s, 3)).max() for i, s in enumerate(sentences)) <= 1e-4


def test_two_tensor_parallel_ranks(tiny, engines, plain_model, seed):
    backend = engines.get(str(tiny("llama")), tensor_parallel=2)
    sentences = random_sentences(seed, 384, longest=3 * CHUNK)
    states = collect(backend, Sequences.of(sentences))
    model = plain_model(tiny("llama"))
    assert max(relative_error(states[i], plain_states(model, s, 3)).max() for i, s in enumerate(sentences)) <= 1e-4


@pytest.mark.parametrize("ranks", [1, pytest.param(3, marks=pytest.mark.long)])
def test_the_demo_model(engines, plain_model, seed, ranks):
    """Its 9 attention heads can be shared by 3 ranks, not by 2."""
    folder = Path(locate(Model(id=DEMO_ID), Path("/")).location)
    backend = engines.get(DEMO_ID, tensor_parallel=ranks)
    sentences = random_sentences(seed, backend.facts.vocab_size, longest=3 * CHUNK, count=16)
    assert min(map(len, sentences)) == 1 and max(map(len, sentences)) > CHUNK
    work = backend.lay_out(Sequences.of(sentences))
    computed = sum(part.num_nodes for part in backend.run(work))
    assert computed == work.num_nodes < sum(map(len, sentences))
    states = collect(backend, Sequences.of(sentences))
    assert states.shape[1] == 32
    model = plain_model(folder)
    for i, sentence in enumerate(sentences):
        plain = plain_states(model, sentence, 30)
        error = relative_error(states[i], plain).max()
        assert error <= 1e-4 or error <= 5 * own_error(model, sentence, plain)


def own_error(model, sentence, plain) -> float:
    """How far float32 is from float64 in `transformers` alone: rare random token ids amplify rounding a hundredfold."""
    return float(relative_error(plain, plain_states(copy.deepcopy(model).double(), sentence, 30)).max())


def test_numerics_that_were_stored_give_the_same_bytes(tiny, seed, leaves_nothing):
    block = Sequences.of(random_sentences(seed, 384, longest=3 * CHUNK))
    found, numerics = [], None
    for _ in range(2):
        backend = open_vllm(str(tiny("llama")))
        try:
            numerics = json.loads(json.dumps(backend.prepare(block.slice(0, 8), numerics).numerics))
            found.append((numerics, collect(backend, block)))
        finally:
            backend.close()
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


@pytest.mark.long
def test_random_weights_are_those_of_the_other_backend(tiny, seed, leaves_nothing):
    from drillcore.backends.transformers.backend import TransformersBackend

    sentences = Sequences.of(random_sentences(seed, 384, count=10))
    source = locate(Model(id=str(tiny("llama")), random_weights=True), Path("/"))
    other = TransformersBackend(source, Extract(dtype="float32"), (0, 3, 4))
    other.prepare(sentences, None)
    ours = open_vllm(str(tiny("llama")), (0, 3, 4), random_weights=True)
    try:
        ours.prepare(sentences, None)
        assert relative_error(collect(ours, sentences), collect(other, sentences)).max() <= 1e-4
    finally:
        ours.close()
        other.close()


def test_a_sentence_beyond_the_cache_is_refused(tiny, engines):
    backend = engines.get(str(tiny("llama")))
    with pytest.raises(RunError, match="has 600 tokens"):
        backend.lay_out(Sequences.of([np.ones(600, np.int32)]))
