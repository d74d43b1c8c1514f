"""How wide packs are: which sentences go into packs of which width. Numpy only.

A pack that ends between two sentences computes what they share once more. So sentences that share long prefixes go
into wide packs, and all others into narrow ones, whose attention costs least.

Shape legend: U distinct sentences in lexicographic order, K of them, in that order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from drillcore.tokens.ordered import Sorted

Int64 = NDArray[np.int64]

# A width is doubled where that saves at least this share of the nodes: wider batches use a processor's caches less.
LEAST_SAVED = 1 / 24


@dataclass(frozen=True)
class PackRule:
    """How wide the packs of a block are; part of the numerics, since it decides bytes.

    width: of packs of sentences that share little; a sentence longer than that goes into packs of twice the width, four
    times, and so on. widest: the most nodes of a pack of sentences that share a prefix. attention_cost: cost of a
    node's attention to one node of its pack, as a fraction of everything else that is computed for the node; 0 where
    attention costs the same in a wide pack.
    """

    width: int
    widest: int = 0
    attention_cost: float = 0.0


@dataclass(frozen=True)
class Group:
    """Sentences that go into packs of one width.

    index_K: their numbers. shared_K: what each shares with the one before it; negative where a pack must begin.
    """

    index_K: Int64
    shared_K: Int64
    width: int


def choose_widths(distinct: Sorted, rule: PackRule) -> Iterator[Group]:
    """Distribute the sentences over widths.

    Families come first, the widest before the others: neighbours that share a long prefix and are too many for a pack
    of half the width. All other sentences follow, by their lengths.

    >>> from drillcore.tokens.ordered import sort_sentences
    >>> from drillcore.tokens.sequences import Sequences
    >>> few_shot = sort_sentences(Sequences.of([[*range(90), i] for i in range(200)]))
    >>> [(len(g.index_K), g.width) for g in choose_widths(few_shot, PackRule(width=64, widest=1024))]
    [(200, 512)]
    """
    left_K = np.arange(len(distinct.first_U))
    doublings = max(0, int(rule.widest // rule.width).bit_length() - 1)
    for doubling in range(doublings, 1, -1):
        wide = rule.width << doubling
        shared_K, joined_K, in_family_K = _find_families(distinct, left_K, wide, rule.attention_cost)
        if in_family_K.any():
            yield Group(left_K[in_family_K], np.where(joined_K, shared_K, -1)[in_family_K], wide)
            left_K = left_K[~in_family_K]
    for doubling, index in by_length(distinct, left_K, rule.width):
        yield Group(index, distinct.shared_along(index), rule.width << doubling)


def by_length(distinct: Sorted, index_K: Int64, width: int) -> Iterator[tuple[int, Int64]]:
    """Sentences by how often the width must be doubled to hold them."""
    doublings_K = np.ceil(np.log2(np.maximum(distinct.lengths_U[index_K], width) / width)).astype(np.int64)
    for doubling in np.unique(doublings_K).tolist():
        yield doubling, index_K[doublings_K == doubling]


def _find_families(
    distinct: Sorted, index_K: Int64, wide: int, attention_cost: float
) -> tuple[Int64, NDArray[np.bool_], NDArray[np.bool_]]:
    """What each sentence shares, whether it continues a family, and whether that is worth packs `wide` nodes wide."""
    lengths_K, shared_K = distinct.lengths_U[index_K], distinct.shared_along(index_K)
    joined_K = shared_K >= _least_shared(wide, attention_cost)
    joined_K[:1] = False
    joined_K[1:] &= (lengths_K[1:] <= wide) & (lengths_K[:-1] <= wide)
    family_K = np.cumsum(~joined_K) - 1
    nodes = np.bincount(family_K, lengths_K - np.where(joined_K, shared_K, 0))
    # A family of half as many nodes fits into a pack of half the width.
    worth = (np.bincount(family_K) > 1) & (nodes > wide // 2)
    return shared_K, joined_K, worth[family_K]


@lru_cache(maxsize=64)
def _least_shared(wide: int, attention_cost: float) -> int:
    """Tokens that neighbours must share so that packs of this width cost less than packs of half of it."""
    half = wide // 2
    shared = np.arange(half)
    saved = shared / (half - shared) - shared / (wide - shared)
    worth = np.flatnonzero(saved >= LEAST_SAVED + attention_cost * half)
    return int(worth[0]) if len(worth) else half
