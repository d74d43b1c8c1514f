"""Which sentences share a fold or a block: groups are dealt out whole and evenly by label.

Shape legend: N sentences, G groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def number(values: Sequence[Any] | NDArray[Any]) -> tuple[NDArray[np.int64], list[Any]]:
    """Each value's place [N] among the distinct ones, which stand in order of their names; missing ones are -1."""
    missing = [v is None or v == "" or v != v for v in values]
    names = {v for v, gone in zip(values, missing, strict=True) if not gone}
    ordered = sorted(names, key=lambda v: (str(type(v)), v))
    place = {v: k for k, v in enumerate(ordered)}
    return np.array([-1 if g else place[v] for v, g in zip(values, missing, strict=True)], np.int64), ordered


def deal(
    strata_G: NDArray[np.int64], sizes_G: NDArray[np.int64], num_hands: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Hand of each group: large groups first, so that every hand gets about as many of each stratum."""
    order_G = np.lexsort((rng.random(len(strata_G)), -sizes_G, strata_G))
    hands_G = np.empty(len(strata_G), np.int64)
    hands_G[order_G] = np.arange(len(strata_G)) % num_hands
    # Which hand begins must not follow the order of the labels.
    return np.asarray(rng.permutation(num_hands)[hands_G])


def majority(group_N: NDArray[np.int64], codes_N: NDArray[np.int64], num_codes: int) -> NDArray[np.int64]:
    """The commonest code of each group [G]."""
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
