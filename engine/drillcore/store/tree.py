"""The store as an xarray DataTree whose `hidden_states` read only what is used, through our own reader."""

from __future__ import annotations

import warnings
from typing import Any, cast

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from drillcore.errors import DamageError
from drillcore.store.arrays import CANARIES, SPARE
from drillcore.store.attributes import CONSOLIDATED, CONTENTS, MEMBERS, MEND, SEAL
from drillcore.store.finished import check_documents
from drillcore.store.freshness import stale_results
from drillcore.store.places.location import Location
from drillcore.store.reader import open_root
from drillcore.store.states import StatesReader

# Attributes by which a store proves what it holds; of no use to those who read it.
RECORDS = (SEAL, CONTENTS, MEMBERS, CONSOLIDATED)


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


def with_fast_states(tree: xr.DataTree, root: zarr.Group) -> xr.DataTree:
    """The tree with every `hidden_states` read by our reader, without canaries, records and spare rows."""
    for node in tree.subtree:
        for name in RECORDS:
            node.attrs.pop(name, None)
        if CANARIES in node.data_vars:
            # Their dimensions would show in the nodes of the datasets below.
            node.dataset = node.to_dataset(inherit=False).drop_vars(CANARIES)
        if "hidden_states" not in node.data_vars:
            continue
        old = node.data_vars["hidden_states"].variable
        group = root[node.path.strip("/")]
        assert isinstance(group, zarr.Group)
        reader = StatesReader(group)
        dims = old.dims if reader.shape.rows is None else ("row", *old.dims[1:])
        variable = xr.Variable(dims, indexing.LazilyIndexedArray(LazyStates(reader)), old.attrs, old.encoding)
        if dims != old.dims:
            node.dataset = node.to_dataset(inherit=False).drop_vars("hidden_states")
        node["hidden_states"] = variable
        _mark_stale(node, group)
        _drop_spare(node)
    return tree


def _drop_spare(node: xr.DataTree) -> None:
    """Leave out the rows that hold no sentence: those that fill the last shard of a block."""
    if SPARE not in node.variables:
        return
    dataset = node.to_dataset(inherit=False)
    rows = dataset[SPARE].dims[0]
    node.dataset = dataset.isel({rows: np.flatnonzero(~dataset[SPARE].values)}).drop_vars(SPARE)


def _mark_stale(node: xr.DataTree, group: zarr.Group) -> None:
    """Give results that do not belong to what they stand beside an attribute `stale`, and warn of them."""
    why = stale_results(group)
    for name, reason in why.items():
        node[name].attrs["stale"] = reason
    if why:
        said = "; ".join(f"{name}: {reason}" for name, reason in why.items())
        warnings.warn(f"{group.path} has stale results ({said}); run the job again", UserWarning, stacklevel=4)


def open_tree(address: str) -> xr.DataTree:
    """The whole store as an xarray DataTree, lazily; does not depend on consolidated metadata.

    `hidden_states` are read past zarr-python: faster, and damage is named. Raises StoreError, DamageError.
    """
    location = Location(address)
    root = open_root(location)
    check_documents(root.store)
    try:
        tree = xr.open_datatree(cast(Any, root.store), engine="zarr", consolidated=False)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise DamageError(f"store {address} cannot be opened: {error}", hint=MEND) from error
    return with_fast_states(tree, root)
