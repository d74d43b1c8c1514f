"""Folds, jackknife blocks, samples and label permutations, drawn once from the seed and shared by all layers.

Shape legend: N sentences, U those whose labels count, G groups, B permutations, C labels, S sampled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.job.stages import Measure
from drillcore.measures.stratify import deal, majority, number, one_code_each

# Values of the largest array of a chunk: 40 MB of float32.
CHUNK_VALUES = 10_000_000
FEWEST_SENTENCES = 10
# How a note on the sample begins.
SAMPLED = "silhouette on"
# Blocks of the jackknife; with fewer groups each group is a block.
NUM_BLOCKS = 200
# Sentences x labels x permutations at most; fewer permutations are drawn to stay below, but no fewer than
# FEWEST_PERMUTATIONS.
NULL_WORK = 250_000_000
# Sampled sentences squared x labels x permutations at most; fewer sentences are sampled to stay below, but no fewer
# than FEWEST_SAMPLED.
SAMPLE_WORK = 200_000_000_000
FEWEST_SAMPLED = 2000
FEWEST_PERMUTATIONS = 99


@dataclass(frozen=True)
class Draws:
    """What is drawn for a dataset. All arrays but `rows_U` and `sample_S` run over the sentences in `rows_U`.

    rows_U: rows of the dataset whose labels count. codes_U: place of the label in `labels`. group_U: dense numbers.
    fold_U, jackknife_U: number of the fold, and of the jackknife block; every group lies in one of each. sample_S:
    positions in `rows_U` for what is quadratic.
    is_test_U: whether a probe is tested on a sentence rather than learns from it; None where it is cross-validated.
    Fold 1 then holds the tested ones and fold 0 the others, and a group may lie in both.
    skipped: why measures that compare labels mean nothing; empty where they do. notes: what a reader must know.
    values_U: labels that are numbers, float64; `codes_U` is 0 then, and `labels` empty. None where they are classes.
    """

    num_sentences: int
    labels: tuple[Any, ...]
    rows_U: NDArray[np.int64]
    codes_U: NDArray[np.int64]
    group_U: NDArray[np.int64]
    fold_U: NDArray[np.int64]
    jackknife_U: NDArray[np.int64]
    sample_S: NDArray[np.int64]
    num_permutations: int
    seed: int
    skipped: str = ""
    notes: tuple[str, ...] = ()
    is_test_U: NDArray[np.bool_] | None = None
    values_U: NDArray[np.float64] | None = None

    @property
    def num_labels(self) -> int:
        """Distinct labels that count."""
        return len(self.labels)

    @property
    def all_rows(self) -> bool:
        """Whether every sentence of the dataset counts."""
        return len(self.rows_U) == self.num_sentences

    @property
    def tested_folds(self) -> list[int]:
        """The folds, by their place among all, that a probe is tested on; each is trained without."""
        return list(range(len(np.unique(self.fold_U)))) if self.is_test_U is None else [1]

    @cached_property
    def tested(self) -> Draws:
        """The draws of the sentences that a probe is tested on, for their intervals."""
        if self.is_test_U is None:
            return self
        tested_T = np.flatnonzero(self.is_test_U)
        changes: dict[str, Any] = {name: getattr(self, name)[tested_T] for name in ("rows_U", "codes_U", "fold_U")}
        changes["values_U"] = None if self.values_U is None else self.values_U[tested_T]
        # Numbered anew: a block of train rows alone would count as one that changes nothing.
        for name in ("group_U", "jackknife_U"):
            changes[name] = np.unique(getattr(self, name)[tested_T], return_inverse=True)[1]
        return replace(self, **changes, sample_S=tested_T[:0], is_test_U=None)

    @cached_property
    def straddling(self) -> int:
        """Number of groups with sentences on both sides of a split."""
        if self.is_test_U is None or not len(self.group_U):
            return 0
        return int((~one_code_each(self.group_U, self.fold_U)).sum())

    @cached_property
    def exchanging_U(self) -> NDArray[np.int64]:
        """Sentences whose groups may exchange labels: of one fold, or of groups on both sides of a split."""
        if self.is_test_U is None:
            return self.fold_U
        return np.where(one_code_each(self.group_U, self.fold_U)[self.group_U], self.fold_U, 2)

    @cached_property
    def _constant_U(self) -> NDArray[np.bool_]:
        return np.asarray(one_code_each(self.group_U, self.codes_U)[self.group_U])

    @cached_property
    def _exchanged(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """For each fold: labels of its groups of one label, and for their sentences the place in those labels."""
        exchanged = []
        for fold in np.unique(self.exchanging_U):
            own_M = np.flatnonzero((self.exchanging_U == fold) & self._constant_U)
            _, first_G, place_M = np.unique(self.group_U[own_M], return_index=True, return_inverse=True)
            exchanged.append((self.codes_U[own_M][first_G], np.stack([own_M, place_M])))
        return exchanged

    def permuted(self, start: int, stop: int) -> NDArray[np.int16]:
        """Labels [B, U] under permutations `start` to `stop` - 1; each depends on the seed and its number alone.

        Groups of one label exchange it with other such groups of their fold (so that folds stay stratified); within
        groups of several labels the sentences exchange theirs.
        """
        return self._permuted[start:stop].astype(np.int16)

    def under_permutations(self, score: Callable[[NDArray[np.int16]], NDArray[np.float64]]) -> NDArray[np.float64]:
        """The null of a measure: its value under each label permutation [B], in order.

        score: its values under the labels [B, U] of a chunk of the permutations; U x B x C values fit into memory.
        """
        size = max(1, CHUNK_VALUES // max(1, len(self.codes_U) * self.num_labels))
        starts = range(0, self.num_permutations, size)
        parts = [score(self.permuted(start, min(start + size, self.num_permutations))) for start in starts]
        return np.concatenate(parts) if parts else np.empty(0)

    @cached_property
    def _permuted(self) -> NDArray[np.integer]:
        """All permutations, since every measure of a layer asks for the same ones; NULL_WORK bounds their bytes."""
        dtype = np.uint8 if self.num_labels <= np.iinfo(np.uint8).max else np.int16
        codes_BU = np.repeat(self.codes_U[None].astype(dtype), self.num_permutations, axis=0)
        mixed_M = np.flatnonzero(~self._constant_U)
        mixed_M = mixed_M[np.argsort(self.group_U[mixed_M], kind="stable")]
        for b in range(self.num_permutations):
            rng = np.random.default_rng([self.seed, b])
            for labels_G, (rows_M, place_M) in self._exchanged:
                codes_BU[b, rows_M] = rng.permutation(labels_G)[place_M]
            if len(mixed_M):
                # Group numbers are integers: adding less than 1 shuffles the sentences within their groups.
                order_M = np.argsort(self.group_U[mixed_M] + rng.random(len(mixed_M)))
                codes_BU[b, mixed_M] = self.codes_U[mixed_M[order_M]]
        return codes_BU

    def __getstate__(self) -> dict[str, Any]:
        """Without the permutations, which are drawn again: they would be sent along with every layer."""
        return {name: value for name, value in self.__dict__.items() if name != "_permuted"}

    def units_of_labels(self) -> NDArray[np.int64]:
        """Number of groups that hold each label [C]: its independent observations."""
        pairs = np.unique(self.group_U * self.num_labels + self.codes_U)
        return np.bincount(pairs % self.num_labels, minlength=self.num_labels)


def make_draws(
    labels: Sequence[Any] | NDArray[Any] | None,
    groups: Sequence[Any] | NDArray[Any] | None,
    settings: Measure,
    num_sentences: int,
    is_test_N: NDArray[np.bool_] | None = None,
) -> Draws:
    """Draw everything for a dataset.

    groups: sentences that must stay together; where there are none, pass hashes of the texts, so that duplicates stay
    together. Sentences without a label, labels that fewer than two groups hold, and labels whose groups (which hold
    others too) all lie in one fold, so that a probe would never see them, are left out, with a note. is_test_N: the
    sentences that the probe is tested on, and no other; those that it learns from are all others.

    >>> draws = make_draws(list("aabb" * 5), None, Measure(permutations=9), 20)
    >>> draws.labels, draws.num_permutations, draws.permuted(0, 9).shape
    (('a', 'b'), 9, (9, 20))
    """
    codes_N, names = number(labels) if labels is not None else (np.zeros(num_sentences, np.int64), ["all"])
    group_N = groups_of(groups, num_sentences)
    groups_C = _groups_per_label(codes_N, group_N, len(names))
    enough_C = groups_C >= (2 if len(names) > 1 else 1)
    draws = _draws_of(codes_N, names, group_N, enough_C, settings, is_test_N)
    confined: list[Any] = []
    while not draws.skipped and (lone := _in_one_fold(draws)):
        confined += lone
        enough_C &= np.array([name not in lone for name in names])
        draws = _draws_of(codes_N, names, group_N, enough_C, settings, is_test_N)
    notes = _notes(codes_N, names, enough_C, confined, "side of the split" if is_test_N is not None else "fold")
    return replace(draws, skipped="no labels" if labels is None else draws.skipped, notes=(*notes, *draws.notes))


def _draws_of(
    codes_N: NDArray[np.int64],
    names: list[Any],
    group_N: NDArray[np.int64],
    enough_C: NDArray[np.bool_],
    settings: Measure,
    is_test_N: NDArray[np.bool_] | None,
) -> Draws:
    """The draws where the labels of `enough_C` count."""
    counted = [name for name, ok in zip(names, enough_C, strict=True) if ok]
    rows_U = np.flatnonzero((codes_N >= 0) & np.append(enough_C, False)[codes_N])
    codes_U = (np.cumsum(enough_C) - 1)[codes_N[rows_U]]
    group_U = np.unique(group_N[rows_U], return_inverse=True)[1].astype(np.int64)
    skipped = _why_not(codes_N, names, counted, len(rows_U), int(group_U.max(initial=-1)) + 1)
    notes = []
    permutations = 0 if skipped else affordable(settings.permutations, len(rows_U) * max(1, len(counted)))
    if permutations < settings.permutations and not skipped:
        notes.append(f"{permutations} permutations instead of {settings.permutations}, to bound the work")
    most = int(math.sqrt(SAMPLE_WORK / max(1, permutations * len(counted))))
    sampled = min(settings.sample, max(FEWEST_SAMPLED, most), len(rows_U))
    is_test_U = None if is_test_N is None else is_test_N[rows_U]
    fold_U, jackknife_U, sample_S = draw(codes_U, group_U, is_test_U, len(counted), settings, sampled)
    if len(sample_S) < len(rows_U):
        notes.append(f"{SAMPLED} {len(sample_S):,} sentences drawn by the seed")
    return Draws(
        num_sentences=len(codes_N),
        labels=tuple(counted),
        rows_U=rows_U,
        codes_U=codes_U,
        group_U=group_U,
        fold_U=fold_U,
        jackknife_U=jackknife_U,
        sample_S=sample_S,
        num_permutations=permutations,
        seed=settings.seed,
        skipped=skipped,
        notes=tuple(notes),
        is_test_U=is_test_U,
    )


def _in_one_fold(draws: Draws) -> list[Any]:
    """Labels whose sentences all lie in one fold."""
    pairs = np.unique(draws.codes_U * (int(draws.fold_U.max()) + 1) + draws.fold_U)
    folds_C = np.bincount(pairs // (int(draws.fold_U.max()) + 1), minlength=draws.num_labels)
    return [name for name, num_folds in zip(draws.labels, folds_C, strict=True) if num_folds < 2]


def groups_of(groups: Sequence[Any] | NDArray[Any] | None, num_sentences: int) -> NDArray[np.int64]:
    """The number of each sentence's group [N]; one without a group is a group of its own.

    >>> groups_of(["a", "b", "a", None], 4).tolist()
    [0, 1, 0, 2]
    """
    if groups is None:
        return np.arange(num_sentences)
    group_N, names = number(groups)
    ungrouped_M = np.flatnonzero(group_N < 0)
    group_N[ungrouped_M] = len(names) + np.arange(len(ungrouped_M))
    return group_N


def _groups_per_label(codes_N: NDArray[np.int64], group_N: NDArray[np.int64], num_labels: int) -> NDArray[np.int64]:
    known = codes_N >= 0
    pairs = np.unique(np.stack([codes_N[known], group_N[known]]), axis=1)
    return np.bincount(pairs[0], minlength=num_labels)


def _notes(
    codes_N: NDArray[np.int64], names: list[Any], enough_C: NDArray[np.bool_], confined: list[Any], fold: str
) -> list[str]:
    notes = []
    if missing := int((codes_N < 0).sum()):
        notes.append(f"{missing:,} sentences without a label are left out")
    rare = [str(name) for name, ok in zip(names, enough_C, strict=True) if not ok and name not in confined]
    if rare:
        notes.append(f"labels held by one sentence or one group are left out: {_few(rare)}")
    if confined:
        notes.append(f"labels whose groups all lie in one {fold} are left out: {_few([str(c) for c in confined])}")
    return notes


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _why_not(codes_N: NDArray[np.int64], names: list[Any], counted: list[Any], num_rows: int, num_groups: int) -> str:
    labelled = int((codes_N >= 0).sum())
    if not labelled:
        return f"no labels: none of the {len(codes_N):,} sentences has one"
    if not counted:
        where = "one sentence, one group or one fold"
        return f"each of the {len(names):,} labels is held by {where}, of {labelled:,} labelled sentences"
    if len(counted) == 1:
        rare = len(names) - 1
        others = f"; {rare:,} more {'is' if rare == 1 else 'are'} too rare to be measured" if rare else ""
        return f"one label ({counted[0]}), of {num_rows:,} sentence{'' if num_rows == 1 else 's'}{others}"
    if num_rows < FEWEST_SENTENCES:
        return f"{num_rows} labelled sentences; at least {FEWEST_SENTENCES} are needed"
    return f"one group, of {num_rows:,} sentences" if num_groups < 2 else ""


def affordable(wanted: int, work: int) -> int:
    """Permutations that bound the work: as many as are wanted, or fewer. work: values of one permutation."""
    return min(wanted, max(FEWEST_PERMUTATIONS, NULL_WORK // max(1, work)))


def draw(
    codes_U: NDArray[np.int64],
    group_U: NDArray[np.int64],
    is_test_U: NDArray[np.bool_] | None,
    num_labels: int,
    settings: Measure,
    sampled: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Fold and jackknife block of each sentence [U], and a sample [S]: groups stay whole, dealt evenly by label."""
    rng = np.random.default_rng(settings.seed)
    if not len(codes_U):
        return codes_U, codes_U, codes_U
    strata_G, sizes_G = majority(group_U, codes_U, num_labels), np.bincount(group_U)
    if is_test_U is None:
        fold_U = deal(strata_G, sizes_G, min(settings.folds, len(sizes_G)), rng)[group_U]
    else:
        fold_U = is_test_U.astype(np.int64)
        # Tested groups are dealt among themselves, so that as many blocks as can hold one.
        strata_G = strata_G + num_labels * majority(group_U, fold_U, 2)
    jackknife_U = deal(strata_G, sizes_G, min(NUM_BLOCKS, len(sizes_G)), rng)[group_U]
    sample_S = np.sort(rng.choice(len(codes_U), sampled, replace=False)).astype(np.int64)
    return fold_U, jackknife_U, sample_S


def one_hot(codes_BU: NDArray[np.integer], num_labels: int) -> NDArray[np.float32]:
    """1 where a sentence has a label under a permutation, [U, B, C].

    >>> one_hot(np.array([[0, 1, 1]]), 2).tolist()
    [[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]]]
    """
    labels_UBC = np.zeros((codes_BU.shape[1], codes_BU.shape[0], num_labels), np.float32)
    codes_K = codes_BU.T.ravel().astype(np.int64)
    labels_UBC.reshape(-1)[np.arange(len(codes_K)) * num_labels + codes_K] = 1
    return labels_UBC
