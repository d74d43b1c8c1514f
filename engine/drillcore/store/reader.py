"""Reads a store for the later stages: one layer, one column or one small array at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.errors import GroupNotFoundError

from drillcore.errors import DamageError, StoreError
from drillcore.store.layout import MEND, array_of, check_ours
from drillcore.store.places.location import Location
from drillcore.store.states import StatesReader


def open_root(location: Location) -> zarr.Group:
    """The root group, read-only; raises StoreError where there is no drillcore store, DamageError for a damaged one."""
    location.check()
    if not location.is_s3 and not location.path.is_dir():
        raise StoreError(f"there is no store at {location.address}", hint="Run the job first, or check the path.")
    try:
        root = zarr.open_group(location.open(read_only=True), mode="r", zarr_format=3, use_consolidated=False)
    except (FileNotFoundError, GroupNotFoundError):
        raise StoreError(f"store {location.address} is not a drillcore store", hint="Check the path.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DamageError(f"{location.address}/zarr.json is damaged: {error}", hint=MEND) from None
    check_ours(dict(root.attrs), location.address, None)
    return root


def open_dataset(address: str, path: str) -> zarr.Group:
    """The group of one model and dataset, read-only, without looking at the rest of the store.

    path: `model/dataset`. Raises zarr's GroupNotFoundError where there is none.
    """
    return zarr.open_group(Location(address).open(read_only=True), path=path, mode="r", use_consolidated=False)


def read_layer(group: zarr.Group, slot: int) -> NDArray[np.float32]:
    """States [N, H] of the layer at position `slot`, as float32; raises DamageError where bytes are damaged."""
    reader = StatesReader(group)
    states_NQH = reader.read(np.arange(reader.shape.num_sentences), np.array([slot]))
    return np.asarray(states_NQH[:, 0], dtype=np.float32)


def column(group: zarr.Group, name: str) -> NDArray[Any] | None:
    """A coordinate of all sentences, None where the group does not have it; raises DamageError where it is damaged."""
    if name not in group:
        return None
    return read_array(group, name)


def read_array(group: zarr.Group, name: str) -> NDArray[Any]:
    """All values of a small array, strings as objects; raises DamageError where it is damaged or missing."""
    try:
        values = np.asarray(array_of(group, name)[...])
    except (ValueError, RuntimeError, TypeError) as error:
        raise DamageError(f"{group.path}: {name} cannot be read: {error}", hint=MEND) from None
    return values.astype(object) if values.dtype.kind == "T" else values
