"""Packs: every sentence's ancestors are exactly its own prefix, whatever the sentences and the width."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drillcore.tokens.batches import batches, filled, halve, padded_batches
from drillcore.tokens.former_packs import build_former_packs
from drillcore.tokens.packs import build_packs
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.widths import PackRule

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


# The rule of now, and that of stores written before.
BUILDERS = st.sampled_from([build_packs, build_former_packs])


@settings(max_examples=200, deadline=None)
@given(
    SENTENCES,
    BUILDERS,
    st.sampled_from([1, 2, 7, 16, 32]),
    st.integers(1, 200),
    st.integers(1, 100),
    st.sampled_from([0, 0.001, 0.1]),
    st.booleans(),
)
def test_ancestors_are_exactly_the_prefix(sentences, build, width, widest, batch_nodes, attention_cost, trim):
    packs = build(Sequences.of(sentences), PackRule(width, widest, attention_cost))
    longest = max(map(len, sentences))
    assert packs.width_P.max() < 2 * max(width, widest, longest)
    assert (np.diff(packs.pack_start) <= packs.width_P).all()
    paths_by_sentence = {}
    for batch in batches(packs, batch_nodes, trim=trim):
        num_rows, batch_width = batch.token_ids_RW.shape
        assert num_rows == 1 or num_rows * batch_width <= batch_nodes
        assert batch.nodes_R.max() == batch_width or not trim
        for sentence, path in paths(batch):
            assert sentence not in paths_by_sentence
            paths_by_sentence[sentence] = path
    assert [paths_by_sentence[i] for i in range(len(sentences))] == sentences


@settings(max_examples=100, deadline=None)
@given(SENTENCES, st.sampled_from([4, 16, 64]), st.integers(1, 200), st.sampled_from([1, 4]))
def test_a_halved_batch_holds_what_it_held(sentences, width, batch_nodes, step):
    for batch in batches(build_packs(Sequences.of(sentences), PackRule(width, 256)), batch_nodes):
        whole = dict(paths(batch))
        todo, seen = [batch], {}
        while todo:
            one = todo.pop()
            halves = halve(one, step)
            if not halves:
                assert one.token_ids_RW.shape[0] == len(one.node_G) == 1
                assert one.token_ids_RW.shape[1] <= -(-one.num_nodes // step) * step
                for sentence, path in paths(one):
                    assert sentence not in seen
                    seen[sentence] = path
            for half in halves:
                narrower = half.token_ids_RW.shape[1] < one.token_ids_RW.shape[1]
                assert half.num_nodes <= one.num_nodes and (len(half.node_G) < len(one.node_G) or narrower)
                assert half.token_ids_RW.shape[1] % step == 0 or len(one.token_ids_RW) > 1
            todo += halves
        assert seen == whole


def test_a_pack_is_split_until_each_half_is_one_sentence(seed):
    draw = np.random.default_rng(seed)
    trunk = draw.integers(0, 9, 50)
    few_shot = Sequences.of([np.concatenate([trunk, [10 + i], draw.integers(10, 99, 19)]) for i in range(16)])
    (batch,) = batches(build_packs(few_shot, PackRule(64, 1024)), 1)
    todo, widths = [batch], []
    while todo:
        halves = halve(todo.pop())
        widths += [half.token_ids_RW.shape[1] for half in halves]
        todo += halves
    # 16 leaves of 70 nodes each; every split in the middle computes the trunk once more.
    assert sorted(widths)[:16] == [70] * 16 and max(widths) == 50 + 8 * 20


def test_rows_of_padding_fill_a_fixed_shape():
    (batch,) = batches(build_packs(Sequences.of([[1, 2], [3]]), PackRule(4)), 16)
    fixed = filled(batch, 3)
    assert fixed.token_ids_RW.shape == (3, 4) and fixed.num_nodes == batch.num_nodes == 3
    assert fixed.subtree_end_RW[2].tolist() == [1, 2, 3, 4] and dict(paths(fixed)) == dict(paths(batch))
    # Halves without a sentence are left out.
    assert len(halve(filled(batch, 8))) == 1


@settings(max_examples=60, deadline=None)
@given(SENTENCES, st.integers(1, 100))
def test_padded_batches_hold_each_sentence_once(sentences, batch_nodes):
    paths_by_sentence = {}
    for batch in padded_batches(Sequences.of(sentences), batch_nodes):
        paths_by_sentence.update(paths(batch))
    assert [paths_by_sentence[i] for i in range(len(sentences))] == sentences


def test_identical_prefixes_are_computed_once():
    packs = build_packs(Sequences.of([[1, 2, 3], [1, 2, 4], [1, 2, 3], [1, 2]]), PackRule(16))
    assert packs.num_nodes == 4


def free_text(draw, count):
    return [draw.integers(0, 50_000, n) for n in np.clip(draw.gamma(4, 6, count), 1, 90).astype(int)]


@pytest.mark.parametrize("width", [64, 128, 32_768])
def test_packs_of_real_lengths_are_full(seed, width):
    draw = np.random.default_rng(seed)
    packs = build_packs(Sequences.of(free_text(draw, 6000)), PackRule(width, 32_768))
    grid = sum(b.token_ids_RW.size for b in batches(packs, 2048, trim=True))
    assert packs.num_nodes / grid > 0.95


def test_long_sentences_of_all_lengths_waste_little(seed):
    draw = np.random.default_rng(seed)
    long = Sequences.of([draw.integers(0, 50_000, n) for n in draw.integers(100, 400, 300)])
    packs = build_packs(long, PackRule(64))
    whole, trimmed = (sum(b.token_ids_RW.size for b in batches(packs, 1024, trim=t)) for t in (False, True))
    # Two of 129 to 256 tokens do not fit into one pack of 256.
    assert packs.num_nodes / whole < 0.85 and packs.num_nodes / trimmed > 0.95


# Settings of a CPU, where packs are as wide as they must be, and of CUDA, where a batch is one row.
RULES = {"cpu": PackRule(64, 32_768), "cuda": PackRule(32_768, 32_768)}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("trunk", [100, 450, 1000, 2000, 4000])
@pytest.mark.parametrize("texts, continuations", [(1, 8), (8, 8), (1, 24), (8, 24), (1, 1000), (3, 1000)])
def test_long_trunks_are_computed_about_once(seed, rule, trunk, texts, continuations):
    draw = np.random.default_rng(seed)
    trunks = [draw.integers(0, 50_000, trunk) for _ in range(texts)]
    questions = [np.concatenate([t, draw.integers(0, 50_000, 20)]) for t in trunks for _ in range(continuations)]
    block = [*questions, *free_text(draw, 500)]
    packs = build_packs(Sequences.of([block[i] for i in draw.permutation(len(block))]), RULES[rule])
    ideal = texts * (trunk + 20 * continuations)
    assert packs.num_nodes - sum(map(len, block[len(questions) :])) <= 1.15 * ideal


def test_one_text_below_another_trunk_is_computed_about_once(seed):
    # Few-shot examples before all, then 40 texts, each with 24 questions.
    draw = np.random.default_rng(seed)
    shots, texts = draw.integers(0, 50_000, 1500), [draw.integers(0, 50_000, 700) for _ in range(40)]
    prompts = [np.concatenate([shots, t, draw.integers(0, 50_000, 15)]) for t in texts for _ in range(24)]
    for rule in RULES.values():
        assert build_packs(Sequences.of(prompts), rule).num_nodes <= 1.15 * (1500 + 40 * (700 + 24 * 15))


def test_dense_attention_is_weighed_against_repeated_nodes(seed):
    draw = np.random.default_rng(seed)
    prefix = draw.integers(0, 50_000, 150)
    prompts = Sequences.of([np.concatenate([prefix, [i], draw.integers(0, 50_000, 9)]) for i in range(300)])
    free = Sequences.of([draw.integers(0, 50_000, 160) for _ in range(300)])
    widths = [set(build_packs(prompts, PackRule(64, 4096, cost)).width_P.tolist()) for cost in (0, 0.001, 0.1)]
    assert max(widths[0]) > max(widths[1]) > max(widths[2]) == 256
    assert set(build_packs(free, PackRule(64, 4096)).width_P) == {256}


def test_former_packs_are_those_of_stores_written_before():
    """Widths by length classes, as the first stores have them: their numerics name no way of building packs."""
    prefix = list(range(150))
    prompts = Sequences.of([[*prefix, 200 + i, *range(9)] for i in range(300)])
    narrow, wide = (build_former_packs(prompts, rule) for rule in (PackRule(64), PackRule(64, 1024, 0.001)))
    assert set(narrow.width_P) == {256} and set(wide.width_P) == {512}
    # Each pack computes the prefix once more: one for ten sentences, and one for 36.
    assert narrow.num_nodes == 30 * 150 + 3000 and wide.num_nodes == 9 * 150 + 3000
    draw = np.random.Generator(np.random.PCG64(7))
    trunks = [draw.integers(0, 40, 200) for _ in range(3)]
    mixed = [np.concatenate([trunks[i % 3][: draw.integers(0, 200)], draw.integers(0, 40, 9)]) for i in range(400)]
    packs = build_former_packs(Sequences.of(mixed), PackRule(64, 1024, 0.002))
    arrays = (packs.token_M, packs.position_M, packs.subtree_end_M, packs.pack_start, packs.width_P, packs.last_M_of_U)
    assert hashlib.sha256(b"".join(a.astype("<i8").tobytes() for a in arrays)).hexdigest() == FORMER


def test_one_long_sentence_leaves_the_others_narrow(seed):
    draw = np.random.default_rng(seed)
    sentences = [draw.integers(0, 9, 8) for _ in range(50)] + [draw.integers(0, 9, 300)]
    packs = build_packs(Sequences.of(sentences), PackRule(32))
    assert {b.token_ids_RW.shape[1] for b in batches(packs, 64)} == {32, 512}


# Of the packs that the version before this rule built from the block in the test above.
FORMER = "5456c8732f3236d722829b3da0dc28e5c692aae1274ce8d17b14471f5111968b"


@pytest.mark.parametrize("build", [build_packs, build_former_packs])
def test_packs_depend_on_the_block_alone(seed, build):
    draw = np.random.default_rng(seed)
    block = Sequences.of([draw.integers(0, 5, draw.integers(1, 20)) for _ in range(200)])
    first, second = (list(batches(build(block, PackRule(64, 512)), 256)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.token_ids_RW, b.token_ids_RW)
        np.testing.assert_array_equal(a.sentence_S, b.sentence_S)
