"""What every backend must do. The suite of a backend subclasses `BackendContract` and says how to open it.

Its fixture `opened` gives a function: `opened(layers)` returns a prepared backend and `plain`; `plain(sentence)`
computes the states [L + 2, H] of one sentence independently. `bound` is the largest relative error allowed.
"""

from __future__ import annotations

import numpy as np
import pytest

from drillcore.tokens.sequences import Sequences
from support.plain import random_sentences, relative_error


def collect(backend, block: Sequences) -> np.ndarray:
    """All states [N, K, H] of a block, and that every sentence came exactly once."""
    work = backend.lay_out(block)
    assert work.num_sentences == len(block)
    states_NKH, count_N = None, np.zeros(len(block), int)
    for part in backend.run(work):
        if states_NKH is None:
            states_NKH = np.full((len(block), *part.values_GKH.shape[1:]), np.nan, np.float32)
        states_NKH[part.sentence_S] = part.values_GKH[part.row_S]
        count_N[part.sentence_S] += 1
        np.testing.assert_allclose(part.absmax_GK, np.abs(part.values_GKH).max(-1), rtol=1e-2)
    assert (count_N == 1).all()
    return states_NKH


class BackendContract:
    bound = 1e-5
    longest = 60

    def test_every_layer_of_every_sentence_equals_the_plain_way(self, opened, seed):
        backend, plain = opened("all")
        sentences = random_sentences(seed, backend.facts.vocab_size, longest=self.longest)
        states = collect(backend, Sequences.of(sentences))
        assert states.shape[1] == backend.facts.num_layers + 2
        worst = max(relative_error(states[i], plain(s)).max() for i, s in enumerate(sentences))
        assert worst <= self.bound

    def test_a_list_of_layers_gives_those_layers(self, opened, seed):
        backend, plain = opened((0, 2))
        sentences = random_sentences(seed, backend.facts.vocab_size, longest=self.longest, count=12)
        states = collect(backend, Sequences.of(sentences))
        assert states.shape[1] == 2
        worst = max(relative_error(states[i], plain(s)[[0, 2]]).max() for i, s in enumerate(sentences))
        assert worst <= self.bound

    def test_a_sentence_does_not_depend_on_its_neighbours(self, opened, seed):
        backend, _ = opened("all")
        sentences = random_sentences(seed, backend.facts.vocab_size, longest=self.longest, count=20)
        together = collect(backend, Sequences.of(sentences))
        order = np.random.default_rng(seed).permutation(len(sentences))[:7]
        fewer = collect(backend, Sequences.of([sentences[i] for i in order]))
        assert relative_error(fewer, together[order]).max() <= self.bound

    def test_the_same_block_gives_the_same_bytes(self, opened, seed):
        backend, _ = opened("all")
        block = Sequences.of(random_sentences(seed, backend.facts.vocab_size, longest=self.longest, count=20))
        np.testing.assert_array_equal(collect(backend, block), collect(backend, block))

    def test_unembed_gives_logits(self, opened, seed):
        backend, _ = opened("all")
        states = np.random.default_rng(seed).normal(size=(3, backend.facts.hidden_size)).astype(np.float32)
        logits = backend.unembed(states)
        assert logits.shape == (3, backend.facts.vocab_size)
        assert np.isfinite(logits).all()

    @pytest.mark.parametrize("count", [1, 2])
    def test_few_sentences(self, opened, count, seed):
        backend, _ = opened("all")
        block = Sequences.of(random_sentences(seed, backend.facts.vocab_size, longest=5, count=4)[:count])
        assert len(collect(backend, block)) == count
