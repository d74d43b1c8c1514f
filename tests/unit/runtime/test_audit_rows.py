"""Which rows an audit looks at, and what it says of those that are wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from zarr.storage import LocalStore

from drillcore.backends.alone import Alone
from drillcore.runtime.audit import LONGEST_ALONE, MOST_SEEDED, budget_tokens, choose_rows, compare, confirmed
from drillcore.store.attributes import make_group
from drillcore.store.group import GroupWriter
from drillcore.store.layout import choose_shape
from drillcore.tokens.sequences import Sequences


def shards(count, size=16):
    return [(s, min(s + size, count)) for s in range(0, count, size)]


def test_ends_of_shards_and_of_a_block_and_the_longest(seed):
    lengths = np.random.default_rng(seed).integers(1, 20, 1000)
    lengths[333] = 50
    rows = choose_rows(lengths, shards(1000), 64, 0, 0, int, seed).tolist()
    assert {0, 15, 992, 999, 333} <= set(rows) and len(rows) <= 11
    assert any(row % 64 == 0 and row - 1 in rows for row in rows if row), "both sides of a block's border"


def test_seeded_rows_repeat_with_their_seed_and_differ_with_another(seed):
    lengths = np.full(5000, 8)
    one, same, other = (choose_rows(lengths, shards(5000), 64, 20, 0, int, s).tolist() for s in (seed, seed, seed + 1))
    assert one == same != other and len(one) >= 20


def test_the_budget_bounds_them_where_their_number_is_open(seed):
    lengths = np.full(5000, 10)
    few = choose_rows(lengths, shards(5000), 64, None, 50, int, seed)
    many = choose_rows(lengths, shards(5000), 64, None, 10**6, int, seed)
    ends = choose_rows(lengths, shards(5000), 64, 0, 0, int, seed)
    assert len(few) <= len(ends) + 5 and len(ends) < len(many) <= len(ends) + MOST_SEEDED
    assert budget_tokens(10**6, 10**9) == 20_000 and budget_tokens(100, 10**4) == 250_000


def test_equal_sentences_count_once(seed):
    rows = choose_rows(np.full(5000, 10), shards(5000), 64, 30, 0, lambda row: row % 3, seed)
    assert len(rows) <= 11 + 2


def test_only_shards_that_are_there_and_sentences_that_can_be_computed(seed):
    lengths = np.full(64, 5)
    lengths[20] = LONGEST_ALONE + 1
    rows = choose_rows(lengths, [(16, 32), (48, 64)], 32, 64, 0, int, seed).tolist()
    assert set(rows) == {*range(16, 32), *range(48, 64)} - {20}
    assert choose_rows(lengths, [], 32, 5, 0, int, seed).tolist() == []


@pytest.fixture
def stored(tmp_path, seed):
    """A group of 20 sentences in shards of 8, and their states."""
    states = np.random.default_rng(seed).normal(size=(20, 3, 6)).astype(np.float32)
    shape = choose_shape(20, (0, 2, 4), ("embed", "block_2", "final_norm"), 6, "float32", 8)
    writer = GroupWriter(make_group(LocalStore(tmp_path / "s.zarr"), "m/d"))
    writer.ensure(shape, ())

    def write(rows=range(20)):
        values = states[[*rows]]
        for shard in range(3):
            first, stop = shape.bounds(shard)
            writer.commit(first, shard, values[first:stop], np.zeros(3, np.float32), f"{shard + 1:064x}")
        return writer.group

    return states, write


def alone(states, rows, **changes):
    known = {"dtype": "float32", "own_dtype": "float32", "machine": "", "routed": False, "seconds": 0.0}
    return Alone(states[rows], np.zeros((len(rows), 3)), **{**known, **changes})


def test_a_row_in_the_wrong_place_is_named_with_the_one_it_holds(stored):
    states, write = stored
    rows = np.array([1, 4, 9])
    group = write([4 if i == 9 else i for i in range(20)])
    found = compare(group, rows, alone(states, rows), (0, 2, 4), "float32")
    (wrong,) = found.wrong
    assert (wrong.sentence, wrong.holds) == (9, 4) and wrong.layer in (0, 2, 4)
    assert wrong.error == found.worst > found.bound == 1e-4
    assert compare(write(), rows, alone(states, rows), (0, 2, 4), "float32").wrong == ()


def test_a_state_that_is_not_a_number_is_wrong(stored):
    states, write = stored
    expected = alone(states.copy(), np.array([3]))
    states[3, 1, 2] = np.nan
    (wrong,) = compare(write(), np.array([3]), expected, (0, 2, 4), "float32").wrong
    assert wrong.sentence == 3 and wrong.layer == 2 and np.isnan(wrong.error)


def test_the_noise_of_float32_explains_a_small_excess_and_no_large_one(stored):
    states, write = stored
    rows = np.array([2, 5, 6])
    exact = alone(states.copy(), rows)
    states[2] *= 1.001
    states[5] *= 1.001
    states[6] *= 2
    found = compare(write(), rows, exact, (0, 2, 4), "float32")
    assert [w.sentence for w in found.wrong] == [2, 5, 6]
    asked = []

    def noise(tokens):
        asked.append([ids.tolist() for ids in tokens])
        return np.array([[0, 3e-4, 0], [0, 1e-6, 0]])

    left = confirmed(found, exact, Sequences.of([[2], [5], [6]]), noise)
    assert [w.sentence for w in left] == [5, 6] and asked == [[[2], [5]]]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_other_ways_of_a_lower_precision_explain_three_times_their_noise_and_no_gross_error(stored, dtype):
    states, write = stored
    rows = np.array([2, 5, 6])
    exact = alone(states.copy(), rows, own_dtype=dtype)
    for row in (2, 5):
        states[row] *= 1.05
    states[6] *= 1.1
    found = compare(write(), rows, exact, (0, 2, 4), dtype)
    assert [w.sentence for w in found.wrong] == [2, 5, 6]
    asked = []

    def noise(tokens):
        asked.append([ids.tolist() for ids in tokens])
        return np.array([[0, 0.017, 0], [0, 0.016, 0]])

    left = confirmed(found, exact, Sequences.of([[2], [5], [6]]), noise)
    assert [w.sentence for w in left] == [5, 6] and asked == [[[2], [5]]]
    assert confirmed(found, replace(exact, quantised=True), Sequences.of([[2], [5], [6]]), noise) == list(found.wrong)
