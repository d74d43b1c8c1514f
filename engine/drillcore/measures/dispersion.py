"""Within-class dispersion: the mean cosine distance between sentences of one label, raw and mean-centred.

Shape legend: U sentences, H dimensions, B permutations, C labels, G jackknife blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from drillcore.measures import METRICS
from drillcore.measures.draws import Draws, one_hot
from drillcore.measures.intervals import Bounds, plain_interval, skip
from drillcore.measures.layer import LayerStates
from drillcore.neighbours import ROUNDING

CHUNK_ROWS = 16_384


def dispersion(layer: LayerStates, draws: Draws) -> Bounds:
    """Mean over the labels of the mean cosine distance over pairs of their sentences; smaller is tighter.

    Exact, and linear in the number of sentences. A state that is zero (once centred: one at the mean) has no direction;
    its distance to every other sentence counts as 1.

    >>> from drillcore.job.stages import Measure
    >>> from drillcore.measures.draws import make_draws
    >>> labels = np.arange(40) % 2
    >>> noise = np.random.default_rng(0).normal(0, 0.1, (40, 2))
    >>> states, settings = np.float32(np.eye(2)[labels] + noise), Measure(permutations=99)
    >>> draws = make_draws(labels, None, settings, 40)
    >>> layer = LayerStates(states, settings, draws)
    >>> round(dispersion(layer, draws).value, 3), round(dispersion_centred(layer, draws).value, 3)
    (0.01, 0.021)
    """
    return _measure(layer.raw_UH, draws, centred=False)


def dispersion_centred(layer: LayerStates, draws: Draws) -> Bounds:
    """The dispersion after subtracting the mean of all sentences, so that a common direction hides nothing."""
    return _measure(layer.raw_UH, draws, centred=True)


@dataclass(frozen=True)
class _Directions:
    """Unit vectors less their mean, and that mean: where all point one way, float32 keeps digits of the rest only.

    directed_U: whether a state has a direction; its unit vector is zero where not.
    """

    units_UH: NDArray[np.float32]
    middle_H: NDArray[np.float64]
    directed_U: NDArray[np.bool_]


def _measure(states_UH: NDArray[np.float32], draws: Draws, *, centred: bool) -> Bounds:
    directions = _directions(states_UH, centred)
    name = "dispersion_centred" if centred else "dispersion"
    value = float(_dispersions(directions, draws.codes_U[None].astype(np.int16), draws.num_labels)[0])
    if np.isnan(value):
        return skip("no label has two sentences")
    without_G = _without_jackknife_blocks(directions, draws)
    low, high = plain_interval(value, without_G, METRICS[name].low, METRICS[name].high)
    null_B = draws.under_permutations(lambda codes_BU: _dispersions(directions, codes_BU, draws.num_labels))
    return Bounds(value, low, high, null_B)


def _directions(states_UH: NDArray[np.float32], centred: bool) -> _Directions:
    mean_H = states_UH.mean(axis=0, dtype=np.float64) if centred else np.zeros(states_UH.shape[1])
    size_H = np.abs(states_UH).max(axis=0)
    # Below this a difference from the mean is rounding, and so is its direction.
    rounding_H = ROUNDING * np.maximum(size_H, np.median(size_H)) if centred else np.zeros(len(size_H))
    units_UH = np.empty(states_UH.shape, np.float32)
    middle_H, directed_U = np.zeros(states_UH.shape[1]), np.empty(len(states_UH), np.bool_)
    for turn in ("sum", "subtract"):
        for start in range(0, len(states_UH), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            wide = states_UH[rows] - mean_H
            directed_U[rows] = (np.abs(wide) > rounding_H).any(axis=1)
            wide[~directed_U[rows]] = 0
            wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-30)
            if turn == "sum":
                middle_H += wide.sum(axis=0) / len(states_UH)
            else:
                units_UH[rows] = wide - middle_H
    return _Directions(units_UH, middle_H, directed_U)


def _dispersions(directions: _Directions, codes_BU: NDArray[np.int16], num_labels: int) -> NDArray[np.float64]:
    """Dispersion under each permutation [B]; NaN where no label has two sentences."""
    labels_UBC = one_hot(codes_BU, num_labels)
    counts_BC = labels_UBC.sum(axis=0, dtype=np.float64)
    directed_BC = labels_UBC[directions.directed_U].sum(axis=0, dtype=np.float64)
    sums_HBC = (directions.units_UH.T @ labels_UBC.reshape(len(labels_UBC), -1)).reshape(-1, *counts_BC.shape)
    return _mean_distance(sums_HBC.astype(np.float64), directions.middle_H, counts_BC, directed_BC)


def _mean_distance(
    sums_HBC: NDArray[np.float64],
    middle_H: NDArray[np.float64],
    counts_BC: NDArray[np.float64],
    directed_BC: NDArray[np.float64],
) -> NDArray[np.float64]:
    """1 - the mean cosine over pairs, from the length of the sum of the unit vectors of each label.

    counts_BC: sentences of each label; directed_BC: those whose state has a direction.
    """
    whole_BC = (
        (sums_HBC**2).sum(axis=0)
        + 2 * counts_BC * np.tensordot(middle_H, sums_HBC, 1)
        + counts_BC**2 * (middle_H @ middle_H)
    )
    pairs_BC = counts_BC * (counts_BC - 1)
    held_BC = counts_BC > 1
    distance_BC = np.where(held_BC, 1 - (whole_BC - directed_BC) / np.maximum(pairs_BC, 1), 0.0)
    number_B = held_BC.sum(axis=1)
    mean_B = np.clip(distance_BC.sum(axis=1) / np.maximum(number_B, 1), 0, 2)
    return np.asarray(np.where(number_B > 0, mean_B, np.nan))


def _without_jackknife_blocks(directions: _Directions, draws: Draws) -> NDArray[np.float64]:
    """Dispersion without each jackknife block [G]; sums are taken one label at a time, to bound memory."""
    units_UH = directions.units_UH
    num_blocks = int(draws.jackknife_U.max()) + 1
    total_G, number_G = np.zeros(num_blocks), np.zeros(num_blocks)
    for code in range(draws.num_labels):
        own_M = np.flatnonzero(draws.codes_U == code)
        blocks_M = draws.jackknife_U[own_M]
        chooser = csr_matrix((np.ones(len(own_M), np.float32), (blocks_M, own_M)), shape=(num_blocks, len(units_UH)))
        sums_GH = np.asarray(chooser @ units_UH, np.float64)
        left_G, directed_G = (
            kept_M.sum() - np.bincount(blocks_M, kept_M, num_blocks)
            for kept_M in (np.ones(len(own_M)), directions.directed_U[own_M].astype(np.float64))
        )
        left_HG1 = (sums_GH.sum(axis=0) - sums_GH).T[:, :, None]
        distance_G = _mean_distance(left_HG1, directions.middle_H, left_G[:, None], directed_G[:, None])
        held_G = ~np.isnan(distance_G)
        total_G[held_G] += distance_G[held_G]
        number_G += held_G
    return np.asarray(total_G[number_G > 0] / number_G[number_G > 0])
