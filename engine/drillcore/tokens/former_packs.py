"""Packs of stores written before families had widths of their own; kept so that their blocks are computed as they were.

Shape legend: U distinct sentences in lexicographic order, K of them, in that order.
"""

from __future__ import annotations

from itertools import chain

import numpy as np
from numpy.typing import NDArray

from drillcore.tokens.ordered import Sorted, sort_sentences
from drillcore.tokens.packs import Packs, fill, lay_out
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.widths import Group, PackRule, by_length

Int64 = NDArray[np.int64]

# The width of a length class's packs is chosen on at most so many of its sentences, from so many places of their order.
SAMPLED_SENTENCES, SAMPLED_PLACES = 2048, 4


def build_former_packs(sequences: Sequences, rule: PackRule) -> Packs:
    """Lay the sentences of a block out as packs; all sentences of about one length have packs of one width."""
    distinct = sort_sentences(sequences)
    packs: list[list[tuple[int, int]]] = []
    widths: list[int] = []
    for doubling, index in by_length(distinct, np.arange(len(distinct.first_U)), rule.width):
        width = _cheapest_width(distinct, index, rule.width << doubling, rule)
        packs += _fill(distinct, index, width)
        widths += [width] * (len(packs) - len(widths))
    return lay_out(sequences, distinct, packs, np.array(widths, np.int64))


def _fill(distinct: Sorted, index_K: Int64, width: int) -> list[list[tuple[int, int]]]:
    group = Group(index_K, distinct.shared_along(index_K), width)
    return list(fill(distinct.lengths_U[index_K], group, cheapest_cuts=False))


def _cheapest_width(distinct: Sorted, index_K: Int64, width: int, rule: PackRule) -> int:
    """The width at which the sentences, or a sample of neighbours where there are many, cost least."""
    parts = np.array_split(index_K, SAMPLED_PLACES) if len(index_K) > SAMPLED_SENTENCES else [index_K]
    sample = np.concatenate([part[: SAMPLED_SENTENCES // len(parts)] for part in parts])
    cheapest, lowest = width, np.inf
    while rule.attention_cost > 0 and width <= rule.widest:
        sizes = np.array([_nodes(distinct, pack) for pack in _fill(distinct, sample, width)])
        cost = float((sizes * (1 + rule.attention_cost * sizes)).sum())
        if cost >= lowest:
            break
        cheapest, lowest = width, cost
        width *= 2
    return cheapest


def _nodes(distinct: Sorted, pack: list[tuple[int, int]]) -> int:
    members, shared = np.fromiter(chain.from_iterable(pack), np.int64).reshape(-1, 2).T
    return int((distinct.lengths_U[members] - shared).sum())
