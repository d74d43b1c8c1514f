"""The silhouette (Rousseeuw, 1987) of the labels, on a sample, since it needs all distances.

Shape legend: S sampled sentences, R rows of a chunk, H dimensions, B permutations, C labels, G jackknife blocks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drillcore.measures import METRICS
from drillcore.measures.draws import Draws, one_hot
from drillcore.measures.intervals import Bounds, plain_interval, skip
from drillcore.measures.layer import LayerStates

CHUNK_ROWS = 1024


def silhouette(layer: LayerStates, draws: Draws) -> Bounds:
    """Mean silhouette in Euclidean distance of the sampled sentences, as scikit-learn defines it.

    A sentence alone with its label in the sample scores 0, and so does one whose label is the only one there.

    >>> from drillcore.job.stages import Measure
    >>> from drillcore.measures.draws import make_draws
    >>> labels = np.arange(40) % 2
    >>> noise = np.random.default_rng(0).normal(0, 0.1, (40, 2))
    >>> states, settings = np.float32(np.eye(2)[labels] + noise), Measure(permutations=99)
    >>> draws = make_draws(labels, None, settings, 40)
    >>> bounds = silhouette(LayerStates(states, settings, draws), draws)
    >>> round(bounds.value, 2), round(bounds.low, 2), round(bounds.high, 2)
    (0.88, 0.85, 0.9)
    """
    codes_S, jackknife_S = draws.codes_U[draws.sample_S], draws.jackknife_U[draws.sample_S]
    if len(np.unique(codes_S)) < 2 or len(codes_S) == len(np.unique(codes_S)):
        held = len(np.unique(codes_S))
        return skip(f"the sample of {len(codes_S):,} sentences holds {held:,} of {draws.num_labels:,} labels")
    distances_SS = _distances(layer.standardised_UH[draws.sample_S])
    scores_S = _scores(distances_SS, codes_S[None].astype(np.int16), draws.num_labels)[0]
    value = float(scores_S.mean())
    limits = METRICS["silhouette"]
    without_G = _without_jackknife_blocks(distances_SS, codes_S, jackknife_S, draws.num_labels)
    low, high = plain_interval(value, without_G, limits.low, limits.high)
    null_B = draws.under_permutations(
        lambda codes_BU: _scores(distances_SS, codes_BU[:, draws.sample_S], draws.num_labels).mean(axis=1)
    )
    return Bounds(value, low, high, null_B)


def _distances(states_SH: NDArray[np.float32]) -> NDArray[np.float32]:
    """All distances, a chunk of rows at a time; exactly 0 on the diagonal."""
    states_SH = (states_SH - states_SH.mean(axis=0, dtype=np.float64)).astype(np.float32)
    squares_S = np.einsum("sh,sh->s", states_SH, states_SH)
    distances_SS = np.empty((len(states_SH),) * 2, np.float32)
    for start in range(0, len(states_SH), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        products_RS = states_SH[rows] @ states_SH.T
        products_RS *= -2
        products_RS += squares_S[rows, None]
        products_RS += squares_S
        np.sqrt(np.maximum(products_RS, 0, out=products_RS), out=distances_SS[rows])
    np.fill_diagonal(distances_SS, 0)
    return distances_SS


def _scores(distances_SS: NDArray[np.float32], codes_BS: NDArray[np.int16], num_labels: int) -> NDArray[np.float64]:
    """Silhouette of each sentence under each permutation [B, S]."""
    labels_SBC = one_hot(codes_BS, num_labels)
    sums_SBC = (distances_SS @ labels_SBC.reshape(len(labels_SBC), -1)).reshape(labels_SBC.shape)
    return _from_sums(sums_SBC, labels_SBC.sum(axis=0), codes_BS)


def _from_sums(
    sums_SBC: NDArray[np.float32], counts_BC: NDArray[np.float32], codes_BS: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Silhouettes [B, S] from the sum of each sentence's distances to each label's sentences."""
    own_SB1 = codes_BS.T[:, :, None].astype(np.int64)
    size_SB = np.take_along_axis(np.broadcast_to(counts_BC, sums_SBC.shape), own_SB1, axis=2)[:, :, 0]
    inside_SB = np.take_along_axis(sums_SBC, own_SB1, axis=2)[:, :, 0] / np.maximum(size_SB - 1, 1)
    means_SBC = sums_SBC / np.maximum(counts_BC, 1)
    means_SBC[:, counts_BC == 0] = np.inf
    np.put_along_axis(means_SBC, own_SB1, np.inf, axis=2)
    outside_SB = means_SBC.min(axis=2)
    larger_SB = np.maximum(inside_SB, outside_SB)
    # Under a permutation all sampled sentences may have one label: there is no other one to be far from.
    known_SB = (size_SB > 1) & (larger_SB > 0) & np.isfinite(outside_SB)
    scores_SB = np.zeros_like(larger_SB)
    np.divide(outside_SB - inside_SB, larger_SB, out=scores_SB, where=known_SB)
    return np.asarray(scores_SB.T, np.float64)


def _without_jackknife_blocks(
    distances_SS: NDArray[np.float32], codes_S: NDArray[np.int64], jackknife_S: NDArray[np.int64], num_labels: int
) -> NDArray[np.float64]:
    """Mean silhouette without each jackknife block [G]: the distances to its sentences go, not their scores alone."""
    labels_SC = one_hot(codes_S[None], num_labels)[:, 0]
    sums_SC, counts_C = distances_SS @ labels_SC, labels_SC.sum(axis=0)
    means = []
    for block in np.unique(jackknife_S):
        gone_M, left_M = np.flatnonzero(jackknife_S == block), np.flatnonzero(jackknife_S != block)
        less_SC = sums_SC - distances_SS[:, gone_M] @ labels_SC[gone_M]
        counts_1C = (counts_C - labels_SC[gone_M].sum(axis=0))[None]
        if (counts_1C > 0).sum() > 1:
            means.append(_from_sums(less_SC[left_M, None], counts_1C, codes_S[None, left_M]).mean())
    return np.array(means)
