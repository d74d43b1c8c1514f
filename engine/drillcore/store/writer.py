"""A store opened for a run of one job: its root, its groups, and what holds for all of them."""

from __future__ import annotations

import json
import warnings
from contextlib import suppress

import zarr
from zarr.abc.store import Store
from zarr.buffer import default_buffer_prototype
from zarr.errors import GroupNotFoundError, ZarrUserWarning
from zarr.storage import MemoryStore

from drillcore.errors import DamageError, StoreError
from drillcore.store.checks.groups import group_paths
from drillcore.store.group import GroupWriter
from drillcore.store.layout import FORMAT, KIND, check_ours
from drillcore.store.places.files import list_names, move_folder, read_file, remove_folder, write_file
from drillcore.store.places.local import sweep
from drillcore.store.places.location import Location
from drillcore.system.files import PARTIAL

__all__ = ["GroupWriter", "StoreWriter"]
# What zarr raises for a zarr.json that is not JSON, or JSON of another kind.
UNREADABLE = (ValueError, KeyError, TypeError)


def refuse_foreign(location: Location, job_name: str) -> None:
    """Raise StoreError where the store's place holds something else, or the store of another job; writes nothing.

    Raises DamageError where damage hides whose store it is.
    """
    if not location.is_s3 and not location.path.exists():
        return
    store = location.open(read_only=True)
    try:
        root = zarr.open_group(store, mode="r", zarr_format=3, use_consolidated=False)
    except (FileNotFoundError, GroupNotFoundError):
        if any(not name.endswith(PARTIAL) for name in list_names(store, "")):
            raise _not_ours(location) from None
    except UNREADABLE:
        _refuse_unless_ours_in_ruins(location, job_name)
    else:
        check_ours(dict(root.attrs), location.address, job_name)


def _not_ours(location: Location) -> StoreError:
    return StoreError(
        f"store {location.address} exists and is not a drillcore store",
        hint="Name a folder that does not exist yet. If these are the remains of a store, remove them first.",
    )


def _refuse_unless_ours_in_ruins(location: Location, job_name: str) -> None:
    """Accept damaged root metadata, to be written again, only where their readable part names this job."""
    raw = read_file(location.open(read_only=True), "zarr.json") or b""
    with suppress(*UNREADABLE):
        if json.loads(raw)["node_type"] == "array":
            raise _not_ours(location)
    ours = (f'"kind": "{KIND}"', f'"format": {FORMAT}', f'"job": {json.dumps(job_name)}')
    if not all(text.encode() in raw for text in ours):
        raise DamageError(
            f"{location.address}/zarr.json is damaged and does not say which job the store belongs to",
            hint="Restore it from a copy, or move the store away.",
        )


class StoreWriter:
    """A store opened for a run of one job.

    Raises StoreError where it is not ours or of another job, CommitError where the place refuses a write.
    """

    def __init__(self, location: Location, job_name: str, version: str) -> None:
        self.location = location
        refuse_foreign(location, job_name)
        store = location.open()
        attributes = {"kind": KIND, "format": FORMAT, "job": job_name, "drillcore": version}
        try:
            self.root = zarr.open_group(store, mode="r+", zarr_format=3, use_consolidated=False)
        except (FileNotFoundError, GroupNotFoundError):
            self.root = zarr.create_group(store, attributes=attributes)
        except UNREADABLE:
            self._write_group("", attributes)
            self.root = zarr.open_group(store, mode="r+", zarr_format=3, use_consolidated=False)
        drop_consolidated(self.root.store)
        if not location.is_s3:
            sweep(location.path)

    def _write_group(self, path: str, attributes: dict[str, object]) -> None:
        metadata = zarr.create_group(MemoryStore(), attributes=attributes).metadata
        data = metadata.to_buffer_dict(default_buffer_prototype())["zarr.json"]
        write_file(self.location.open(), f"{path}/zarr.json".lstrip("/"), data.to_bytes())

    def set_groups(self, paths: list[str]) -> None:
        """Record which groups, `model/dataset`, belong to the job now; others have left it."""
        if self.root.attrs.get("groups") != paths:
            self.root.attrs["groups"] = paths

    def move(self, path: str, to: str) -> None:
        """Give a group, `model/dataset`, another path, with all that is in it; what is at that path is replaced."""
        self.model(to.split("/")[0])
        remove_folder(self.root.store, to)
        move_folder(self.root.store, path, to)
        _remove_empty_model(self.root.store, path.split("/")[0])

    def model(self, name: str) -> zarr.Group:
        """The group of a model, whose attributes hold its numerics."""
        try:
            return self.root.require_group(name)
        except UNREADABLE:
            # Its attributes are lost and written again; the arrays below it stay.
            self._write_group(name, {})
            return self.root.require_group(name)

    def dataset(self, model: str, dataset: str) -> GroupWriter:
        """The group of a model and dataset."""
        self.model(model)
        return GroupWriter(self.model(f"{model}/{dataset}"))

    def finish(self) -> None:
        """Write consolidated metadata: the run is complete."""
        try:
            consolidate(self.root.store)
        except (GroupNotFoundError, FileNotFoundError, *UNREADABLE) as error:
            raise DamageError(
                f"store {self.location.address} was removed or damaged while the run was under way: {error}",
                hint="Run the same command again.",
            ) from None


def remove_groups(location: Location, paths: list[str]) -> None:
    """Remove groups, `model/dataset`, of a store; the group of a model goes with its last dataset.

    Fingerprints go first: none may stand for missing data. Raises CommitError where the place refuses.
    """
    store = location.open()
    finished = "consolidated_metadata" in json.loads(read_file(store, "zarr.json") or b"{}")
    drop_consolidated(store)
    for path in paths:
        remove_folder(store, f"{path}/shard_fingerprint")
        remove_folder(store, path)
        _remove_empty_model(store, path.split("/")[0])
    if finished:
        consolidate(store)


def _remove_empty_model(store: Store, model: str) -> None:
    if not any(path.split("/")[0] == model for path in group_paths(store)):
        remove_folder(store, model)


def drop_consolidated(store: Store) -> None:
    """Remove consolidated metadata, so that readers look at the hierarchy itself."""
    document = json.loads(read_file(store, "zarr.json") or b"{}")
    if document.pop("consolidated_metadata", None) is not None:
        write_file(store, "zarr.json", json.dumps(document, indent=2).encode())


def consolidate(store: Store) -> None:
    """Write consolidated metadata, so that the store opens quickly."""
    with warnings.catch_warnings():
        # Not yet part of the Zarr 3 specification; zarr and xarray read it all the same.
        warnings.filterwarnings(
            "ignore", message="Consolidated metadata is currently not part", category=ZarrUserWarning
        )
        zarr.consolidate_metadata(store, zarr_format=3)
