"""Ragged token ids: the sentences of a block as one flat array and offsets. Numpy only.

Shape legend: N sentences, T tokens in all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drillcore.system.files import release

# Ids that are looked at in one go.
STEP = 2**22


@dataclass(frozen=True)
class Sequences:
    """Token ids of N sentences.

    ids_T: int32, all tokens one after the other. bounds_N1: int64 [N + 1], where each sentence begins and ends, counted
    from wherever the first one begins. Slicing gives views of both, so that mapped files stay on disk until they are
    used, however many slices there are.

    >>> sequences = Sequences.of([[5, 6, 7], [8], [9, 10]])
    >>> len(sequences), sequences[2].tolist(), sequences.lengths_N.tolist()
    (3, [9, 10], [3, 1, 2])
    >>> sequences.slice(1, 3).ids_T.tolist()
    [8, 9, 10]
    """

    ids_T: NDArray[np.int32]
    bounds_N1: NDArray[np.int64]

    @property
    def offsets_N1(self) -> NDArray[np.int64]:
        """Where each sentence begins and ends in `ids_T`, int64 [N + 1]; computed at each call."""
        return np.asarray(self.bounds_N1 - self.bounds_N1[0])

    @staticmethod
    def of(sentences: Iterable[Sequence[int] | NDArray[np.int32]]) -> Sequences:
        """Join sentences, each a list or an int32 array of its token ids."""
        rows = [np.asarray(s, dtype=np.int32) for s in sentences]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(r) for r in rows], out=offsets[1:])
        return Sequences(np.concatenate(rows) if rows else np.zeros(0, np.int32), offsets)

    @staticmethod
    def join(parts: Iterable[Sequences]) -> Sequences:
        """The sentences of several parts one after the other.

        >>> [s.tolist() for s in Sequences.join([Sequences.of([[1, 2]]), Sequences.of([[3], [4]])])]
        [[1, 2], [3], [4]]
        """
        every = list(parts)
        lengths = np.concatenate([np.zeros(0, np.int64), *(part.lengths_N for part in every)])
        ids = np.concatenate([np.zeros(0, np.int32), *(np.asarray(part.ids_T) for part in every)])
        return Sequences(ids.astype(np.int32, copy=False), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.bounds_N1) - 1

    def __getitem__(self, i: int) -> NDArray[np.int32]:
        if not 0 <= i < len(self):
            raise IndexError(f"sentence {i} of {len(self)}")
        first = self.bounds_N1[0]
        return self.ids_T[self.bounds_N1[i] - first : self.bounds_N1[i + 1] - first]

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        return (self[i] for i in range(len(self)))

    @property
    def lengths_N(self) -> NDArray[np.int64]:
        """Tokens of each sentence."""
        return np.asarray(np.diff(self.bounds_N1))

    def slice(self, start: int, stop: int) -> Sequences:
        """Sentences start .. stop - 1."""
        bounds, first = self.bounds_N1[start : stop + 1], self.bounds_N1[0]
        return Sequences(self.ids_T[bounds[0] - first : bounds[-1] - first], bounds)

    def release(self) -> None:
        """Give back the memory of what is mapped from files."""
        release(self.ids_T)
        release(self.bounds_N1)

    def beyond(self, vocab_size: int) -> NDArray[np.int64]:
        """Numbers of the sentences that hold an id of `vocab_size` or more, ascending.

        >>> Sequences.of([[5, 6], [9], [7, 8, 9]]).beyond(9).tolist()
        [1, 2]
        """
        # Ids may be mapped from a file larger than the memory.
        steps = range(0, len(self.ids_T), STEP)
        found = [start + np.flatnonzero(self.ids_T[start : start + STEP] >= vocab_size) for start in steps]
        positions = np.concatenate(found) if found else np.zeros(0, np.int64)
        return np.unique(np.searchsorted(self.bounds_N1[1:] - self.bounds_N1[0], positions, side="right"))

    def take(self, index: NDArray[np.int64]) -> Sequences:
        """The sentences whose numbers are in `index`, int64 [any number], in that order."""
        return Sequences.of(self[int(i)] for i in index)

    def truncate(self, max_tokens: int) -> Sequences:
        """Keep each sentence's first `max_tokens` tokens.

        >>> Sequences.of([[5, 6, 7], [8]]).truncate(2).ids_T.tolist()
        [5, 6, 8]
        """
        lengths = self.lengths_N
        if not len(lengths) or int(lengths.max()) <= max_tokens:
            return self
        new_N = np.minimum(lengths, max_tokens)
        offsets = np.zeros(len(new_N) + 1, dtype=np.int64)
        np.cumsum(new_N, out=offsets[1:])
        source = np.repeat(self.bounds_N1[:-1] - self.bounds_N1[0] - offsets[:-1], new_N) + np.arange(offsets[-1])
        return Sequences(np.asarray(self.ids_T[source]), offsets)
