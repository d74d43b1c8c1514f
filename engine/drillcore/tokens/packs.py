"""Packs: many sentences as prefix trees in preorder, so that a shared prefix is computed once, exactly.

Owns which sentences share a pack, and the arrays that a model is fed with. Numpy only. A node is one token of a tree;
query node q may attend to key node k exactly when k <= q < subtree_end[k], because the nodes between a node and the end
of its subtree are its descendants.

Shape legend: U distinct sentences in lexicographic order, K of them, in that order, M nodes of all packs one after the
other, P packs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from drillcore.tokens.ordered import Sorted, sort_sentences
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.widths import Group, PackRule, choose_widths

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Packs:
    """All packs of a block, laid out one after the other.

    position_M, subtree_end_M (index into M), token_M: the nodes. pack_start: index into M of each pack's first node
    and, last, M itself. width_P: width class of each pack. last_M_of_U: node of each distinct sentence's last token.
    """

    token_M: NDArray[np.int32]
    position_M: Int64
    subtree_end_M: Int64
    pack_start: Int64
    width_P: Int64
    sorted: Sorted
    last_M_of_U: Int64

    @property
    def num_nodes(self) -> int:
        """Nodes, without padding."""
        return int(self.pack_start[-1])


def build_packs(sequences: Sequences, rule: PackRule) -> Packs:
    """Lay the sentences of a block out as packs, which are a function of the block and the rule alone.

    >>> packs = build_packs(Sequences.of([[7, 8, 1], [7, 8, 2], [7, 8, 1]]), PackRule(width=16))
    >>> packs.num_nodes, packs.token_M.tolist(), packs.subtree_end_M.tolist()
    (4, [7, 8, 1, 2], [4, 4, 3, 4])
    """
    distinct = sort_sentences(sequences)
    packs: list[list[tuple[int, int]]] = []
    widths: list[int] = []
    for group in choose_widths(distinct, rule):
        packs += fill(distinct.lengths_U[group.index_K], group, cheapest_cuts=True)
        widths += [group.width] * (len(packs) - len(widths))
    return lay_out(sequences, distinct, packs, np.array(widths, np.int64))


def _flat(packs: list[list[tuple[int, int]]]) -> tuple[Int64, Int64, Int64]:
    """The sentences of all packs, what each shares with the one before it, and the number of its pack."""
    flat = np.fromiter(chain.from_iterable(chain.from_iterable(packs)), np.int64).reshape(-1, 2)
    return flat[:, 0], flat[:, 1], np.repeat(np.arange(len(packs)), np.array([len(pack) for pack in packs], np.int64))


def fill(lengths_K: Int64, group: Group, *, cheapest_cuts: bool) -> Iterator[list[tuple[int, int]]]:
    """Distribute the sentences of a group over packs: lists of (sentence, tokens shared with the one before).

    cheapest_cuts: end a pack where the least is lost; without, where the next sentence no longer fits.
    """
    shared_K, numbers = group.shared_K, group.index_K.tolist()
    # A sentence that shares almost nothing with its neighbours may go into any pack: these fill the room that is left.
    alone_K = np.maximum(shared_K, np.append(shared_K[1:], 0)) <= np.minimum(2, lengths_K // 8)
    lonely = np.flatnonzero(alone_K)
    bins: list[list[int]] = [[] for _ in range(int(lengths_K[lonely].max(initial=0)) + 1)]
    for i, length in zip(lonely.tolist(), lengths_K[lonely].tolist(), strict=True):
        bins[length].append(i)
    run_K = np.flatnonzero(~alone_K)
    follows_K = np.diff(run_K, prepend=-2) == 1
    shared_of_run, lengths_of_run = np.where(follows_K, shared_K[run_K], 0), lengths_K[run_K]
    cuts = _cuts(shared_of_run, lengths_of_run, group.width, cheapest=cheapest_cuts)
    members, shared = run_K.tolist(), np.maximum(shared_of_run, 0).tolist()
    for low, high, used in cuts:
        pack = [(numbers[members[low]], 0)]
        pack += [(numbers[members[k]], shared[k]) for k in range(low + 1, high)]
        pack += [(numbers[i], 0) for i in _take(bins, group.width - used)]
        yield pack
    while any(bins):
        yield [(numbers[i], 0) for i in _take(bins, group.width)]


def _cuts(shared_K: Int64, lengths_K: Int64, width: int, *, cheapest: bool) -> Iterator[tuple[int, int, int]]:
    """Cut sentences into packs of at most `width` nodes: (first, one past the last, nodes)."""
    # Nodes of the sentences before each, if all were in one pack.
    before_K1 = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths_K - np.maximum(shared_K, 0))])
    begins = np.append(np.flatnonzero(shared_K < 0), len(shared_K))
    low = 0
    while low < len(shared_K):
        # Of a pack's first sentence all nodes are computed.
        offset = int(before_K1[low]) - max(0, int(shared_K[low]))
        stop = int(begins[np.searchsorted(begins, low, side="right")])
        high = int(np.searchsorted(before_K1, offset + width, side="right")) - 1
        high = min(max(high, low + 1), stop)
        if cheapest and high < stop:
            # Lost are the nodes that the next pack computes again, and those that stay empty in this one.
            lost = shared_K[low + 1 : high + 1] + offset + width - before_K1[low + 1 : high + 1]
            high -= int(np.argmin(lost[::-1]))
        yield low, high, int(before_K1[high]) - offset
        low = high


def _take(bins: list[list[int]], room: int) -> list[int]:
    """Take sentences out of `bins` (by length), longest first, while they fit."""
    taken: list[int] = []
    while bins and not bins[-1]:
        bins.pop()
    length = min(room, len(bins) - 1)
    while length > 0:
        if bins[length]:
            taken.append(bins[length].pop())
            room -= length
            length = min(length, room)
        else:
            length -= 1
    return taken


def lay_out(sequences: Sequences, distinct: Sorted, packs: list[list[tuple[int, int]]], width_P: Int64) -> Packs:
    """Lay out the nodes of all packs one after the other, in preorder.

    The fullest packs of a width come first, so that the packs of a batch are about equally full.
    """
    members, shared, pack_of = _flat(packs)
    sizes_P = np.bincount(pack_of, distinct.lengths_U[members] - shared, minlength=len(packs))
    order = np.lexsort((-sizes_P, width_P))
    members, shared, pack_of = _flat([packs[i] for i in order.tolist()])
    widths = width_P[order]
    counts = distinct.lengths_U[members] - shared
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    num_nodes = int(starts[-1])
    node = np.arange(num_nodes)
    member_M = np.repeat(np.arange(len(members)), counts)
    position = node - starts[member_M] + shared[member_M]
    token = sequences.ids_T[sequences.offsets_N1[distinct.first_U[members]][member_M] + position]
    # A node's subtree ends where the first later sentence begins that shares no more than the node's depth.
    shared_next = np.append(shared, 0)
    ends_at = member_M + 1
    open_nodes = np.flatnonzero(shared_next[ends_at] > position)
    while len(open_nodes):
        ends_at[open_nodes] += 1
        open_nodes = open_nodes[shared_next[ends_at[open_nodes]] > position[open_nodes]]
    last = np.zeros(len(members), dtype=np.int64)
    last[members] = starts[1:] - 1
    first_of_pack = np.searchsorted(pack_of, np.arange(len(widths) + 1))
    return Packs(token, position, starts[ends_at], starts[first_of_pack], widths, distinct, last)
