"""Reading a store: as an xarray tree for users, one layer at a time for the later stages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.errors import GroupNotFoundError

from drillcore.errors import DamageError, StoreError
from drillcore.store.layout import array_of
from drillcore.store.location import Location
from drillcore.store.writer import check_ours

if TYPE_CHECKING:
    import xarray as xr


def open_root(location: Location) -> zarr.Group:
    """The root group, read-only; raises StoreError where there is no store of ours."""
    if not location.is_s3 and not location.path.is_dir():
        raise StoreError(f"there is no store at {location.address}", hint="Run the job first, or check the path.")
    try:
        root = zarr.open_group(location.open(read_only=True), mode="r", zarr_format=3, use_consolidated=False)
    except (FileNotFoundError, GroupNotFoundError):
        raise StoreError(f"store {location.address} is not a drillcore store", hint="Check the path.") from None
    check_ours(dict(root.attrs), location.address, None)
    return root


def open_tree(address: str) -> xr.DataTree:
    """The whole store as an xarray DataTree, lazily; does not depend on consolidated metadata."""
    import xarray as xr

    location = Location(address)
    open_root(location)
    return xr.open_datatree(cast(Any, location.open(read_only=True)), engine="zarr", consolidated=False)


def read_layer(group: zarr.Group, slot: int) -> NDArray[np.float32]:
    """States [N, H] of the layer at position `slot`, as float32; raises DamageError where bytes are damaged."""
    try:
        return np.asarray(array_of(group, "hidden_states")[:, slot], dtype=np.float32)
    except (ValueError, RuntimeError) as error:
        raise DamageError(
            f"{group.path}: layer {slot} cannot be read: {error}",
            hint="`drillcore verify` names what is damaged; `drillcore run` mends it.",
        ) from error


def column(group: zarr.Group, name: str) -> NDArray[Any] | None:
    """A coordinate of all sentences, or None where the group has none of that name."""
    if name not in group:
        return None
    values = np.asarray(array_of(group, name)[:])
    return values.astype(object) if values.dtype.kind == "T" else values
