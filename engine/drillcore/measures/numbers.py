"""Draws for labels that are numbers: folds and blocks of whole groups, and permutations of the numbers.

Shape legend: N sentences, U those whose numbers count, G groups, B permutations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.job.stages import Measure
from drillcore.measures.draws import CHUNK_VALUES, FEWEST_SENTENCES, Draws, affordable, draw, groups_of


def number_draws(
    values_N: NDArray[np.floating],
    groups: NDArray[Any] | None,
    settings: Measure,
    is_test_N: NDArray[np.bool_] | None = None,
) -> Draws:
    """Draw everything for a dataset whose labels are numbers; a sentence whose number is NaN is left out.

    groups, is_test_N: as for `make_draws`.

    >>> draws = number_draws(np.arange(20) / 8, None, Measure(permutations=9))
    >>> draws.labels, draws.num_permutations, len(np.unique(draws.fold_U)), draws.skipped
    ((), 9, 5, '')
    """
    rows_U = np.flatnonzero(np.isfinite(values_N))
    values_U = values_N[rows_U].astype(np.float64)
    group_U = np.unique(groups_of(groups, len(values_N))[rows_U], return_inverse=True)[1].astype(np.int64)
    is_test_U = None if is_test_N is None else is_test_N[rows_U]
    skipped = _why_not(values_U, int(group_U.max(initial=-1)) + 1, is_test_U, len(values_N))
    permutations = 0 if skipped else affordable(settings.permutations, len(rows_U))
    notes = [f"{len(values_N) - len(rows_U):,} sentences without a label are left out"] * (len(rows_U) < len(values_N))
    if permutations < settings.permutations and not skipped:
        notes.append(f"{permutations} permutations instead of {settings.permutations}, to bound the work")
    codes_U = np.zeros(len(rows_U), np.int64)
    fold_U, jackknife_U, _ = draw(codes_U, group_U, is_test_U, 1, settings, 0)
    return Draws(
        num_sentences=len(values_N),
        labels=(),
        rows_U=rows_U,
        codes_U=codes_U,
        group_U=group_U,
        fold_U=fold_U,
        jackknife_U=jackknife_U,
        sample_S=rows_U[:0],
        num_permutations=permutations,
        seed=settings.seed,
        skipped=skipped,
        notes=tuple(notes),
        is_test_U=is_test_U,
        values_U=values_U,
    )


def _why_not(values_U: NDArray[np.float64], num_groups: int, is_test_U: NDArray[np.bool_] | None, total: int) -> str:
    """Why numbers cannot be predicted, or that cannot be judged; empty where both can."""
    if not len(values_U):
        return f"no labels: none of the {total:,} sentences has one"
    if len(values_U) < FEWEST_SENTENCES:
        return f"{len(values_U)} labelled sentences; at least {FEWEST_SENTENCES} are needed"
    if np.ptp(values_U) == 0:
        return f"one label ({values_U[0]:g}), of {len(values_U):,} sentences"
    if num_groups < 2:
        return f"one group, of {len(values_U):,} sentences"
    for side in ("train", "test") if is_test_U is not None else ():
        own_M = values_U[is_test_U == (side == "test")]
        if not len(own_M) or np.ptp(own_M) == 0:
            of = f"one label ({own_M[0]:g}), of {len(own_M):,} rows" if len(own_M) else "no row with a label"
            return f"the {side} rows of the split have {of}"
    return ""


class Permutations:
    """Numbers under permutations; each depends on the seed and its number alone.

    Groups of one number exchange it with other such groups of their fold. Groups of several numbers exchange them
    whole, with groups of as many sentences of their fold, and the sentences of a group exchange theirs.
    """

    def __init__(self, draws: Draws, values_U: NDArray[np.floating]) -> None:
        self._draws, self._values_U = draws, values_U

    @cached_property
    def _exchanges(self) -> tuple[tuple[NDArray[np.int64], ...], tuple[NDArray[np.int64], ...]]:
        """Of groups of one number: their rows, the group of each, and first row and fold of each group.

        Of the others: their rows, so that groups that may exchange lie together, and class and group of each.
        """
        group_U, fold_U = self._draws.group_U, self._draws.exchanging_U
        num_groups = int(group_U.max()) + 1
        low_G, high_G = np.full(num_groups, np.inf), np.full(num_groups, -np.inf)
        np.minimum.at(low_G, group_U, self._values_U)
        np.maximum.at(high_G, group_U, self._values_U)
        has_one_U = (low_G == high_G)[group_U]
        single_M = np.flatnonzero(has_one_U)
        _, first_K, place_M = np.unique(group_U[single_M], return_index=True, return_inverse=True)
        first_K = single_M[first_K]
        mixed_M = np.flatnonzero(~has_one_U)
        size_U = np.bincount(group_U)[group_U]
        kind_M = np.unique(np.stack([fold_U[mixed_M], size_U[mixed_M]]), axis=1, return_inverse=True)[1].ravel()
        order_M = np.lexsort((group_U[mixed_M], kind_M))
        return (single_M, place_M, first_K, fold_U[first_K]), (
            mixed_M[order_M],
            kind_M[order_M],
            group_U[mixed_M][order_M],
        )

    def numbers(self, start: int, stop: int) -> NDArray[np.floating]:
        """The numbers [B, U] under permutations `start` to `stop` - 1."""
        values_U = self._values_U
        (single_M, place_M, first_K, fold_K), (mixed_M, kind_M, group_M) = self._exchanges
        numbers_BU = np.repeat(values_U[None], stop - start, axis=0)
        by_fold_K = np.argsort(fold_K, kind="stable")
        num_groups = int(self._draws.group_U.max(initial=-1)) + 1
        for b in range(start, stop):
            rng = np.random.default_rng([self._draws.seed, b])
            if len(first_K):
                drawn_K = np.empty(len(first_K), values_U.dtype)
                drawn_K[by_fold_K] = values_U[first_K[np.lexsort((rng.random(len(first_K)), fold_K))]]
                numbers_BU[b - start, single_M] = drawn_K[place_M]
            if len(mixed_M):
                order_M = np.lexsort((rng.random(len(mixed_M)), rng.random(num_groups)[group_M], kind_M))
                numbers_BU[b - start, mixed_M] = values_U[mixed_M[order_M]]
        return numbers_BU

    def chunks(self) -> Iterator[NDArray[np.floating]]:
        """All permutations of the draws in order, [B, U] a chunk."""
        size = max(1, CHUNK_VALUES // max(1, len(self._values_U)))
        for start in range(0, self._draws.num_permutations, size):
            yield self.numbers(start, min(start + size, self._draws.num_permutations))

    def null(self, score: Callable[[NDArray[np.floating]], NDArray[np.float64]]) -> NDArray[np.float64]:
        """The null of a measure [B]: its value under each permutation, in order."""
        parts = [score(numbers_BU) for numbers_BU in self.chunks()]
        return np.concatenate(parts) if parts else np.empty(0)
