"""The distinct sentences of a block in lexicographic order: neighbours share the longest prefixes. Numpy only.

Shape legend: N sentences, U distinct sentences in lexicographic order, K of them, in that order.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from drillcore.tokens.sequences import Sequences

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Sorted:
    """Distinct sentences in lexicographic order of their token ids.

    first_U: a sentence number for each; shared_U: tokens shared with the one before; lengths_U: tokens.
    order_N, distinct_N: all sentences in that order, and which distinct one each is.
    """

    first_U: Int64
    shared_U: Int64
    lengths_U: Int64
    order_N: Int64
    distinct_N: Int64

    def shared_along(self, index_K: Int64) -> Int64:
        """Tokens that each of these sentences shares with the one before it in `index_K`; 0 for the first."""
        if len(index_K) < 2:
            return np.zeros(len(index_K), np.int64)
        # Two sentences share what all neighbours between them share.
        shared_K = np.minimum.reduceat(self.shared_U[: index_K[-1] + 1], index_K[:-1] + 1)
        return np.concatenate([np.zeros(1, np.int64), shared_K])


def sort_sentences(sequences: Sequences) -> Sorted:
    """Sort by token ids and find what each distinct sentence shares with the one before it.

    >>> ordered = sort_sentences(Sequences.of([[5, 1, 2], [5, 1], [5, 1, 2]]))
    >>> ordered.first_U.tolist(), ordered.shared_U.tolist(), ordered.distinct_N.tolist()
    ([1, 0], [0, 2], [0, 1, 1])
    """
    if len(sequences) == 0:
        empty = np.zeros(0, np.int64)
        return Sorted(empty, empty, empty, empty, empty)
    # Big-endian bytes compare as the ids do, and Python compares bytes at memory speed.
    big = np.ascontiguousarray(sequences.ids_T, dtype=">u4").tobytes()
    bounds = (sequences.offsets_N1 * 4).tolist()
    keys = [big[a:b] for a, b in pairwise(bounds)]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = [keys[a] != keys[b] for a, b in zip(order[:-1].tolist(), order[1:].tolist(), strict=True)]
    first = order[fresh]
    return Sorted(
        first_U=first,
        shared_U=_shared_prefix(sequences, first),
        lengths_U=sequences.lengths_N[first],
        order_N=order,
        distinct_N=np.cumsum(fresh) - 1,
    )


def _shared_prefix(sequences: Sequences, order: Int64) -> Int64:
    """Tokens that each sentence of `order` shares with the one before it; 0 for the first."""
    ids = sequences.ids_T
    start = sequences.offsets_N1[order]
    length = sequences.lengths_N[order]
    shared = np.zeros(len(order), dtype=np.int64)
    limit = np.minimum(length[1:], length[:-1])
    alive = np.arange(1, len(order))[limit > 0]
    while len(alive):
        depth = shared[alive]
        same = ids[start[alive] + depth] == ids[start[alive - 1] + depth]
        alive = alive[same]
        shared[alive] += 1
        alive = alive[shared[alive] < limit[alive - 1]]
    return shared
