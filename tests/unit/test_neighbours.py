"""The k-NN graph: exact against all distances, itself first among duplicates, equal bits, recall where approximate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from drillcore import neighbours
from drillcore.errors import RunError
from drillcore.neighbours import EXACT_UP_TO, build, distinct, nearest_sentences, without_variance
from support.nearest import assert_nearest, in_plain_numpy


def draw(seed: int, num_rows: int, num_dimensions: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num_rows, num_dimensions)).astype(np.float32)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_exact_agrees_with_all_distances(seed: int, metric: str) -> None:
    states = draw(seed, 120) + 3
    graph = build(states, 15, metric, 0)
    expected = np.sort(cdist(states.astype(np.float64), states.astype(np.float64), metric), axis=1)[:, :15]
    np.testing.assert_allclose(graph.distances_NK, expected, atol=2e-6)
    assert (graph.indices_NK[:, 0] == np.arange(120)).all() and (graph.distances_NK[:, 0] == 0).all()
    assert graph.indices_NK.dtype == np.int32 and graph.distances_NK.dtype == np.float32 and "exact" in graph.backend


def test_a_massive_common_offset_does_not_blur_neighbours(seed: int) -> None:
    states = draw(seed, 200).astype(np.float64)
    offset = np.zeros(24)
    offset[3] = 60_000.0
    moved = build((states + offset).astype(np.float32), 10, "euclidean", 0)
    still = build((states + offset).astype(np.float32).astype(np.float64) - offset, 10, "euclidean", 0)
    np.testing.assert_allclose(moved.distances_NK, still.distances_NK, rtol=1e-4)


@pytest.mark.parametrize("num_rows", [1, 2, 3, 5])
def test_few_sentences_take_the_neighbours_down(seed: int, num_rows: int) -> None:
    graph = build(draw(seed, num_rows), 15, "euclidean", 0)
    assert graph.indices_NK.shape == (num_rows, num_rows)
    assert all(len(set(row)) == num_rows for row in graph.indices_NK.tolist())


def test_duplicates_keep_themselves_first(seed: int) -> None:
    states = draw(seed, 4)[np.random.default_rng(seed).integers(0, 4, 150)]
    graph = build(states, 12, "euclidean", 0)
    assert (graph.indices_NK[:, 0] == np.arange(150)).all()
    assert all(len(set(row)) == 12 for row in graph.indices_NK.tolist())
    assert graph.distances_NK.max() < 1e-6


def test_beyond_the_exact_range_bits_repeat_and_recall_is_high(seed: int) -> None:
    num_rows = EXACT_UP_TO + 200
    states = np.concatenate([draw(seed, num_rows - 40, 16), np.zeros((40, 16), np.float32)])
    first, again = (build(states, 10, "euclidean", seed) for _ in range(2))
    assert first.indices_NK.tobytes() == again.indices_NK.tobytes()
    assert first.distances_NK.tobytes() == again.distances_NK.tobytes()
    assert "pynndescent" in first.backend and (first.indices_NK >= 0).all() and np.isfinite(first.distances_NK).all()
    assert (first.indices_NK[:, 0] == np.arange(num_rows)).all()
    exact = build(states, 10, "euclidean", seed, "exact")
    shared = [len(set(a) & set(b)) for a, b in zip(first.indices_NK.tolist(), exact.indices_NK.tolist(), strict=True)]
    assert np.mean(shared[: num_rows - 40]) / 10 > 0.85


def test_fewer_columns(seed: int) -> None:
    graph = build(draw(seed, 30), 10, "euclidean", 0)
    assert (graph.first(4).indices_NK == graph.indices_NK[:, :4]).all()
    with pytest.raises(RunError, match="10 columns, 11 are needed"):
        graph.first(11)


def test_distinct_states_in_order(seed: int) -> None:
    rows = draw(seed, 5)
    chosen = np.array([3, 3, 0, 4, 0, 3])
    first, place = distinct(rows[chosen])
    assert first.tolist() == [0, 2, 3] and place.tolist() == [0, 0, 1, 2, 1, 0]


def test_variance_is_judged_dimension_by_dimension(seed: int) -> None:
    states = np.repeat(draw(seed, 1), 50, axis=0)
    assert without_variance(states)
    assert without_variance(states * (1 + 1e-7 * draw(seed + 1, 50)))
    states[:, 0] = 500_000
    moved = states.copy()
    moved[7, 5] += 0.1
    assert without_variance(states) and not without_variance(moved)
    assert without_variance(states[:1]) and not without_variance(draw(seed, 2))


@pytest.mark.parametrize("num_distinct", [1, 2, 5, 30, 200])
@pytest.mark.parametrize("columns", [11, 15])
def test_nearest_sentences_are_those_of_all_distances_whatever_is_repeated(
    seed: int, num_distinct: int, columns: int
) -> None:
    states = draw(seed, num_distinct)[np.random.default_rng(seed).integers(0, num_distinct, 200)]
    nearest, tied = nearest_sentences(states, build(states, columns, "euclidean", 0), 10)
    assert nearest.dtype == np.int32
    assert_nearest(nearest, states)
    if num_distinct <= 30:  # among more distances rounding may decide
        np.testing.assert_array_equal(nearest, in_plain_numpy(states, 10))
    _, counts = np.unique(states, axis=0, return_counts=True)
    assert tied == counts[counts > 11].sum()


@pytest.mark.parametrize("num_rows", [1, 2, 3, 10, 11, 12])
def test_few_sentences_have_few_nearest_ones(seed: int, num_rows: int) -> None:
    for states in (draw(seed, num_rows), np.ones((num_rows, 4), np.float32)):
        nearest, _ = nearest_sentences(states, build(states, 15, "euclidean", 0), 10)
        np.testing.assert_array_equal(nearest, in_plain_numpy(states, 10))


def test_nearest_sentences_of_a_part_at_a_time_are_those_of_all(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    states = draw(seed, 30)[np.random.default_rng(seed).integers(0, 30, 100)]
    graph = build(states, 15, "euclidean", 0)
    whole, _ = nearest_sentences(states, graph, 10)
    monkeypatch.setattr(neighbours, "ROWS_TOGETHER", 7)
    assert nearest_sentences(states, graph, 10)[0].tolist() == whole.tolist()


def test_a_graph_is_known_again_where_the_sentences_compared_share_a_state(seed):
    rng = np.random.default_rng(seed)
    states = np.repeat(rng.normal(size=(1, 576)).astype(np.float32), 60, axis=0)
    states[[3, 5, 11]] = rng.normal(size=(3, 576))
    graph = build(states, 15, "euclidean", 0)
    assert neighbours.has_distances_of(graph, states)
    assert not neighbours.has_distances_of(graph, states * np.linspace(1, 2, 60, dtype=np.float32)[:, None])
