"""Consolidated metadata: written when a run completes, dropped before structure changes, since it hides what is new."""

from __future__ import annotations

import warnings
from dataclasses import replace

import zarr
from zarr.errors import ZarrUserWarning


def drop_consolidated(root: zarr.Group) -> None:
    """Make readers look at the hierarchy itself."""
    if root.metadata.consolidated_metadata is None:
        stored = zarr.open_group(root.store, mode="r", zarr_format=3)
        if stored.metadata.consolidated_metadata is None:
            return
    # Rewriting the root's attributes writes its metadata without the consolidated part.
    object.__setattr__(root._async_group, "metadata", replace(root.metadata, consolidated_metadata=None))
    root.attrs.put(dict(root.attrs))


def consolidate(root: zarr.Group) -> None:
    """Write consolidated metadata for quick opening."""
    with warnings.catch_warnings():
        # Not yet part of the Zarr 3 specification; zarr and xarray read it all the same.
        warnings.filterwarnings(
            "ignore", message="Consolidated metadata is currently not part", category=ZarrUserWarning
        )
        zarr.consolidate_metadata(root.store, zarr_format=3)
