"""Deals whole groups of sentences to folds or jackknife blocks, evenly by label.

Shape legend: N sentences, G groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def number(values: Sequence[Any] | NDArray[Any]) -> tuple[NDArray[np.int64], list[Any]]:
    """Number the distinct values in order: the number of each value [N], -1 for a missing one, and the values.

    >>> numbers, names = number(["b", "a", None, "b"])
    >>> numbers.tolist(), names
    ([1, 0, -1, 1], ['a', 'b'])
    """
    missing = [v is None or v == "" or v != v for v in values]
    names = {v for v, gone in zip(values, missing, strict=True) if not gone}
    ordered = sorted(names, key=lambda v: (str(type(v)), v))
    place = {v: k for k, v in enumerate(ordered)}
    return np.array([-1 if g else place[v] for v, g in zip(values, missing, strict=True)], np.int64), ordered


def deal(
    strata_G: NDArray[np.int64], sizes_G: NDArray[np.int64], num_hands: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Deal groups to `num_hands` hands; returns the hand of each group [G].

    Large groups are dealt first, so that every hand gets about as many of each stratum.

    >>> strata = np.array([0, 0, 0, 1, 1, 1])
    >>> hands = deal(strata, np.array([3, 2, 2, 1, 1, 1]), 3, np.random.default_rng(0))
    >>> sorted(hands[strata == 0].tolist()), sorted(hands[strata == 1].tolist())
    ([0, 1, 2], [0, 1, 2])
    """
    order_G = np.lexsort((rng.random(len(strata_G)), -sizes_G, strata_G))
    hands_G = np.empty(len(strata_G), np.int64)
    hands_G[order_G] = np.arange(len(strata_G)) % num_hands
    # Which hand gets the first group must not depend on the order of the labels.
    return np.asarray(rng.permutation(num_hands)[hands_G])


def majority(group_N: NDArray[np.int64], codes_N: NDArray[np.int64], num_codes: int) -> NDArray[np.int64]:
    """The most frequent code of each group [G]."""
    counts_GC = np.zeros((int(group_N.max()) + 1, num_codes), np.int32)
    np.add.at(counts_GC, (group_N, codes_N), 1)
    return np.asarray(counts_GC.argmax(axis=1), np.int64)


def one_code_each(group_N: NDArray[np.int64], codes_N: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether all sentences of a group have one code [G]."""
    num_groups = int(group_N.max()) + 1
    low_G, high_G = np.full(num_groups, np.iinfo(np.int64).max), np.full(num_groups, -1)
    np.minimum.at(low_G, group_N, codes_N)
    np.maximum.at(high_G, group_N, codes_N)
    return np.asarray(low_G == high_G)
