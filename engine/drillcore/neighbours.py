"""The k-nearest-neighbour graph of a layer, shared by UMAP, the k-NN measures and the export.

Shape legend: N sentences, H hidden size, K neighbours (the sentence itself is the first), U distinct states, J nearest
sentences (without the sentence itself).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from drillcore.errors import RunError

Metric = Literal["euclidean", "cosine"]
Backend = Literal["auto", "exact", "pynndescent", "cuml"]
# Up to here all distances are computed, in less time than pynndescent takes to compile (30 s a process); beyond, the
# search is approximate (recall about 0.96).
EXACT_UP_TO = 8192
# pynndescent searches with at least this many neighbours: with fewer its recall falls.
LEAST_SEARCHED = 15
# Sentences whose distances are computed again when a graph is read.
NUM_COMPARED = 8
# Sentences whose nearest ones are put in order at a time.
ROWS_TOGETHER = 65_536
# Of a float32 state, relative to its size.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Graph:
    """Nearest neighbours of every sentence.

    indices_NK: int32; column 0 is the sentence itself, then the others, nearest first. distances_NK: float32, in
    `metric`. backend: library and version that searched.
    """

    indices_NK: NDArray[np.int32]
    distances_NK: NDArray[np.float32]
    metric: str
    backend: str

    def first(self, num_neighbors: int) -> Graph:
        """The same graph with the first `num_neighbors` columns; raises RunError where it has fewer.

        >>> graph = build(np.float32([[0], [1], [3]]), 3, "euclidean", 0)
        >>> graph.first(2).indices_NK.tolist()
        [[0, 1], [1, 0], [2, 1]]
        """
        if num_neighbors > self.indices_NK.shape[1]:
            raise RunError(f"the k-NN graph has {self.indices_NK.shape[1]} columns, {num_neighbors} are needed")
        return Graph(
            self.indices_NK[:, :num_neighbors], self.distances_NK[:, :num_neighbors], self.metric, self.backend
        )


def build(
    states_NH: NDArray[np.float32], num_neighbors: int, metric: Metric, seed: int, backend: Backend = "auto"
) -> Graph:
    """Build the graph of one layer; `num_neighbors` counts the sentence itself and is at most N.

    auto: all distances up to 8,192 sentences (scikit-learn), pynndescent (Dong, Moses and Li, 2011) with `seed` and one
    thread beyond: equal bits on every run. cuml is exact, on the GPU.

    >>> build(np.array([[0, 0], [5, 0], [1, 0]], np.float32), 2, "euclidean", 0).indices_NK.tolist()
    [[0, 2], [1, 2], [2, 0]]
    """
    wanted = min(num_neighbors, len(states_NH))
    if backend == "auto":
        backend = "exact" if len(states_NH) <= EXACT_UP_TO or wanted < 2 else "pynndescent"
    states_NH = _centred(states_NH) if metric == "euclidean" else np.ascontiguousarray(states_NH, np.float32)
    if wanted < 2:
        return _with_self(np.empty((len(states_NH), 0)), np.empty((len(states_NH), 0)), wanted, metric, "none")
    if backend == "exact":
        return _exact(states_NH, wanted, metric)
    if backend == "cuml":
        return _cuml(states_NH, wanted, metric)
    return _descent(states_NH, wanted, metric, seed)


def has_distances_of(graph: Graph, states_NH: NDArray[np.float32]) -> bool:
    """Whether a graph may be that of these states: the distances of a few sentences are computed again.

    >>> states_NH = np.float32([[0], [1], [3]])
    >>> graph = build(states_NH, 2, "euclidean", 0)
    >>> has_distances_of(graph, states_NH), has_distances_of(graph, states_NH * 2)
    (True, False)
    """
    num_sentences, indices_NK = len(states_NH), graph.indices_NK
    if len(indices_NK) != num_sentences or indices_NK.shape != graph.distances_NK.shape:
        return False
    if not indices_NK.size:
        return True
    if indices_NK.min() < 0 or indices_NK.max() >= num_sentences:
        return False
    rows_M = np.unique(np.linspace(0, num_sentences - 1, min(num_sentences, NUM_COMPARED)).astype(np.intp))
    states_MH = states_NH[rows_M].astype(np.float64)
    states_MKH, centre_H = states_NH[indices_NK[rows_M]].astype(np.float64), states_MH.mean(axis=0)
    if graph.metric == "cosine":
        sizes_MK = np.linalg.norm(states_MH, axis=1)[:, None] * np.linalg.norm(states_MKH, axis=2)
        products_MK = np.einsum("mh,mkh->mk", states_MH, states_MKH)
        distances_MK, size = 1 - products_MK / np.maximum(sizes_MK, np.finfo(np.float64).tiny), 1.0
    else:
        distances_MK = np.linalg.norm(states_MKH - states_MH[:, None], axis=2)
        size = float(np.linalg.norm(states_MKH - centre_H, axis=2).max())
    # Between equal states no spread says how far rounding goes.
    least = ROUNDING * float(np.linalg.norm(states_MH, axis=1).max())
    return bool(np.allclose(graph.distances_NK[rows_M], distances_MK, rtol=1e-3, atol=2e-3 * size + least))


def distinct(states_NH: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row of the first of each distinct state, in order [U], and the place of every sentence among them [N].

    >>> first_U, place_N = distinct(np.array([[1], [2], [1]], np.float32))
    >>> first_U.tolist(), place_N.tolist()
    ([0, 1], [0, 1, 0])
    """
    rows_N = np.ascontiguousarray(states_NH).view(np.dtype((np.void, states_NH.dtype.itemsize * states_NH.shape[1])))
    _, first_U, inverse_N = np.unique(rows_N.ravel(), return_index=True, return_inverse=True)
    order_U = np.argsort(first_U)
    place_U = np.empty_like(order_U)
    place_U[order_U] = np.arange(len(order_U))
    return first_U[order_U], place_U[inverse_N]


def nearest_sentences(states_NH: NDArray[np.float32], graph: Graph, num_nearest: int) -> tuple[NDArray[np.int32], int]:
    """The nearest sentences of every sentence, nearest first, and the number of those that a tie has chosen for.

    graph: that of these states, with more than `num_nearest` columns, or one for each sentence. Returns int32 [N, J],
    -1 where there is no further sentence. Sentences of the same state follow each other by their numbers: one that
    shares its state with more than J others has the first of them.

    >>> states_NH = np.float32([[0], [7], [0], [0], [9]])
    >>> nearest_NJ, num_tied = nearest_sentences(states_NH, build(states_NH, 3, "euclidean", 0), 2)
    >>> nearest_NJ.tolist(), num_tied
    ([[2, 3], [4, 0], [0, 3], [0, 2], [1, 0]], 0)
    """
    num_sentences = len(states_NH)
    graph = graph.first(min(num_nearest + 1, graph.indices_NK.shape[1]))
    nearest_NJ = np.full((num_sentences, num_nearest), -1, np.int32)
    nearest_NJ[:, : graph.indices_NK.shape[1] - 1] = graph.indices_NK[:, 1:]
    first_U, place_N = distinct(states_NH)
    if len(first_U) == num_sentences:
        return nearest_NJ, 0
    # Sentences of each distinct state, in the order of their numbers.
    members_N, size_U = np.argsort(place_N, kind="stable"), np.bincount(place_N)
    start_U = np.cumsum(size_U) - size_U
    rank_N = np.empty_like(members_N)
    rank_N[members_N] = np.arange(num_sentences) - start_U[place_N[members_N]]
    for start in range(0, num_sentences, ROWS_TOGETHER):
        rows_M = np.arange(start, min(start + ROWS_TOGETHER, num_sentences))
        places_MK = place_N[graph.indices_NK[rows_M]]
        is_new_MK = np.stack(
            [(places_MK[:, :k] != places_MK[:, k, None]).all(axis=1) for k in range(places_MK.shape[1])], axis=1
        )
        count_MK = np.where(is_new_MK, size_U[places_MK], 0)
        count_MK[:, 0] -= 1  # the sentence itself
        end_MK = np.cumsum(count_MK, axis=1)
        for j in range(min(num_nearest, num_sentences - 1)):
            k_M1 = (end_MK > j).argmax(axis=1)[:, None]
            at_M = j - (np.take_along_axis(end_MK - count_MK, k_M1, axis=1))[:, 0]
            at_M += (k_M1[:, 0] == 0) & (at_M >= rank_N[rows_M])
            found_M = members_N[start_U[np.take_along_axis(places_MK, k_M1, axis=1)[:, 0]] + at_M]
            nearest_NJ[rows_M, j] = found_M
    return nearest_NJ, int((size_U[place_N] > num_nearest + 1).sum())


def without_variance(states_NH: NDArray[np.float32]) -> bool:
    """Whether all rows are the same, up to rounding: a projection would draw a plausible random cloud.

    Each dimension is compared with its own size, since a few massive ones would hide the others.

    >>> without_variance(np.float32([[1, 500], [1, 500]])), without_variance(np.float32([[1, 500], [2, 500]]))
    (True, False)
    """
    if len(states_NH) < 2:
        return True
    return same_but_for_rounding(states_NH.min(axis=0), states_NH.max(axis=0))


def same_but_for_rounding(low_H: NDArray[Any], high_H: NDArray[Any]) -> bool:
    """Whether states between these ends of each dimension are the same, up to rounding."""
    size_H = np.maximum(np.abs(low_H), np.abs(high_H))
    return bool(np.all(high_H - low_H <= ROUNDING * np.maximum(size_H, np.median(size_H))))


def _centred(states_NH: NDArray[np.float32]) -> NDArray[np.float32]:
    # Euclidean distances do not change, and large common offsets would cost float32 its digits.
    return np.ascontiguousarray(states_NH - states_NH.mean(axis=0, dtype=np.float64), dtype=np.float32)


def _exact(states_NH: NDArray[np.float32], wanted: int, metric: Metric) -> Graph:
    import sklearn
    from sklearn.neighbors import NearestNeighbors

    searcher = NearestNeighbors(n_neighbors=wanted - 1, algorithm="brute", metric=metric).fit(states_NH)
    distances_NK, indices_NK = searcher.kneighbors()  # without an argument: each sentence but itself
    return _with_self(indices_NK, distances_NK, wanted, metric, f"scikit-learn {sklearn.__version__}, exact")


def _cuml(states_NH: NDArray[np.float32], wanted: int, metric: Metric) -> Graph:
    import cuml
    from cuml.neighbors import NearestNeighbors

    searcher = NearestNeighbors(n_neighbors=wanted, algorithm="brute", metric=metric, output_type="numpy")
    distances_NK, indices_NK = searcher.fit(states_NH).kneighbors(states_NH)
    return _with_self(indices_NK, distances_NK, wanted, metric, f"cuML {cuml.__version__}, exact")


def _descent(states_NH: NDArray[np.float32], wanted: int, metric: Metric, seed: int) -> Graph:
    import numba
    import pynndescent

    threads = numba.get_num_threads()
    try:
        with warnings.catch_warnings():
            # Rows that it could not fill are searched exactly below.
            warnings.filterwarnings("ignore", message="Failed to correctly find n_neighbors for some samples")
            searched = pynndescent.NNDescent(
                states_NH,
                metric=metric,
                n_neighbors=min(max(wanted, LEAST_SEARCHED), len(states_NH)),
                random_state=seed,
                n_jobs=1,  # the result depends on the number of threads
            ).neighbor_graph
    finally:
        numba.set_num_threads(threads)
    indices_NK, distances_NK = np.array(searched[0]), np.array(searched[1])
    missing_M = np.flatnonzero((indices_NK < 0).any(axis=1) | ~np.isfinite(distances_NK).all(axis=1))
    if len(missing_M):
        _search_exactly(states_NH, missing_M, metric, indices_NK, distances_NK)
    return _with_self(indices_NK, distances_NK, wanted, metric, f"pynndescent {pynndescent.__version__}")


def _search_exactly(
    states_NH: NDArray[np.float32],
    missing_M: NDArray[np.intp],
    metric: Metric,
    indices_NK: NDArray[Any],
    distances_NK: NDArray[Any],
) -> None:
    """Fill the rows that an approximate search could not fill."""
    from sklearn.neighbors import NearestNeighbors

    searcher = NearestNeighbors(n_neighbors=indices_NK.shape[1], algorithm="brute", metric=metric).fit(states_NH)
    distances_NK[missing_M], indices_NK[missing_M] = searcher.kneighbors(states_NH[missing_M])


def _with_self(indices_NK: NDArray[Any], distances_NK: NDArray[Any], wanted: int, metric: str, backend: str) -> Graph:
    """Put each sentence into its own first column: among duplicates a search may find it late, or not at all."""
    own_N1 = np.arange(len(indices_NK))[:, None]
    order_NK = np.argsort(indices_NK == own_N1, axis=1, kind="stable")[:, : wanted - 1]
    others_NK = np.take_along_axis(indices_NK, order_NK, axis=1)
    distances_NK = np.take_along_axis(distances_NK, order_NK, axis=1)
    zeros_N1 = np.zeros((len(own_N1), 1))
    return Graph(
        np.concatenate([own_N1, others_NK], axis=1).astype(np.int32),
        np.concatenate([zeros_N1, np.maximum(distances_NK, 0)], axis=1).astype(np.float32),
        metric,
        backend,
    )
