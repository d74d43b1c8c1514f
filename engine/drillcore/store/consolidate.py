"""Consolidated metadata: written when a run completes, dropped before structure changes, since it hides what is new."""

from __future__ import annotations

import json
import warnings

import zarr
from zarr.abc.store import Store
from zarr.errors import ZarrUserWarning

from drillcore.store.places.files import read_file, write_file


def drop_consolidated(store: Store) -> None:
    """Make readers look at the hierarchy itself."""
    document = json.loads(read_file(store, "zarr.json") or b"{}")
    if document.pop("consolidated_metadata", None) is not None:
        write_file(store, "zarr.json", json.dumps(document, indent=2).encode())


def consolidate(store: Store) -> None:
    """Write consolidated metadata for quick opening."""
    with warnings.catch_warnings():
        # Not yet part of the Zarr 3 specification; zarr and xarray read it all the same.
        warnings.filterwarnings(
            "ignore", message="Consolidated metadata is currently not part", category=ZarrUserWarning
        )
        zarr.consolidate_metadata(store, zarr_format=3)
