"""Ridge regression onto labels by the eigenvectors of the scatter, which all label permutations share.

Shape legend: U sentences, H dimensions, R rows of a chunk, B permutations, C labels, P penalties.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from drillcore.measures.draws import one_hot

NUM_PENALTIES = 16
CHUNK_ROWS = 16_384


@dataclass(frozen=True)
class Fold:
    """What training without one fold needs, whatever the labels.

    rows_R: sentences of the fold. mean_H, vectors_HH, values_H: mean of the other sentences, and eigenvectors and
    eigenvalues of their scatter. penalties_P, freedom_P: ridge penalties to choose from, and the effective degrees of
    freedom of the fit with each. num_train: number of the other sentences.
    """

    rows_R: NDArray[np.int64]
    mean_H: NDArray[np.float64]
    vectors_HH: NDArray[np.float64]
    values_H: NDArray[np.float64]
    penalties_P: NDArray[np.float64]
    freedom_P: NDArray[np.float64]
    num_train: int


class Features:
    """States, or other features of the sentences [U, H]: a float32 array, or a SciPy sparse matrix."""

    def __init__(self, states: Any) -> None:
        self._states, self.centre_H, self.turning = _rotated(states)

    def chunks(self, rows_U: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Centred states of these rows, a chunk at a time."""
        for start in range(0, len(rows_U), CHUNK_ROWS):
            rows_R = rows_U[start : start + CHUNK_ROWS]
            states_of_rows = self._states[rows_R]
            dense = states_of_rows if isinstance(states_of_rows, np.ndarray) else states_of_rows.toarray()
            yield rows_R, (dense - self.centre_H).astype(np.float32, copy=False)

    def moments(self, rows_U: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Gram matrix [H, H] and sum [H] of the centred states of these rows."""
        gram_HH, sum_H = np.zeros((len(self.centre_H),) * 2), np.zeros(len(self.centre_H))
        for _, states_RH in self.chunks(rows_U):
            wide_RH = states_RH.astype(np.float64)
            gram_HH += wide_RH.T @ wide_RH
            sum_H += wide_RH.sum(axis=0)
        return gram_HH, sum_H

    def label_sums(self, rows_U: NDArray[np.int64], labels_UBC: NDArray[np.floating]) -> NDArray[np.float64]:
        """Sum of the states of each label, or of the states times the numbers that are labels, [H, B * C]."""
        sums_HK = np.zeros((len(self.centre_H), labels_UBC[0].size))
        for rows_R, states_RH in self.chunks(rows_U):
            sums_HK += states_RH.T @ labels_UBC[rows_R].reshape(len(rows_R), -1)
        return sums_HK


def fitted(
    states_UH: NDArray[np.float32], codes_U: NDArray[np.int64], num_labels: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights [C, H] and offsets [C] of the scores of each label, learned from all of these sentences.

    >>> states = np.float32([[0.0], [0.2], [1.0], [1.2]] * 5)
    >>> weights, offsets = fitted(states, np.array([0, 0, 1, 1] * 5), 2)
    >>> (states[:4] @ weights.T + offsets).argmax(axis=1).tolist()
    [0, 0, 1, 1]
    """
    features, rows_U = Features(states_UH), np.arange(len(codes_U))
    fold = without_fold(rows_U[:0], *features.moments(rows_U), len(rows_U))
    labels_UBC = one_hot(codes_U[None], num_labels)
    weights_HBC, offsets_BC = train(
        fold, features.label_sums(rows_U, labels_UBC), labels_UBC.sum(axis=0, dtype=np.float64)
    )
    return _of_states(features, states_UH, weights_HBC[:, 0], offsets_BC[0])


def fitted_numbers(
    states_UH: NDArray[np.float32], values_U: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights [1, H] and offset [1] of the number that is predicted, learned from all of these sentences.

    >>> states = np.float32(np.random.default_rng(0).normal(size=(50, 2)))
    >>> weights, offset = fitted_numbers(states, states @ np.array([2.0, -1.0]) + 3)
    >>> weights.round(2).tolist(), offset.round(2).tolist()
    ([[2.0, -1.0]], [3.0])
    """
    features, rows_U = Features(states_UH), np.arange(len(values_U))
    fold = without_fold(rows_U[:0], *features.moments(rows_U), len(rows_U))
    # Divided first: the largest numbers have no square.
    size = float(np.abs(values_U).max(initial=1e-300))
    small_U = values_U / size
    sums_HB = features.label_sums(rows_U, small_U[:, None, None])
    weights_HB, offsets_B = train_numbers(fold, sums_HB, small_U.sum()[None], (small_U**2).sum()[None])
    return _of_states(features, states_UH, size * weights_HB, size * offsets_B)


def _of_states(
    features: Features, states_UH: NDArray[np.float32], weights_HC: NDArray[Any], offsets_C: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights [C, H] and offsets [C] for the states as they are, of those for centred, or rotated, features."""
    weights_HC, centre_H = weights_HC.astype(np.float64), features.centre_H.astype(np.float64)
    if features.turning is not None:
        centre_H = states_UH.mean(axis=0, dtype=np.float64)
        weights_HC = (states_UH - centre_H).T @ (features.turning @ weights_HC)
    return weights_HC.T, offsets_C - centre_H @ weights_HC


def _rotated(states: Any) -> tuple[Any, NDArray[np.float32], NDArray[np.float64] | None]:
    """States, and the mean to subtract; fewer rows than dimensions are rotated into the few that they span.

    Third, of rotated ones, what the transposed centred states are multiplied by to give the directions of the few.
    """
    mean_H = np.asarray(states.mean(axis=0, dtype=np.float64)).ravel()
    if states.shape[0] >= states.shape[1]:
        return states, mean_H.astype(np.float32), None
    wide_UH = (states if isinstance(states, np.ndarray) else states.toarray()) - mean_H
    values_U, vectors_UU = _eigen(wide_UH @ wide_UH.T)
    # Directions without variance hold rounding noise only.
    has_variance_U = values_U > 1e-12 * values_U[-1]
    root = np.sqrt(values_U[has_variance_U])
    turned = vectors_UU[:, has_variance_U] * root
    return turned.astype(np.float32), np.zeros(turned.shape[1], np.float32), vectors_UU[:, has_variance_U] / root


def _eigen(matrix_HH: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # Its many small steps wait for each other: on busy cores two threads took 6 to 20 times as long as one.
    with threadpool_limits(1, user_api="blas"):
        values_H, vectors_HH = np.linalg.eigh(matrix_HH)
    return values_H, vectors_HH


def without_fold(rows_R: NDArray[np.int64], gram_HH: Any, sum_H: Any, num_train: int) -> Fold:
    """What training without these rows needs. gram_HH, sum_H: moments of the others, num_train of them."""
    mean_H = sum_H / num_train
    values_H, vectors_HH = _eigen(gram_HH - num_train * np.outer(mean_H, mean_H))
    values_H = np.maximum(values_H, 0)
    largest = values_H[-1]
    present = values_H[values_H > 1e-10 * largest]
    smallest = max(1e-13 * largest, 1e-3 * float(np.quantile(present, 0.1)))
    penalties_P = np.geomspace(smallest, largest, NUM_PENALTIES)
    freedom_P = (values_H / (values_H + penalties_P[:, None])).sum(axis=1)
    # A penalty that leaves no freedom to the residual cannot be judged by it.
    judged = freedom_P <= 0.98 * (num_train - 1)
    judged[-1] = True
    return Fold(rows_R, mean_H, vectors_HH, values_H, penalties_P[judged], freedom_P[judged], num_train)


def train(
    fold: Fold, sums_HK: NDArray[np.float64], counts_BC: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights [H, B, C] and offsets [B, C] of the score of each label.

    Regression on indicators, then nearest label mean in the metric of the total scatter: for two labels this is
    Fisher's (1936) discriminant with equal priors. The penalty of each permutation is chosen by generalised
    cross-validation (Golub, Heath and Wahba, 1979) on the training folds, so the null chooses as the measure does.
    """
    between_HK = sums_HK - fold.mean_H[:, None] * counts_BC.ravel()
    turned_HBC = (fold.vectors_HH.T @ between_HK).reshape(-1, *counts_BC.shape)
    total_B = (counts_BC - counts_BC**2 / fold.num_train).sum(axis=1)
    shrunk_HB = 1 / (fold.values_H[:, None] + _penalty(fold, (turned_HBC**2).sum(axis=2), total_B))
    solved_HBC = turned_HBC * shrunk_HB[:, :, None]
    own_BC = (turned_HBC * solved_HBC).sum(axis=0)
    weights_HK = fold.vectors_HH @ solved_HBC.reshape(len(solved_HBC), -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale_BC = 1 / counts_BC
        weights_HBC = weights_HK.reshape(-1, *counts_BC.shape) * scale_BC
        offsets_BC = -np.tensordot(fold.mean_H, weights_HBC, 1) - own_BC * scale_BC**2 / 2
    # A label without a training sentence is never predicted.
    unseen_BC = counts_BC == 0
    weights_HBC[:, unseen_BC] = 0
    offsets_BC[unseen_BC] = -np.inf
    # Scores are compared within a permutation only: bring them to a size that float32 holds.
    size_B = np.abs(weights_HBC).max(axis=(0, 2), initial=1e-300)[:, None]
    return (weights_HBC / size_B).astype(np.float32), (offsets_BC / size_B).astype(np.float32)


def train_numbers(
    fold: Fold, sums_HB: NDArray[np.float64], sum_B: NDArray[np.float64], squares_B: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights [H, B] and offsets [B] of ridge regression onto numbers, centred on the training sentences.

    sums_HB: sum of the states times the numbers; sum_B, squares_B: of the numbers and of their squares. The penalty of
    each permutation is chosen as for labels.
    """
    turned_HB = fold.vectors_HH.T @ (sums_HB - fold.mean_H[:, None] * sum_B)
    penalty_B = _penalty(fold, turned_HB**2, squares_B - sum_B**2 / fold.num_train)
    weights_HB = fold.vectors_HH @ (turned_HB / (fold.values_H[:, None] + penalty_B))
    return weights_HB, sum_B / fold.num_train - fold.mean_H @ weights_HB


def _penalty(fold: Fold, squares_HB: NDArray[np.float64], total_B: NDArray[np.float64]) -> NDArray[np.float64]:
    """The penalty of each permutation [B] by generalised cross-validation.

    squares_HB: squared sums of the states times the labels, in the directions of the scatter. total_B: of the labels'
    squared distances from their mean.
    """
    shrunk_PH = 1 / (fold.values_H + fold.penalties_P[:, None])
    explained_PB = (2 * shrunk_PH - fold.values_H * shrunk_PH**2) @ squares_HB
    residual_PB = np.maximum(total_B - explained_PB, 0)
    score_PB = residual_PB / (fold.num_train - 1 - fold.freedom_P[:, None]) ** 2
    return np.asarray(fold.penalties_P[score_PB.argmin(axis=0)])
