"""k-NN purity: the share of a sentence's nearest neighbours that have its label.

Shape legend: N sentences of the dataset, U those whose labels count, K neighbours, B permutations, C labels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from drillcore.measures import NEIGHBORS
from drillcore.measures.draws import Draws, one_hot
from drillcore.measures.intervals import Bounds, share_interval, skip
from drillcore.measures.layer import LayerStates
from drillcore.measures.probe import balanced_without_jackknife_blocks, most_units
from drillcore.neighbours import Graph


def purity(layer: LayerStates, draws: Draws) -> Bounds:
    """Mean over the labels of the share of neighbours with the same label; by chance 1 / C.

    Neighbours of the sentence's own group and those without a label do not count; a sentence with none left is left
    out.

    >>> from drillcore.job.stages import Measure
    >>> from drillcore.measures.draws import make_draws
    >>> labels = np.arange(40) % 2
    >>> noise = np.random.default_rng(0).normal(0, 0.4, (40, 2))
    >>> states, settings = np.float32(np.eye(2)[labels] + noise), Measure(permutations=99)
    >>> draws = make_draws(labels, None, settings, 40)
    >>> round(purity(LayerStates(states, settings, draws), draws).value, 2)
    0.89
    """
    neighbours_UU = _neighbours(layer.graph, draws)
    number_U = np.asarray(neighbours_UU.sum(axis=1), np.float64).ravel()
    counted_U = number_U > 0
    alone = [c for c in range(draws.num_labels) if not counted_U[draws.codes_U == c].any()]
    if alone:
        number = int((draws.codes_U == alone[0]).sum())
        return skip(
            f"no nearest neighbour outside its group for any of the {number:,} sentences of {draws.labels[alone[0]]}"
        )
    own_U = _shares(neighbours_UU, number_U, one_hot(draws.codes_U[None], draws.num_labels))[:, 0]
    value = float(_balanced(neighbours_UU, number_U, draws.codes_U[None], draws.num_labels)[0])
    without_G = balanced_without_jackknife_blocks(
        own_U[counted_U], draws.codes_U[counted_U], draws.jackknife_U[counted_U], draws.num_labels
    )
    low, high = share_interval(value, without_G, most_units(draws), one_each=False)
    null_B = draws.under_permutations(
        lambda codes_BU: _balanced(neighbours_UU, number_U, codes_BU, draws.num_labels),
    )
    return Bounds(value, low, high, null_B)


def _neighbours(graph: Graph, draws: Draws) -> csr_matrix:
    """1 at each neighbour that counts, [U, U]."""
    place_N = np.full(len(graph.indices_NK), -1)
    place_N[draws.rows_U] = np.arange(len(draws.rows_U))
    neighbours_UK = place_N[graph.indices_NK[draws.rows_U, 1:NEIGHBORS]]
    counts_UK = (neighbours_UK >= 0) & (draws.group_U[neighbours_UK] != draws.group_U[:, None])
    number_U = counts_UK.sum(axis=1)
    starts = np.concatenate([[0], np.cumsum(number_U)])
    ones = np.ones(starts[-1], np.float32)
    return csr_matrix((ones, neighbours_UK[counts_UK], starts), shape=(len(number_U),) * 2)


def _shares(
    neighbours_UU: csr_matrix, number_U: NDArray[np.float64], labels_UBC: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Share of each sentence's neighbours that have its label under each permutation [U, B].

    Counted before it is divided, so that all of them are a share of exactly 1.
    """
    counts_UK = neighbours_UU @ labels_UBC.reshape(len(labels_UBC), -1)
    own_UB = np.einsum("ubc,ubc->ub", counts_UK.reshape(labels_UBC.shape), labels_UBC)
    return np.asarray(own_UB / np.maximum(number_U, 1)[:, None])


def _balanced(
    neighbours_UU: csr_matrix, number_U: NDArray[np.float64], codes_BU: NDArray[np.integer], num_labels: int
) -> NDArray[np.float64]:
    """Purity under each permutation [B]."""
    labels_UBC = one_hot(codes_BU, num_labels)
    share_UB = _shares(neighbours_UU, number_U, labels_UBC)
    own_BC = np.einsum("ub,ubc->bc", share_UB, labels_UBC, dtype=np.float64)
    counts_BC = labels_UBC[number_U > 0].sum(axis=0, dtype=np.float64)
    return np.asarray((own_BC / np.maximum(counts_BC, 1)).sum(axis=1) / (counts_BC > 0).sum(axis=1))
