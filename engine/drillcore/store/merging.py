"""Puts the groups of finished stores into a new one, byte for byte.

Until all are there its root says that it is no store yet. A kill leaves that, and the next merge into the same place
begins anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from zarr.abc.store import Store

from drillcore.errors import DrillcoreError, StoreError
from drillcore.store.arrays import CANARIES
from drillcore.store.attributes import FORMAT, GROUPS, MEMBERS, document_bytes, group_document, parse_document
from drillcore.store.layout import KIND
from drillcore.store.places.files import list_files, list_names, read_file, remove_file, remove_folder, write_file
from drillcore.store.places.location import Location
from drillcore.store.writer import consolidate
from drillcore.system.files import PARTIAL

# What the root says that it is while groups are copied: readers and runs refuse it.
UNDER_WAY = f"{KIND} merge under way"


@dataclass(frozen=True)
class Source:
    """A store whose groups are copied, and to which nobody writes meanwhile. root: attributes of its root."""

    store: Store
    root: dict[str, Any]


def refuse_what_is_there(into: Location) -> None:
    """Raise StoreError where the place of a new store holds anything but what a merge left that was killed."""
    into.check()
    if not into.is_s3 and not into.path.exists():
        return
    store = into.open(read_only=True)
    if not _is_left(store) and any(not name.endswith(PARTIAL) for name in list_names(store, "")):
        raise StoreError(
            f"{into.address} is there already", hint="A merge makes a new store: name a place where there is nothing."
        )


def merge_stores(sources: Sequence[Source], into: Location, job: str) -> None:
    """Write a new store with all groups of some, whose paths are distinct.

    into: locked. job: to which the new store belongs. Raises StoreError where there is something already, CommitError
    where the place refuses, DamageError where a document is not the one that its group records.
    """
    refuse_what_is_there(into)
    store = into.open()
    try:
        write_file(store, "zarr.json", document_bytes(group_document({"kind": UNDER_WAY}, "")))
        _clear(store)
        for model, of_model in _models(sources).items():
            _copy(of_model, store, model, ["zarr.json", *_below(of_model, model, CANARIES)])
        for source in sources:
            for path in source.root[MEMBERS]:
                _copy(source.store, store, path, list_files(source.store, path))
        roots = [source.root for source in sources]
        attributes = {"kind": KIND, "format": FORMAT, "job": job, "drillcore": roots[0]["drillcore"]}
        for name in (MEMBERS, GROUPS):
            attributes[name] = [path for root in roots for path in root.get(name, root[MEMBERS])]
        consolidate(store, attributes)
    except BaseException:
        with suppress(DrillcoreError):
            _clear(store)
            remove_file(store, "zarr.json")
        raise


def _is_left(store: Store) -> bool:
    """Whether a place holds what is left of a merge that was killed."""
    try:
        return bool(parse_document(read_file(store, "zarr.json")).get("attributes", {}).get("kind") == UNDER_WAY)
    except ValueError:
        return False


def _clear(store: Store) -> None:
    """Remove everything but the root's document."""
    for name in list_names(store, ""):
        if name != "zarr.json":
            remove_folder(store, name)


def _models(sources: Sequence[Source]) -> dict[str, Store]:
    """Every model, and the first store that has it, with its canaries where one has them."""
    found: dict[str, Store] = {}
    for source in sources:
        for model in dict.fromkeys(path.split("/")[0] for path in source.root[MEMBERS]):
            has_more = model in found and not _below(found[model], model, CANARIES)
            if model not in found or (has_more and _below(source.store, model, CANARIES)):
                found[model] = source.store
    return found


def _below(store: Store, path: str, name: str) -> list[str]:
    """Keys of the files of an array, below its group."""
    return [f"{name}/{key}" for key in list_files(store, f"{path}/{name}")]


def _copy(source: Store, store: Store, path: str, keys: list[str]) -> None:
    """Copy files of a group, those that describe arrays first; folders without files are left out."""
    for key in sorted(keys, key=lambda key: not key.endswith("zarr.json")):
        data = read_file(source, f"{path}/{key}")
        if data is not None:
            write_file(store, f"{path}/{key}", data)
