"""A cross-validated linear probe for labels that are numbers: ridge regression, and its R² on what it has not seen.

All permutations of the numbers share a fold's eigenvectors. Shape legend: U sentences, T tested ones, H dimensions,
R rows of a chunk, B permutations, G jackknife blocks.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from drillcore.measures.draws import Draws
from drillcore.measures.intervals import Bounds, plain_interval, skip
from drillcore.measures.layer import LayerStates
from drillcore.measures.numbers import Permutations
from drillcore.measures.probe import Folds, of_tested, without_scatter
from drillcore.measures.ridge import train_numbers


def r2(layer: LayerStates, draws: Draws) -> Bounds:
    """R² of the labels as ridge regression on the standardised states predicts them: out of fold, or on the test rows.

    1 - SSE / SST over all tested sentences, SST around their own mean; 0 or less where nothing is learned.

    >>> from drillcore.job.stages import Measure
    >>> from drillcore.measures.numbers import number_draws
    >>> states = np.float32(np.random.default_rng(0).normal(size=(60, 3)))
    >>> draws = number_draws(states[:, 0] / 2 + states[:, 1], None, Measure(permutations=99))
    >>> bounds = r2(LayerStates(states, Measure(), draws), draws)
    >>> round(bounds.value, 2), bounds.null_B.shape
    (1.0, (99,))
    """
    reason = without_scatter(layer.raw_UH, draws)
    return skip(reason) if reason else Regression(layer.learned_from_UH, draws).measure()


class Regression(Folds):
    """Ridge regression on any features that have scatter, as `Folds` takes them."""

    def measure(self) -> Bounds:
        """R² over all tested sentences, with its interval and null."""
        draws, values_U = self._draws, _scaled(self._draws)
        predicted_T = self.predicted(values_U[None])[0]
        null_B = Permutations(draws, values_U).null(
            lambda y_BU: explained(self.predicted(y_BU), of_tested(y_BU, draws))
        )
        tested_T = of_tested(values_U[None], draws)[0]
        value = float(explained(predicted_T[None], tested_T[None])[0])
        without_G = _without_jackknife_blocks(predicted_T, tested_T, draws.tested.jackknife_U)
        low, high = plain_interval(value, without_G, -math.inf, 1.0)
        return Bounds(value, low, high, null_B)

    def predicted(self, values_BU: NDArray[np.floating]) -> NDArray[np.float32]:
        """What is predicted for each tested sentence [B, T] by the regression that has not seen its fold."""
        wide_BU = values_BU.astype(np.float64)
        values_UB1 = values_BU.astype(np.float32).T[:, :, None]
        sums_FHB = [self._features.label_sums(rows_R, values_UB1) for rows_R in self._parts]
        total_HB = sum(sums_FHB)
        sums_B, squares_B = wide_BU.sum(axis=1), (wide_BU**2).sum(axis=1)
        predicted_BU = np.empty(values_BU.shape, np.float32)
        for k, fold in self._folds.items():
            own_BR = wide_BU[:, fold.rows_R]
            sum_B, square_B = sums_B - own_BR.sum(axis=1), squares_B - (own_BR**2).sum(axis=1)
            weights_HB, offsets_B = train_numbers(fold, total_HB - sums_FHB[k], sum_B, square_B)
            for rows_R, states_RH in self._features.chunks(fold.rows_R):
                predicted_BU[:, rows_R] = (states_RH @ weights_HB.astype(np.float32) + offsets_B).T
        return of_tested(predicted_BU, self._draws)


def _scaled(draws: Draws) -> NDArray[np.float64]:
    """The numbers with mean 0 and deviation 1, which changes no R², as float32 would lose those far from 0."""
    values_U = np.zeros(0) if draws.values_U is None else draws.values_U
    # Divided first: the largest numbers have no square.
    values_U = values_U / np.abs(values_U).max(initial=1e-300)
    moved_U = values_U - values_U.mean()
    return np.asarray(moved_U / moved_U.std())


def explained(predicted_BT: NDArray[np.floating], values_BT: NDArray[np.floating]) -> NDArray[np.float64]:
    """R² [B] of predictions, around the mean of the values; NaN where these are all the same.

    >>> explained(np.array([[1.0, 2.0, 2.0]]), np.array([[1.0, 2.0, 3.0]])).tolist()
    [0.5]
    """
    wide_BT = values_BT.astype(np.float64)
    error_B = ((wide_BT - predicted_BT) ** 2).sum(axis=1)
    total_B = ((wide_BT - wide_BT.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(total_B > 0, 1 - error_B / total_B, np.nan))


def _without_jackknife_blocks(
    predicted_T: NDArray[np.floating], values_T: NDArray[np.floating], jackknife_T: NDArray[np.int64]
) -> NDArray[np.float64]:
    """R² without each jackknife block [G] that leaves different values."""
    sums_G4 = np.stack(
        [
            np.bincount(jackknife_T, weights)
            for weights in (np.ones(len(values_T)), values_T, values_T**2, (values_T - predicted_T) ** 2)
        ],
        axis=1,
    )
    count_G, sum_G, square_G, error_G = (sums_G4.sum(axis=0) - sums_G4).T
    with np.errstate(divide="ignore", invalid="ignore"):
        total_G = square_G - sum_G**2 / count_G
        without_G = 1 - error_G / total_G
    return np.asarray(without_G[(count_G > 1) & (total_G > 1e-12 * square_G)])
