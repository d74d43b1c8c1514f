"""Places: which tokens of each sentence are wanted, and which nodes of a batch stand for them. Numpy only.

Shape legend: N sentences of a block, Q places of all of them, S sentences of a batch, T places of those, G nodes to
gather, R rows of a batch, W nodes of a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from drillcore.tokens.batches import Batch
from drillcore.tokens.sequences import Sequences

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Places:
    """Tokens of each sentence of a block whose states make the rows of one group of a store.

    index_Q: numbers of tokens within their sentence, sentence after sentence; bounds_N1: where those of each sentence
    begin and end. is_mean: a sentence has one row, the mean over its places; otherwise every place has one. row_Q: the
    row of each place, ascending, where a sentence may have several means or none.

    >>> places = Places.of([[0, 2], [1]])
    >>> len(places), places.num_rows, places.slice(1, 2).index_Q.tolist()
    (2, 3, [1])
    """

    index_Q: Int64
    bounds_N1: Int64
    is_mean: bool = False
    row_Q: Int64 | None = None

    @staticmethod
    def of(indices: Iterable[Sequence[int] | Int64], *, is_mean: bool = False) -> Places:
        """Places of sentences, each a list of numbers of its tokens."""
        rows = [np.asarray(i, np.int64) for i in indices]
        bounds = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
        return Places(np.concatenate([*rows, np.zeros(0, np.int64)]), bounds, is_mean)

    @staticmethod
    def last(tokens: Sequences) -> Places:
        """The last token of each sentence.

        >>> Places.last(Sequences.of([[5, 6, 7], [8]])).index_Q.tolist()
        [2, 0]
        """
        return Places(tokens.lengths_N - 1, np.arange(len(tokens) + 1))

    @staticmethod
    def between(starts_N: Int64, stops_N: Int64, *, is_mean: bool = False) -> Places:
        """All tokens from `starts_N` to before `stops_N` of each sentence.

        >>> Places.between(np.array([0, 1]), np.array([2, 2])).index_Q.tolist()
        [0, 1, 1]
        """
        bounds = np.concatenate([[0], np.cumsum(stops_N - starts_N)]).astype(np.int64)
        index = np.arange(bounds[-1]) + np.repeat(starts_N - bounds[:-1], stops_N - starts_N)
        return Places(index, bounds, is_mean)

    @staticmethod
    def means(starts_R: Int64, stops_R: Int64, rows_N: Int64) -> Places:
        """Means over the tokens from `starts_R` to before `stops_R`; of each sentence, so many rows.

        >>> places = Places.means(np.array([0, 2, 1]), np.array([2, 3, 2]), np.array([2, 0, 1]))
        >>> places.index_Q.tolist(), places.bounds_N1.tolist(), places.row_Q.tolist()
        ([0, 1, 2, 1], [0, 3, 3, 4], [0, 0, 1, 2])
        """
        each = Places.between(starts_R, stops_R)
        begins_N1 = np.concatenate([[0], np.cumsum(rows_N)]).astype(np.int64)
        row_Q = np.repeat(np.arange(len(starts_R)), np.diff(each.bounds_N1))
        return Places(each.index_Q, each.bounds_N1[begins_N1], True, row_Q)

    def __len__(self) -> int:
        return len(self.bounds_N1) - 1

    def now(self) -> Places:
        """Itself: it is known already."""
        return self

    @property
    def num_rows(self) -> int:
        """Rows that they make."""
        if self.row_Q is not None:
            return int(self.row_Q[-1] - self.row_Q[0]) + 1 if len(self.row_Q) else 0
        return len(self) if self.is_mean else len(self.index_Q)

    def slice(self, start: int, stop: int) -> Places:
        """Those of sentences start .. stop - 1."""
        bounds = self.bounds_N1[start : stop + 1]
        row_Q = None if self.row_Q is None else self.row_Q[bounds[0] : bounds[-1]]
        row_Q = row_Q - row_Q[0] if row_Q is not None and len(row_Q) else row_Q
        return Places(self.index_Q[bounds[0] : bounds[-1]], bounds - bounds[0], self.is_mean, row_Q)

    def take(self, index: Int64) -> Places:
        """Those of the sentences whose numbers are in `index`, in that order."""
        starts, stops = self.bounds_N1[index], self.bounds_N1[index + 1]
        bounds = np.concatenate([[0], np.cumsum(stops - starts)]).astype(np.int64)
        source = np.arange(bounds[-1]) + np.repeat(starts - bounds[:-1], stops - starts)
        return Places(self.index_Q[source], bounds, self.is_mean)

    @staticmethod
    def join(parts: Sequence[Places]) -> Places:
        """Places of several blocks one after the other, of the kind of the first one."""
        index, counts = [p.index_Q for p in parts], [np.diff(p.bounds_N1) for p in parts]
        bounds = np.concatenate([[0], np.cumsum(np.concatenate([*counts, np.zeros(0, np.int64)]))]).astype(np.int64)
        return Places(np.concatenate([*index, np.zeros(0, np.int64)]), bounds, bool(parts) and parts[0].is_mean)

    def refuse_outside(self, tokens: Sequences) -> None:
        """Raise ValueError where a place is no token of its sentence, or a mean has no place."""
        lengths, counts = tokens.lengths_N, np.diff(self.bounds_N1)
        if len(lengths) != len(self) or (self.index_Q < 0).any() or (self.index_Q >= np.repeat(lengths, counts)).any():
            raise ValueError("a place is not within its sentence")
        if self.is_mean and self.row_Q is None and not counts.all():
            raise ValueError("a mean has no place")


class LaterPlaces(Protocol):
    """Places that are worked out when they are needed: they take more room than what they are worked out from."""

    def now(self) -> Places:
        """The places."""


@dataclass(frozen=True)
class Among:
    """Places in some sentences of a block that holds others beside them.

    tokens: the sentences. places: in them; None for the last tokens. before: sentences of the block before these.
    num_sentences: of the whole block.
    """

    tokens: Sequences
    places: LaterPlaces | None
    before: int
    num_sentences: int

    def now(self) -> Places:
        """The places, in a block of all the sentences: the others have none."""
        own = Places.last(self.tokens) if self.places is None else self.places.now()
        after = self.num_sentences - self.before - len(own)
        bounds = np.pad(own.bounds_N1, (self.before, after), mode="edge")
        row_Q = own.row_Q
        if own.is_mean and row_Q is None:
            row_Q = np.repeat(np.arange(len(own)), np.diff(own.bounds_N1))
        return Places(own.index_Q, bounds, own.is_mean, row_Q)


@dataclass(frozen=True)
class Taken:
    """Rows of a group that are states of single nodes. rows_T: their numbers in the block; row_T: among the G nodes."""

    group: int
    rows_T: Int64
    row_T: Int64


@dataclass(frozen=True)
class Mean:
    """Rows of a group that are means. rows_S: their numbers in the block; node_T: flat nodes of all; begin_S: where the
    nodes of each begin in node_T."""

    group: int
    rows_S: Int64
    node_T: Int64
    begin_S: Int64


@dataclass(frozen=True)
class Gathering:
    """What to gather from a batch for several groups.

    node_G: flat nodes, each once. read: those that means read as well.
    """

    node_G: Int64
    read: Int64
    taken: tuple[Taken, ...]
    means: tuple[Mean, ...]


def gathering(batch: Batch, places: Sequence[Places]) -> Gathering:
    """Find the nodes of the places of a batch's sentences; without places, their last tokens.

    >>> from drillcore.tokens.batches import batches
    >>> from drillcore.tokens.packs import build_packs
    >>> from drillcore.tokens.widths import PackRule
    >>> sentences = Sequences.of([[7, 8, 1], [7, 8, 2]])
    >>> (batch,) = batches(build_packs(sentences, PackRule(width=4)), 4)
    >>> found = gathering(batch, [Places.last(sentences), Places.of([[0, 1, 2], [1]])])
    >>> found.node_G.tolist(), [(t.rows_T.tolist(), found.node_G[t.row_T].tolist()) for t in found.taken]
    ([0, 1, 2, 3], [([0, 1], [2, 3]), ([0, 1, 2, 3], [0, 1, 2, 1])])
    """
    if not places:
        return Gathering(batch.node_G, batch.node_G, (Taken(0, batch.sentence_S, batch.row_S),), ())
    taken: list[tuple[int, Int64, Int64]] = []
    means = []
    paths = _Paths(batch)
    for group, each in enumerate(places):
        counts_S = np.diff(each.bounds_N1)[batch.sentence_S]
        if each.is_mean and each.row_Q is None and not counts_S.all():
            raise ValueError("a mean has no place")
        begin_S = np.concatenate([[0], np.cumsum(counts_S)])[:-1]
        number_T = np.arange(counts_S.sum()) + np.repeat(each.bounds_N1[batch.sentence_S] - begin_S, counts_S)
        node_T = paths.nodes(np.repeat(np.arange(len(counts_S)), counts_S), each.index_Q[number_T])
        if each.row_Q is not None:
            order_T = np.argsort(each.row_Q[number_T], kind="stable")
            rows_S, first_S = np.unique(each.row_Q[number_T][order_T], return_index=True)
            if len(rows_S):
                means.append(Mean(group, rows_S, node_T[order_T], first_S))
        elif each.is_mean:
            means.append(Mean(group, batch.sentence_S, node_T, begin_S))
        else:
            taken.append((group, number_T, node_T))
    node_G = np.unique(np.concatenate([np.zeros(0, np.int64), *(node_T for _, _, node_T in taken)]))
    read = np.unique(np.concatenate([node_G, *(mean.node_T for mean in means)]))
    rows = tuple(Taken(group, number_T, np.searchsorted(node_G, node_T)) for group, number_T, node_T in taken)
    return Gathering(node_G, read, rows, tuple(means))


class _Paths:
    """Nodes on the way to the last token of each sentence of a batch, by their depth.

    In preorder, the ancestor of a node at some depth is the last node of that depth before it; a padded row is one
    path.
    """

    def __init__(self, batch: Batch) -> None:
        num_rows, self._width = batch.token_ids_RW.shape
        self._size = num_rows * self._width
        row = np.repeat(np.arange(num_rows), self._width)
        self._depth = batch.position_ids_RW.reshape(-1)
        self._place = np.sort(self._key(row, self._depth, np.arange(self._size)))
        self._last_S = batch.node_G[batch.row_S]

    def _key(self, row: Int64, depth: Int64, node: Int64) -> Int64:
        key: Int64 = (row * self._width + depth) * self._size + node
        return key

    def nodes(self, slot_T: Int64, depth_T: Int64) -> Int64:
        """The node at a depth on the way to the last token of a sentence. slot_T: its number among the batch's."""
        last_T = self._last_S[slot_T]
        if (depth_T < 0).any() or (depth_T > self._depth[last_T]).any():
            raise ValueError("a place is not within its sentence")
        wanted_T = self._key(last_T // self._width, depth_T, last_T)
        found_T = self._place[np.searchsorted(self._place, wanted_T, side="right") - 1]
        node_T: Int64 = found_T % self._size
        return node_T
