"""The store as an xarray DataTree whose `hidden_states` read only what is used, through our own reader."""

from __future__ import annotations

import json
import warnings
from typing import Any, cast

import xarray as xr
import zarr
from xarray.core import indexing

from drillcore.errors import DamageError
from drillcore.store.arrays import CANARIES, INTERNALS
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
# Attributes that a user may ask for: of a store, of a model, and of a group; a result's facts go to its array.
KEPT = ("kind", "format", "drillcore", "job", "numerics", "position")
# Of the facts of a result, those by which the store knows what it was made from.
MADE_FROM = ("inputs", "made_from")


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
        warnings.warn(f"{group.path} has stale results ({said}); run the job again", UserWarning, stacklevel=5)


def for_users(dataset: xr.Dataset) -> xr.Dataset:
    """One group as a user asked for it: without what the store keeps for itself, its layers found by number and name.

    Digests, records and row ids are left out. `.sel(layer=2)` and `.sel(layer_name="block_2")` take the same layer.
    The facts of each result stand at its array; attributes are texts and numbers (JSON where they are more), so that
    a netCDF file can hold them. States stay unread.

    >>> layers = {"layer": [0, 1], "layer_name": ("layer", ["embed", "block_1"])}
    >>> opened = for_users(xr.Dataset({"hidden_states": ("layer", [1.0, 2.0])}, layers))
    >>> opened.hidden_states.sel(layer_name="block_1").item()
    2.0
    """
    shown = dataset.drop_vars([name for name in INTERNALS if name in dataset.variables]).copy()
    results = dataset.attrs.get("results", {})
    for name in [n for n in shown.variables if n in results]:
        facts = {k: v for k, v in results[name].items() if k not in MADE_FROM}
        shown[name].attrs = {**_plain(facts), **shown[name].attrs}
    shown.attrs = _plain({name: value for name, value in dataset.attrs.items() if name in KEPT})
    if "layer_name" in shown.coords and "layer_name" not in shown.xindexes:
        shown = shown.set_xindex("layer_name")
    return shown


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts as attributes: texts and numbers as they are, others as JSON, without those that are not known."""
    plain = {name: value for name, value in facts.items() if value is not None}
    return {n: v if isinstance(v, str | int | float) else json.dumps(v, ensure_ascii=False) for n, v in plain.items()}


def open_tree(address: str, *, internals: bool = False) -> xr.DataTree:
    """The whole store as an xarray DataTree, lazily; does not depend on consolidated metadata.

    internals: everything that the store keeps for itself too, with all attributes as they are stored; otherwise each
    group is as `for_users` gives it. `hidden_states` are read past zarr-python: faster, and damage is named. Raises
    StoreError, DamageError.
    """
    location = Location(address)
    root = open_root(location)
    check_documents(root.store)
    try:
        tree = xr.open_datatree(cast(Any, root.store), engine="zarr", consolidated=False)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise DamageError(f"store {address} cannot be opened: {error}", hint=MEND) from error
    opened = with_fast_states(tree, root)
    if not internals:
        for node in opened.subtree:
            node.dataset = for_users(node.to_dataset(inherit=False))
    return opened
