"""Hidden states for xarray's lazy indexing: what is used is read, through our own reader.

Shape legend: N sentences, P positions, K layers, H hidden size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from drillcore.store.states import StatesReader


class LazyStates(BackendArray):
    """States [sentence, layer, hidden] of one group, for xarray's lazy indexing."""

    def __init__(self, reader: StatesReader) -> None:
        self._reader, shape = reader, reader.shape
        self.shape = (shape.num_sentences, len(shape.layers), shape.hidden_size)
        self.dtype = reader.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        """Take integers, slices and lists of positions for each axis; axes indexed by an integer are dropped."""
        sentences, layers, hidden = key
        states = self._reader.read(_positions(sentences, self.shape[0]), _positions(layers, self.shape[1]))
        states = states[..., hidden]
        dropped = tuple(axis for axis, k in ((0, sentences), (1, layers)) if isinstance(k, int | np.integer))
        squeezed: NDArray[Any] = states.squeeze(axis=dropped) if dropped else states
        return squeezed


def _positions(key: Any, size: int) -> NDArray[np.int64]:
    if isinstance(key, slice):
        return np.arange(*key.indices(size))
    index = np.atleast_1d(np.asarray(key, dtype=np.int64))
    return np.where(index < 0, index + size, index)


class LazyPositions(BackendArray):
    """States [N, P, K, H] of the last tokens of each sentence. row_NP: the row of each, or -1 where there is none."""

    def __init__(self, reader: StatesReader, row_NP: NDArray[np.int64]) -> None:
        self._reader, self._row_NP, shape = reader, row_NP, reader.shape
        self.shape = (*row_NP.shape, len(shape.layers), shape.hidden_size)
        self.dtype = reader.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        sentences, positions, layers = (_positions(k, n) for k, n in zip(key, self.shape[:3], strict=False))
        row_NP = self._row_NP[np.ix_(sentences, positions)]
        states_RKH = self._reader.read(np.maximum(row_NP.reshape(-1), 0), layers)
        states_RKH[row_NP.reshape(-1) < 0] = np.nan
        states = states_RKH.reshape(*row_NP.shape, *states_RKH.shape[1:])[..., key[3]]
        dropped = tuple(axis for axis in range(3) if isinstance(key[axis], int | np.integer))
        squeezed: NDArray[Any] = states.squeeze(axis=dropped) if dropped else states
        return squeezed
