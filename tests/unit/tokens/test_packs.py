"""Packs: every sentence's ancestors are exactly its own prefix, whatever the sentences and the width."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from drillcore.tokens.batches import batches, padded_batches
from drillcore.tokens.packs import build_packs
from drillcore.tokens.sequences import Sequences

SENTENCES = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=24), min_size=1, max_size=60)


def paths(batch):
    """For every sentence of a batch: its number and the tokens of its last node's ancestors, itself included."""
    num_rows, width = batch.token_ids_RW.shape
    for sentence, row in zip(batch.sentence_S.tolist(), batch.row_S.tolist(), strict=True):
        r, q = divmod(int(batch.node_G[row]), width)
        keys = [k for k in range(width) if k <= q < batch.subtree_end_RW[r, k]]
        assert r < num_rows
        # Positions along the path are 0, 1, 2, ...: the depths that the model is given.
        assert batch.position_ids_RW[r, keys].tolist() == list(range(len(keys)))
        yield sentence, batch.token_ids_RW[r, keys].tolist()


@settings(max_examples=150, deadline=None)
@given(SENTENCES, st.sampled_from([1, 2, 7, 16, 32]), st.integers(1, 100), st.floats(0, 0.1), st.booleans())
def test_ancestors_are_exactly_the_prefix(sentences, width, batch_nodes, attention_cost, trim):
    packs = build_packs(Sequences.of(sentences), width, batch_nodes, attention_cost)
    paths_by_sentence = {}
    for batch in batches(packs, batch_nodes, trim=trim):
        num_rows, batch_width = batch.token_ids_RW.shape
        assert num_rows == 1 or num_rows * batch_width <= batch_nodes
        assert batch.nodes_R.max() == batch_width or not trim
        for sentence, path in paths(batch):
            assert sentence not in paths_by_sentence
            paths_by_sentence[sentence] = path
    assert [paths_by_sentence[i] for i in range(len(sentences))] == sentences


@settings(max_examples=60, deadline=None)
@given(SENTENCES, st.integers(1, 100))
def test_padded_batches_hold_each_sentence_once(sentences, batch_nodes):
    paths_by_sentence = {}
    for batch in padded_batches(Sequences.of(sentences), batch_nodes):
        paths_by_sentence.update(paths(batch))
    assert [paths_by_sentence[i] for i in range(len(sentences))] == sentences


def test_identical_prefixes_are_computed_once():
    packs = build_packs(Sequences.of([[1, 2, 3], [1, 2, 4], [1, 2, 3], [1, 2]]), 16)
    assert packs.num_nodes == 4


def test_packs_of_real_lengths_are_full(seed):
    draw = np.random.default_rng(seed)
    free = Sequences.of([draw.integers(0, 50_000, n) for n in np.clip(draw.gamma(4, 6, 3000), 1, 90).astype(int)])
    packs = build_packs(free, 128)
    grid = sum(b.token_ids_RW.size for b in batches(packs, 2048))
    assert packs.num_nodes / grid > 0.95


def test_long_sentences_of_all_lengths_waste_little(seed):
    draw = np.random.default_rng(seed)
    long = Sequences.of([draw.integers(0, 50_000, n) for n in draw.integers(100, 400, 300)])
    packs = build_packs(long, 64)
    whole, trimmed = (sum(b.token_ids_RW.size for b in batches(packs, 1024, trim=t)) for t in (False, True))
    # Two of 129 to 256 tokens do not fit into one pack of 256.
    assert packs.num_nodes / whole < 0.85 and packs.num_nodes / trimmed > 0.95


def test_long_shared_prefixes_make_packs_wider(seed):
    draw = np.random.default_rng(seed)
    prefix = draw.integers(0, 50_000, 150)
    prompts = Sequences.of([np.concatenate([prefix, [i], draw.integers(0, 50_000, 9)]) for i in range(300)])
    free = Sequences.of([draw.integers(0, 50_000, 160) for _ in range(300)])
    narrow, chosen = build_packs(prompts, 64), build_packs(prompts, 64, 1024, 0.001)
    assert set(narrow.width_P) == {256} and set(chosen.width_P) == {512}
    # Each pack computes the prefix once more: one for ten sentences, and one for 36.
    assert narrow.num_nodes == 30 * 150 + 3000 and chosen.num_nodes == 9 * 150 + 3000
    assert set(build_packs(free, 64, 1024, 0.001).width_P) == {256}
    # Attention that costs much keeps them narrow.
    assert set(build_packs(prompts, 64, 1024, 0.1).width_P) == {256}


def test_one_long_sentence_leaves_the_others_narrow(seed):
    draw = np.random.default_rng(seed)
    sentences = [draw.integers(0, 9, 8) for _ in range(50)] + [draw.integers(0, 9, 300)]
    widths = {b.token_ids_RW.shape[1] for b in batches(build_packs(Sequences.of(sentences), 32), 64)}
    assert widths == {32, 512}


def test_packs_depend_on_the_block_alone(seed):
    draw = np.random.default_rng(seed)
    block = Sequences.of([draw.integers(0, 5, draw.integers(1, 20)) for _ in range(200)])
    first, second = (list(batches(build_packs(block, 64), 256)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.token_ids_RW, b.token_ids_RW)
        np.testing.assert_array_equal(a.sentence_S, b.sentence_S)
