"""Packs: many sentences as prefix trees in preorder, so that a shared prefix is computed once, exactly.

Owns the order of the sentences, which of them share a pack, and the arrays that a model is fed with. Numpy only.
A node is one token of a tree; query node q may attend to key node k exactly when k <= q < subtree_end[k], because
the nodes between a node and the end of its subtree are its descendants.

Shape legend: N sentences, U distinct sentences in lexicographic order, M nodes of all packs one after the other,
R packs (rows) of a batch, W nodes (width) of a pack, G gathered nodes of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from drillcore.tokens.sequences import Sequences

Int64 = NDArray[np.int64]

# The width of a length class's packs is chosen on at most so many of its sentences, from so many places of their order.
SAMPLED_SENTENCES, SAMPLED_PLACES = 2048, 4


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


def build_packs(sequences: Sequences, width: int, widest: int = 0, attention_cost: float = 0.0) -> Packs:
    """Lay the sentences of a block out as packs of `width` nodes.

    A sentence longer than `width` goes into packs of twice the width, four times, and so on, so that one long sentence
    does not make attention more expensive for all others. Packs of sentences that share long prefixes are made wider
    still, up to `widest`, where the nodes saved are worth more than the attention added. attention_cost: cost of a
    node's attention to one node of its pack, as a fraction of everything else that is computed for the node.

    >>> packs = build_packs(Sequences.of([[7, 8, 1], [7, 8, 2], [7, 8, 1]]), width=16)
    >>> packs.num_nodes, packs.token_M.tolist(), packs.subtree_end_M.tolist()
    (4, [7, 8, 1, 2], [4, 4, 3, 4])
    """
    distinct = sort_sentences(sequences)
    doublings = np.ceil(np.log2(np.maximum(distinct.lengths_U, width) / width)).astype(np.int64)
    packs: list[list[tuple[int, int]]] = []
    widths: list[int] = []
    for doubling in np.unique(doublings).tolist():
        index = np.flatnonzero(doublings == doubling)
        chosen = _cheapest_width(distinct, index, width << doubling, widest, attention_cost)
        packs += _fill(distinct, index, chosen)
        widths += [chosen] * (len(packs) - len(widths))
    # The fullest packs of a width first, so that the packs of a batch are about equally full.
    width_P = np.array(widths, np.int64)
    order = np.lexsort((-_sizes(distinct, packs), width_P))
    return _lay_out(sequences, distinct, [packs[i] for i in order.tolist()], width_P[order])


def _cheapest_width(distinct: Sorted, index: Int64, width: int, widest: int, attention_cost: float) -> int:
    """The width at which the sentences `index`, or a sample of neighbours where there are many, cost least."""
    parts = np.array_split(index, SAMPLED_PLACES) if len(index) > SAMPLED_SENTENCES else [index]
    sample = np.concatenate([part[: SAMPLED_SENTENCES // len(parts)] for part in parts])
    cheapest, lowest = width, np.inf
    while attention_cost > 0 and width <= widest:
        sizes = _sizes(distinct, list(_fill(distinct, sample, width)))
        cost = float((sizes * (1 + attention_cost * sizes)).sum())
        if cost >= lowest:
            break
        cheapest, lowest = width, cost
        width *= 2
    return cheapest


def _sizes(distinct: Sorted, packs: list[list[tuple[int, int]]]) -> Int64:
    """Nodes of each pack."""
    members, shared, pack_of = _flat(packs)
    return np.bincount(pack_of, distinct.lengths_U[members] - shared, minlength=len(packs)).astype(np.int64)


def _flat(packs: list[list[tuple[int, int]]]) -> tuple[Int64, Int64, Int64]:
    """The sentences of all packs, what each shares with the one before it, and the number of its pack."""
    flat = np.fromiter(chain.from_iterable(chain.from_iterable(packs)), np.int64).reshape(-1, 2)
    return flat[:, 0], flat[:, 1], np.repeat(np.arange(len(packs)), np.array([len(pack) for pack in packs], np.int64))


def _fill(distinct: Sorted, index: Int64, width: int) -> Iterator[list[tuple[int, int]]]:
    """Distribute the distinct sentences `index` over packs: lists of (sentence, tokens shared with the one before)."""
    shared = distinct.shared_U[index].copy()
    # Sentences of other classes may lie between two neighbours of this one: these share the minimum over all of them.
    gaps = np.flatnonzero(np.diff(index) > 1) + 1
    for i in gaps.tolist():
        shared[i] = distinct.shared_U[index[i - 1] + 1 : index[i] + 1].min()
    shared[:1] = 0
    lengths = distinct.lengths_U[index]
    after = np.append(shared[1:], 0)
    # A sentence that shares almost nothing with its neighbours may go into any pack: these fill the room that is left.
    is_alone = np.maximum(shared, after) <= np.minimum(2, lengths // 8)
    bins: list[list[int]] = [[] for _ in range(width + 1)]
    for i in np.flatnonzero(is_alone).tolist():
        bins[lengths[i]].append(i)
    numbers = index.tolist()
    for members, used in _runs(np.flatnonzero(~is_alone), shared, lengths, width):
        pack = [(numbers[i], s) for i, s in members]
        pack += [(numbers[i], 0) for i in _take(bins, width - used)]
        yield pack
    while any(bins):
        yield [(numbers[i], 0) for i in _take(bins, width)]


def _runs(
    index: Int64, shared_all: Int64, lengths_all: Int64, width: int
) -> Iterator[tuple[list[tuple[int, int]], int]]:
    """Cut the sorted sentences into runs of at most `width` nodes: (sentence, tokens shared), and the nodes used."""
    members: list[tuple[int, int]] = []
    used, before = 0, -2
    for i, shared, length in zip(index.tolist(), shared_all[index].tolist(), lengths_all[index].tolist(), strict=True):
        reused = shared if before == i - 1 else 0
        if members and used + length - reused > width:
            yield members, used
            members, used = [], 0
        if not members:
            reused = 0
        members.append((i, reused))
        used += length - reused
        before = i
    if members:
        yield members, used


def _take(bins: list[list[int]], room: int) -> list[int]:
    """Take sentences out of `bins` (by length), longest first, while they fit."""
    taken: list[int] = []
    length = min(room, len(bins) - 1)
    while length > 0:
        if bins[length]:
            taken.append(bins[length].pop())
            room -= length
            length = min(length, room)
        else:
            length -= 1
    return taken


def _lay_out(sequences: Sequences, distinct: Sorted, packs: list[list[tuple[int, int]]], widths: Int64) -> Packs:
    """Lay out the nodes of all packs one after the other, in preorder."""
    members, shared, pack_of = _flat(packs)
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
