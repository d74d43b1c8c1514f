"""A cross-validated linear probe: ridge regression onto the labels, thresholds for equally likely labels.

All label permutations share a fold's Gram matrix and its eigenvectors, since labels enter linearly.
Shape legend: U sentences, H dimensions, R rows of a chunk, B permutations, C labels, F folds, P penalties.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.measures.draws import Draws, one_hot
from drillcore.measures.intervals import Bounds, share_interval, skip
from drillcore.measures.layer import LayerStates
from drillcore.measures.ridge import Features, train, without_fold
from drillcore.neighbours import same_but_for_rounding


def probe(layer: LayerStates, draws: Draws) -> Bounds:
    """Balanced accuracy of the probe on the standardised states, cross-validated or on the test rows of a split.

    1 / C by chance.

    >>> from drillcore.job.stages import Measure
    >>> from drillcore.measures.draws import make_draws
    >>> labels = np.arange(40) % 2
    >>> noise = np.random.default_rng(0).normal(0, 0.1, (40, 2))
    >>> states, settings = np.float32(np.eye(2)[labels] + noise), Measure(permutations=99)
    >>> draws = make_draws(labels, None, settings, 40)
    >>> bounds = probe(LayerStates(states, settings, draws), draws)
    >>> bounds.value, round(bounds.low, 2), bounds.null_B.shape
    (1.0, 0.91, (99,))
    """
    if "held_out" in layer.shared:
        held_out: dict[str, Bounds] = layer.shared["held_out"]
        return held_out["probe"]
    # Of the raw states: the centre of all sentences says nothing of a difference's size.
    reason = without_scatter(layer.raw_UH, draws)
    return skip(reason) if reason else Probe(layer.learned_from_UH, draws).measure()


def without_scatter(states_UH: Any, draws: Draws) -> str:
    """Why the probe cannot learn: the folds that it would train on all hold one state; empty where none does.

    states_UH: float32 array, or a SciPy sparse matrix.

    >>> from drillcore.job.stages import Measure
    >>> from drillcore.measures.draws import make_draws
    >>> states = np.ones((20, 2), np.float32)
    >>> states[3] = 7
    >>> without_scatter(states, make_draws(["a", "b"] * 10, None, Measure(), 20))
    'training without fold 3 of 5 has no scatter: its 16 sentences have the same state'
    """
    folds = np.unique(draws.fold_U)
    ends = [_ends(states_UH[np.flatnonzero(draws.fold_U == f)]) for f in folds]
    for k in draws.tested_folds:
        low_H = np.min([low for j, (low, _) in enumerate(ends) if j != k], axis=0)
        high_H = np.max([high for j, (_, high) in enumerate(ends) if j != k], axis=0)
        if same_but_for_rounding(low_H, high_H):
            number = int((draws.fold_U != folds[k]).sum())
            without = f"without fold {k + 1} of {len(folds)}" if draws.is_test_U is None else "on the train rows"
            return f"training {without} has no scatter: its {number:,} sentences have the same state"
    return ""


def _ends(states_RH: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Smallest and largest value of each dimension [H]."""
    low, high = states_RH.min(axis=0), states_RH.max(axis=0)
    return (low, high) if isinstance(low, np.ndarray) else (low.toarray().ravel(), high.toarray().ravel())


class Folds:
    """Features that have scatter, and what training without each tested fold needs.

    states: [U, H] float32 array, or a SciPy sparse matrix.
    """

    def __init__(self, states: Any, draws: Draws) -> None:
        self._features, self._draws = Features(states), draws
        parts = [np.flatnonzero(draws.fold_U == f) for f in np.unique(draws.fold_U)]
        grams, sums = zip(*(self._features.moments(rows) for rows in parts), strict=True)
        gram_HH = sum(grams)
        sum_H = sum(sums)
        num_rows = len(draws.fold_U)
        self._parts = parts
        self._folds = {
            k: without_fold(parts[k], gram_HH - grams[k], sum_H - sums[k], num_rows - len(parts[k]))
            for k in draws.tested_folds
        }


class Probe(Folds):
    """The probe on any features that have scatter."""

    def measure(self) -> Bounds:
        """Balanced accuracy over all tested sentences, with its interval and null."""
        draws, tested = self._draws, self._draws.tested
        decided_T = self.decided(draws.codes_U[None].astype(np.int16))[0]
        null_B = draws.under_permutations(lambda codes_BU: self._balanced(self.right(codes_BU), codes_BU))
        return balanced_bounds(decided_T, tested, null_B)

    def _balanced(self, right_BT: NDArray[np.bool_], codes_BU: NDArray[np.int16]) -> NDArray[np.float64]:
        return balanced(right_BT, of_tested(codes_BU, self._draws), self._draws.num_labels)

    def right(self, codes_BU: NDArray[np.int16]) -> NDArray[np.bool_]:
        """Whether the probe trained without its fold gives each tested sentence its label [B, T]."""
        return np.asarray(self.decided(codes_BU) == of_tested(codes_BU, self._draws))

    def decided(self, codes_BU: NDArray[np.int16]) -> NDArray[np.int16]:
        """The label that the probe trained without its fold gives each tested sentence [B, T].

        Of a split one fold is tested, and the others are left out of what is returned.
        """
        decided_BU = np.empty(codes_BU.shape, np.int16)
        for rows_R, scores_RBC in self._scores(codes_BU):
            decided_BU[:, rows_R] = scores_RBC.argmax(axis=2).T
        return of_tested(decided_BU, self._draws)

    def margins(self, codes_BU: NDArray[np.int16]) -> NDArray[np.float32]:
        """By how much the score of the second of two labels exceeds the first's, of each tested sentence [B, T]."""
        margin_BU = np.empty(codes_BU.shape, np.float32)
        for rows_R, scores_RBC in self._scores(codes_BU):
            margin_BU[:, rows_R] = (scores_RBC[:, :, 1] - scores_RBC[:, :, 0]).T
        return of_tested(margin_BU, self._draws)

    def _scores(self, codes_BU: NDArray[np.int16]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Rows of each tested fold, and the scores [R, B, C] of the probe trained without it."""
        labels_UBC = one_hot(codes_BU, self._draws.num_labels)
        sums_FHK = [self._features.label_sums(rows_R, labels_UBC) for rows_R in self._parts]
        total_HK = sum(sums_FHK)
        counts_BC = labels_UBC.sum(axis=0, dtype=np.float64)
        for k, fold in self._folds.items():
            train_BC = counts_BC - labels_UBC[fold.rows_R].sum(axis=0, dtype=np.float64)
            weights_HBC, offsets_BC = train(fold, total_HK - sums_FHK[k], train_BC)
            shape = (len(weights_HBC), -1)
            for rows_R, states_RH in self._features.chunks(fold.rows_R):
                yield rows_R, (states_RH @ weights_HBC.reshape(shape)).reshape(-1, *train_BC.shape) + offsets_BC


def of_tested(values_BU: NDArray[Any], draws: Draws) -> NDArray[Any]:
    """The columns of the sentences that a probe is tested on; all of them where there is no split."""
    return values_BU if draws.is_test_U is None else values_BU[:, draws.is_test_U]


def balanced_bounds(decided_U: NDArray[np.int16], draws: Draws, null_B: NDArray[np.float64]) -> Bounds:
    """Balanced accuracy with its interval, from the label that each sentence was given."""
    right_U = decided_U == draws.codes_U
    value = balanced(right_U[None], draws.codes_U[None], draws.num_labels)[0]
    without_G = balanced_without_jackknife_blocks(right_U, draws.codes_U, draws.jackknife_U, draws.num_labels)
    low, high = share_interval(float(value), without_G, most_units(draws))
    return Bounds(float(value), low, high, null_B, decided_T=decided_U)


def balanced(right_BU: NDArray[np.bool_], codes_BU: NDArray[np.integer], num_labels: int) -> NDArray[np.float64]:
    """Mean over the labels of the share that is labelled rightly [B]."""
    places_BU = codes_BU.astype(np.int64) + num_labels * np.arange(len(codes_BU))[:, None]
    length = num_labels * len(codes_BU)
    totals = np.bincount(places_BU.ravel(), minlength=length).reshape(-1, num_labels)
    hits = np.bincount(places_BU.ravel(), right_BU.ravel(), minlength=length).reshape(-1, num_labels)
    return np.asarray((hits / np.maximum(totals, 1)).sum(axis=1) / (totals > 0).sum(axis=1))


def balanced_without_jackknife_blocks(
    score_U: NDArray[Any], codes_U: NDArray[np.int64], jackknife_U: NDArray[np.int64], num_labels: int
) -> NDArray[np.float64]:
    """Mean over the labels of their mean score, without each jackknife block [G] that leaves a sentence."""
    num_blocks = int(jackknife_U.max()) + 1
    places_U = jackknife_U * num_labels + codes_U
    totals_GC = np.bincount(places_U, minlength=num_blocks * num_labels).reshape(-1, num_labels)
    sums_GC = np.bincount(places_U, score_U, minlength=num_blocks * num_labels).reshape(-1, num_labels)
    count_left_GC, score_left_GC = totals_GC.sum(axis=0) - totals_GC, sums_GC.sum(axis=0) - sums_GC
    held_GC = count_left_GC > 0
    left_G = held_GC.any(axis=1)
    shares_GC = score_left_GC[left_G] / np.maximum(count_left_GC[left_G], 1)
    return np.asarray(shares_GC.sum(axis=1) / held_GC[left_G].sum(axis=1))


def most_units(draws: Draws) -> float:
    """Effective number of independent groups behind a balanced share: the harmonic mean over the labels, times C."""
    return float(draws.num_labels**2 / (1 / draws.units_of_labels()).sum())
