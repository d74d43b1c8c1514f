"""The probe of a layer as others can use it: weights and offsets for states as they are stored.

Shape legend: N sentences, U those whose labels count, H hidden size, C labels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drillcore.job.stages import Measure
from drillcore.measures.draws import Draws
from drillcore.measures.layer import moments
from drillcore.measures.ridge import fitted, fitted_numbers
from drillcore.neighbours import without_variance


def fitted_probe(
    states_NH: NDArray[np.float32], settings: Measure, draws: Draws
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights [C, H] and offsets [C]: `states @ weights.T + offsets` is largest at the label that the probe gives.

    Where the labels are numbers C is 1, and the one score is the number that it predicts. Learned from the train rows,
    or from all sentences whose labels count where there is no split; the standardisation is folded in. NaN where the
    sentences have no scatter.

    >>> from drillcore.measures.draws import make_draws
    >>> labels = np.arange(40) % 2
    >>> states = np.float32(np.eye(2)[labels] * 3 + np.random.default_rng(0).normal(size=(40, 2)) / 9)
    >>> weights, offsets = fitted_probe(states, Measure(), make_draws(labels, None, Measure(), 40))
    >>> bool(((states @ weights.T + offsets).argmax(axis=1) == labels).all())
    True
    """
    learns_U = slice(None) if draws.is_test_U is None else ~draws.is_test_U
    learned_UH = states_NH[draws.rows_U[learns_U]]
    if without_variance(learned_UH):
        num_scores = draws.num_labels if draws.values_U is None else 1
        nothing = np.full((num_scores, states_NH.shape[1]), np.nan, np.float32)
        return nothing, nothing[:, 0].copy()
    # As they are measured: without a split over all sentences that have a label.
    centre_H, spread_H = moments(states_NH if draws.is_test_U is None else learned_UH, settings.standardise)
    moved_UH = (learned_UH - centre_H) / spread_H
    if draws.values_U is None:
        weights_CH, offsets_C = fitted(moved_UH, draws.codes_U[learns_U], draws.num_labels)
    else:
        weights_CH, offsets_C = fitted_numbers(moved_UH, draws.values_U[learns_U])
    weights_CH = weights_CH / spread_H
    offsets_C = offsets_C - weights_CH @ centre_H.astype(np.float64)
    return weights_CH.astype(np.float32), offsets_C.astype(np.float32)
