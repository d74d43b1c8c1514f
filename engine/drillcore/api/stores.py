"""Stores as Python code names them, and one opened as xarray."""

from __future__ import annotations

import os
from os import PathLike
from typing import TYPE_CHECKING

import zarr

from drillcore.errors import StoreError
from drillcore.job.common import expand
from drillcore.store.layout import array_of
from drillcore.store.places.location import Location
from drillcore.store.reader import num_rows, open_root
from drillcore.system.progress import counted

if TYPE_CHECKING:
    import xarray as xr

# A path, an s3:// or hf:// address, or what `drillcore.run` gives.
AnyStore = str | PathLike[str]


def open(store: AnyStore, *, internals: bool = False) -> xr.DataTree:
    """Open a store as an xarray DataTree: one group for each model and dataset, arrays read when used.

    A layer is found by its number (`.sel(layer=2)`) and, in a group's arrays and datasets, by its name
    (`.sel(layer_name="block_2")`, which a tree and its nodes do not take: `tree["model/sentences"].to_dataset()` does);
    `.drop_indexes("layer_name")` before layers are stacked or reindexed. internals: show what the store keeps for
    itself too. Raises StoreError where there is no drillcore store, DamageError where it is damaged.

    >>> tree = drillcore.open("runs/job.zarr")
    >>> states = tree["model/sentences"].hidden_states
    >>> states.dims, states.sel(layer_name="block_2").shape == states.sel(layer=2).shape
    (('sentence', 'layer', 'hidden'), True)
    """
    from drillcore.store.tree import open_tree

    return open_tree(address_of(store), internals=internals)


def address_of(store: AnyStore) -> str:
    """Path, or s3:// or hf:// address; `~` is the home folder."""
    address = os.fspath(store)
    if address.startswith(("s3:/", "hf:/")):
        return f"{address[:4]}/{address[4:].lstrip('/')}"  # a Path has one slash
    return str(expand(address)) if address.startswith("~") else address


def group_names(root: zarr.Group) -> list[str]:
    """The groups of a store, `model/dataset`."""
    return [f"{m}/{d}" for m, group in sorted(root.groups()) for d, _ in sorted(group.groups())]


def find_group(store: AnyStore, wanted: str | None) -> zarr.Group:
    """A group of a store, `model/dataset`; raises StoreError where there is none of several, or no such one."""
    root = open_root(Location(address_of(store)))
    names = group_names(root)
    if wanted is None and len(names) != 1:
        what = "holds several models or datasets" if names else "holds nothing yet"
        raise StoreError(
            f"the store {what}", hint=f"Name a group, one of {', '.join(names)}." if names else "Run the job first."
        )
    name = names[0] if wanted is None else wanted.strip("/")
    if name not in names:
        raise StoreError(f"the store has no group {name}", hint=f"It has {', '.join(names)}.")
    group = root[name]
    assert isinstance(group, zarr.Group)
    return group


def num_sentences(group: zarr.Group) -> int:
    """Sentences of a group, which has a row for each unless its positions give a sentence several."""
    return array_of(group, "row_size").shape[0] if "row_size" in group else num_rows(group)


def said_of_rows(sentences: int, rows: int) -> str:
    """A group's size in words."""
    return (
        counted(sentences, "sentences") if sentences == rows else f"{counted(rows, 'rows')} of {sentences:,} sentences"
    )
