"""Batches: grids of packs, or of padded sentences, ready for a model. Numpy only.

Shape legend: N sentences, M nodes of all packs one after the other, R rows of a batch, W nodes of a row, G gathered
nodes of a batch, S sentences of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from drillcore.tokens.packs import Packs
from drillcore.tokens.sequences import Sequences

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """A grid of R packs × W nodes, ready for a model.

    token_ids_RW, position_ids_RW (the node's depth) and subtree_end_RW (column of the first node after its subtree)
    are int64; a padding node is token 0, depth 0, the only node of its subtree. node_G: flat index into the grid of the
    nodes to gather. sentence_S, row_S: for every sentence of the batch its number in the block, and which gathered node
    is its last token (identical sentences share one). nodes_R: nodes of each row, without padding.
    """

    token_ids_RW: Int64
    position_ids_RW: Int64
    subtree_end_RW: Int64
    node_G: Int64
    sentence_S: Int64
    row_S: Int64
    nodes_R: Int64

    @property
    def num_nodes(self) -> int:
        """Nodes, without padding."""
        return int(self.nodes_R.sum())


def batches(packs: Packs, batch_nodes: int, *, trim: bool = False) -> Iterator[Batch]:
    """Cut packs into grids of at most `batch_nodes` nodes (one pack at least), all packs of a grid equally wide.

    trim: make a grid only as wide as its fullest pack; for devices that do not need fixed shapes.

    >>> from drillcore.tokens.packs import build_packs
    >>> from drillcore.tokens.widths import PackRule
    >>> packs = build_packs(Sequences.of([[7, 8, 1], [7, 8, 2], [9]]), PackRule(width=4))
    >>> for batch in batches(packs, batch_nodes=16):
    ...     print(batch.token_ids_RW.tolist(), batch.sentence_S.tolist(), batch.node_G[batch.row_S].tolist())
    [[7, 8, 1, 2], [9, 0, 0, 0]] [0, 1, 2] [2, 3, 4]
    """
    # Sentences in the order of their last nodes, so that those of a batch are one range.
    node_N = packs.last_M_of_U[packs.sorted.distinct_N]
    by_node = np.argsort(node_N, kind="stable")
    node_N, sentence_N = node_N[by_node], packs.sorted.order_N[by_node]
    sizes_P = np.diff(packs.pack_start) if trim else packs.width_P
    changes = np.flatnonzero(np.diff(packs.width_P)) + 1
    for low, high in zip([0, *changes.tolist()], [*changes.tolist(), len(packs.width_P)], strict=True):
        for first, stop in pairwise(low + cut for cut in _cuts(sizes_P[low:high], batch_nodes)):
            yield _batch(packs, first, stop, int(sizes_P[first]), node_N, sentence_N)


def _cuts(sizes_P: Int64, batch_nodes: int) -> list[int]:
    """Where to cut a run of packs of one width class into grids: indices, from 0 to the number of packs."""
    if not len(sizes_P):
        return [0]
    greedy = [0]
    while greedy[-1] < len(sizes_P):
        greedy.append(min(len(sizes_P), greedy[-1] + max(1, batch_nodes // int(sizes_P[greedy[-1]]))))
    # Batches of equal size rather than full ones and a small remainder.
    ends = np.cumsum(sizes_P)
    equal = np.searchsorted(ends, np.linspace(0, ends[-1], len(greedy))[1:-1], side="right")
    even = [0, *equal.tolist(), len(sizes_P)]
    fits = all(a < b and ((b - a) * sizes_P[a] <= batch_nodes or b - a == 1) for a, b in pairwise(even))
    return even if fits else greedy


def _batch(packs: Packs, first: int, stop: int, width: int, node_N: Int64, sentence_N: Int64) -> Batch:
    num_rows = stop - first
    begin, end = int(packs.pack_start[first]), int(packs.pack_start[stop])
    sizes = np.diff(packs.pack_start[first : stop + 1])
    row = np.repeat(np.arange(num_rows), sizes)
    # The offset from a node's index to its place in the grid.
    shift = row * width - packs.pack_start[first:stop][row]
    place = np.arange(begin, end) + shift
    token, position = np.zeros(num_rows * width, np.int64), np.zeros(num_rows * width, np.int64)
    subtree_end = np.tile(np.arange(1, width + 1), num_rows)
    token[place] = packs.token_M[begin:end]
    position[place] = packs.position_M[begin:end]
    subtree_end[place] = packs.subtree_end_M[begin:end] + shift - row * width
    low, high = np.searchsorted(node_N, [begin, end])
    nodes, row_S = np.unique(node_N[low:high], return_inverse=True)
    return Batch(
        token.reshape(num_rows, width),
        position.reshape(num_rows, width),
        subtree_end.reshape(num_rows, width),
        place[nodes - begin],
        sentence_N[low:high],
        row_S,
        sizes,
    )


def filled(batch: Batch, num_rows: int) -> Batch:
    """With rows of padding up to `num_rows`, for a device that computes at fixed shapes."""
    rows, width = batch.token_ids_RW.shape
    missing = num_rows - rows
    if missing <= 0:
        return batch
    zeros, own = np.zeros((missing, width), np.int64), np.tile(np.arange(1, width + 1), (missing, 1))
    return replace(
        batch,
        token_ids_RW=np.concatenate([batch.token_ids_RW, zeros]),
        position_ids_RW=np.concatenate([batch.position_ids_RW, zeros]),
        subtree_end_RW=np.concatenate([batch.subtree_end_RW, own]),
        nodes_R=np.append(batch.nodes_R, zeros[:, 0]),
    )


def halve(batch: Batch, step: int = 1) -> tuple[Batch, ...]:
    """The halves of a batch, for a device that ran out of memory; none where it holds a single sentence, unpadded.

    A single pack is split between two sentences: the second half computes the nodes above it again. step: the width of
    a half is a multiple of this.
    """
    num_rows = len(batch.token_ids_RW)
    if num_rows > 1:
        halves: tuple[Batch, ...] = _rows(batch, 0, num_rows // 2), _rows(batch, num_rows // 2, num_rows)
    else:
        halves = _split_row(batch, step)
    return tuple(half for half in halves if len(half.sentence_S))


def _split_row(batch: Batch, step: int) -> tuple[Batch, ...]:
    """The one pack of a batch in two, about equally large; one sentence only loses its padding, if it has any."""
    ends_W, depth_W, used = batch.subtree_end_RW[0], batch.position_ids_RW[0], int(batch.nodes_R[0])
    cuts = np.sort(batch.node_G)[:-1] + 1
    column = np.arange(used)
    if not len(cuts):
        # One sentence can do with less padding, and with nothing else.
        narrow = _columns(batch, column, step)
        return (narrow,) if narrow.token_ids_RW.shape[1] < len(ends_W) else ()
    # The nodes above a node are as many as its depth.
    cut = int(cuts[np.argmin(np.maximum(cuts, used - cuts + depth_W[cuts]))])
    above = column[:cut][ends_W[:cut] > cut]
    return _columns(batch, column[:cut], step), _columns(batch, np.concatenate([above, column[cut:]]), step, cut)


def _columns(batch: Batch, kept_W: Int64, step: int, begin: int = 0) -> Batch:
    """Some columns of a batch of one pack, with the sentences whose last node is one of them from `begin` on."""
    width, nodes = -(-len(kept_W) // step) * step, len(kept_W)
    token, position = np.zeros((1, width), np.int64), np.zeros((1, width), np.int64)
    ends = np.arange(1, width + 1)[None]
    token[0, :nodes], position[0, :nodes] = batch.token_ids_RW[0, kept_W], batch.position_ids_RW[0, kept_W]
    ends[0, :nodes] = np.searchsorted(kept_W, batch.subtree_end_RW[0, kept_W])
    gathered = np.isin(batch.node_G, kept_W) & (batch.node_G >= begin)
    wanted = gathered[batch.row_S]
    return Batch(
        token,
        position,
        ends,
        np.searchsorted(kept_W, batch.node_G[gathered]),
        batch.sentence_S[wanted],
        (np.cumsum(gathered) - 1)[batch.row_S[wanted]],
        np.array([nodes]),
    )


def _rows(batch: Batch, low: int, high: int) -> Batch:
    """Rows low .. high - 1 of a batch."""
    width = batch.token_ids_RW.shape[1]
    nodes = (batch.node_G >= low * width) & (batch.node_G < high * width)
    sentences = nodes[batch.row_S]
    return Batch(
        batch.token_ids_RW[low:high],
        batch.position_ids_RW[low:high],
        batch.subtree_end_RW[low:high],
        batch.node_G[nodes] - low * width,
        batch.sentence_S[sentences],
        (np.cumsum(nodes) - 1)[batch.row_S[sentences]],
        batch.nodes_R[low:high],
    )


def padded_batches(sequences: Sequences, batch_nodes: int) -> Iterator[Batch]:
    """Length-sorted batches, one sentence a row, padded on the right: for models that cannot take packs."""
    lengths = sequences.lengths_N
    order = np.argsort(-lengths, kind="stable")
    low = 0
    while low < len(order):
        width = int(lengths[order[low]])
        high = min(len(order), low + max(1, batch_nodes // width))
        yield _padded(sequences, order[low:high], lengths[order[low:high]], width)
        low = high


def _padded(sequences: Sequences, index: Int64, lengths: Int64, width: int) -> Batch:
    column = np.arange(width)
    real_RW = column < lengths[:, None]
    token = np.zeros((len(index), width), np.int64)
    token[real_RW] = np.concatenate([sequences[i] for i in index.tolist()])
    return Batch(
        token,
        np.broadcast_to(column, real_RW.shape),
        np.where(real_RW, lengths[:, None], column + 1),
        np.arange(len(index)) * width + lengths - 1,
        index,
        np.arange(len(index)),
        lengths,
    )
