"""The last tokens of each sentence as a dimension `position`, -1 being the last one, and no longer as rows.

Shape legend: N sentences, P positions, R rows.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.core import indexing

from drillcore.store.lazy import LazyPositions
from drillcore.store.states import StatesReader

FILLS = {"f": np.nan, "i": -1, "b": False}


def with_positions(dataset: xr.Dataset, reader: StatesReader, count: int) -> xr.Dataset:
    """A group of the last `count` tokens with the dimensions `sentence` and `position` in place of `row`.

    Where a sentence has fewer tokens, `mask` is False, states and projections are NaN, and tokens -1.
    """
    size_N = dataset["row_size"].values
    row_NP = rows_of(size_N, count)
    states = dataset["hidden_states"].variable
    rest = dataset.drop_vars(["hidden_states", "row", "sentence", "position"]).rename_dims({"instance": "sentence"})
    found = {name: rest[name].variable for name in rest.variables if "row" not in rest[name].dims}
    found |= {name: _spread(rest[name].variable, row_NP) for name in rest.variables if "row" in rest[name].dims}
    lazy = indexing.LazilyIndexedArray(LazyPositions(reader, row_NP))
    found["hidden_states"] = xr.Variable(("sentence", "position", *states.dims[1:]), lazy, states.attrs)
    found["mask"] = xr.Variable(("sentence", "position"), row_NP >= 0)
    found["sentence"] = xr.Variable(("sentence",), np.arange(len(size_N)))
    found["position"] = xr.Variable(("position",), np.arange(-count, 0))
    coordinates = {*map(str, rest.coords), "mask", "sentence", "position"}
    return xr.Dataset(
        {name: v for name, v in found.items() if name not in coordinates},
        {name: v for name, v in found.items() if name in coordinates},
        dataset.attrs,
    )


def rows_of(size_N: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The row of each sentence at each position [N, P], -1 where it has none.

    >>> rows_of(np.array([3, 1, 2]), 2).tolist()
    [[1, 2], [-1, 3], [4, 5]]
    """
    end_N = np.cumsum(size_N)
    row_NP = end_N[:, None] - count + np.arange(count)
    return np.where(row_NP >= (end_N - size_N)[:, None], row_NP, -1)


def _spread(variable: xr.Variable, row_NP: NDArray[np.int64]) -> xr.Variable:
    """A variable over rows as one over sentences and positions; it stays lazy where every sentence is long enough."""
    index = xr.Variable(("sentence", "position"), np.maximum(row_NP, 0))
    spread = variable.isel(row=index)
    if (row_NP >= 0).all():
        return spread
    there = xr.Variable(("sentence", "position"), row_NP >= 0)
    filled: xr.Variable = spread.where(there, FILLS.get(variable.dtype.kind, ""))  # type: ignore[no-untyped-call]
    return filled
