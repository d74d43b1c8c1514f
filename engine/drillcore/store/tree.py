"""The store as an xarray DataTree whose `hidden_states` read only what is used, through our own reader."""

from __future__ import annotations

import warnings
from typing import Any, cast

import xarray as xr
import zarr
from xarray.core import indexing

from drillcore.errors import DamageError
from drillcore.store.arrays import CANARIES
from drillcore.store.attributes import CONSOLIDATED, CONTENTS, MEMBERS, MEND, SEAL
from drillcore.store.finished import check_documents
from drillcore.store.freshness import stale_results
from drillcore.store.last_tokens import with_positions
from drillcore.store.lazy import LazyStates
from drillcore.store.places.location import Location
from drillcore.store.reader import open_root
from drillcore.store.states import StatesReader

# Attributes by which a store proves what it holds; of no use to those who read it.
RECORDS = (SEAL, CONTENTS, MEMBERS, CONSOLIDATED)


def with_fast_states(tree: xr.DataTree, root: zarr.Group) -> xr.DataTree:
    """The tree with every `hidden_states` read by our reader, without canaries and records."""
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
        if isinstance(node.attrs.get("position"), dict) and "last" in node.attrs["position"]:
            node.dataset = with_positions(node.to_dataset(inherit=False), reader, int(node.attrs["position"]["last"]))
        _mark_stale(node, group)
    return tree


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
