"""Ragged token ids: the sentences of a block as one flat array and offsets. Numpy only.

Shape legend: N sentences, T tokens in all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sequences:
    """Token ids of N sentences.

    ids_T: int32, all tokens one after the other. offsets_N1: int64 [N + 1], where each sentence begins and ends.
    Slicing gives views, so a memory-mapped array stays on disk until its tokens are used.
    """

    ids_T: NDArray[np.int32]
    offsets_N1: NDArray[np.int64]

    @staticmethod
    def of(sentences: Iterable[Sequence[int] | NDArray[np.int32]]) -> Sequences:
        """Join sentences given one by one."""
        rows = [np.asarray(s, dtype=np.int32) for s in sentences]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(r) for r in rows], out=offsets[1:])
        return Sequences(np.concatenate(rows) if rows else np.zeros(0, np.int32), offsets)

    def __len__(self) -> int:
        return len(self.offsets_N1) - 1

    def __getitem__(self, i: int) -> NDArray[np.int32]:
        if not 0 <= i < len(self):
            raise IndexError(f"sentence {i} of {len(self)}")
        return self.ids_T[self.offsets_N1[i] : self.offsets_N1[i + 1]]

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        return (self[i] for i in range(len(self)))

    @property
    def lengths_N(self) -> NDArray[np.int64]:
        """Tokens of each sentence."""
        lengths: NDArray[np.int64] = np.diff(self.offsets_N1)
        return lengths

    def slice(self, start: int, stop: int) -> Sequences:
        """Sentences start .. stop - 1."""
        offsets = np.asarray(self.offsets_N1[start : stop + 1])
        return Sequences(self.ids_T[offsets[0] : offsets[-1]], offsets - offsets[0])

    def take(self, index: NDArray[np.int64]) -> Sequences:
        """The sentences named by `index`, in its order."""
        return Sequences.of(self[int(i)] for i in index)

    def truncate(self, max_tokens: int) -> Sequences:
        """Keep each sentence's first `max_tokens` tokens."""
        lengths = self.lengths_N
        if not len(lengths) or int(lengths.max()) <= max_tokens:
            return self
        kept = np.minimum(lengths, max_tokens)
        offsets = np.zeros(len(kept) + 1, dtype=np.int64)
        np.cumsum(kept, out=offsets[1:])
        source = np.repeat(self.offsets_N1[:-1] - offsets[:-1], kept) + np.arange(offsets[-1])
        return Sequences(np.asarray(self.ids_T[source]), offsets)
