"""The root of a finished store: what it records of the groups, and their metadata, consolidated.

Consolidated metadata are made from documents that were checked, and the root records their digest.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.errors import ZarrUserWarning
from zarr.storage import MemoryStore

from drillcore.errors import DamageError
from drillcore.store.attributes import (
    CONSOLIDATED,
    CONTENTS,
    MEMBERS,
    MEND,
    checked_attributes,
    document_bytes,
    document_key,
    group_document,
    parse_document,
)
from drillcore.store.contents import READERS, fast_digest
from drillcore.store.places.files import read_file, write_file
from drillcore.system.files import digest


def checked_documents(store: Store, members: Sequence[str]) -> dict[str, bytes]:
    """The zarr.json of every group and array that the store records, by path; raises DamageError for a wrong one."""
    documents = {}
    for path in dict.fromkeys([*(member.split("/")[0] for member in members), *members]):
        documents[path] = read_file(store, document_key(path)) or b""
        attributes = checked_attributes(store, path)
        for name, digests in attributes.get(CONTENTS, {}).items():
            raw = read_file(store, f"{path}/{name}/zarr.json")
            if raw is None or fast_digest(raw) != digests.get("zarr.json"):
                raise DamageError(f"{path}/{name}/zarr.json is not the one that its group records", hint=MEND)
            documents[f"{path}/{name}"] = raw
    return documents


def check_documents(store: Store) -> None:
    """Raise DamageError where a group or array of a store cannot be opened for what its zarr.json is.

    One error, before Zarr opens all of them at once and every task that fails has one of its own.
    """
    root = checked_attributes(store, "")

    def look(path: str) -> None:
        # Groups are listed before they are made.
        if CONTENTS in root or read_file(store, document_key(path)) is not None:
            for name in checked_attributes(store, path).get(CONTENTS, {}):
                read_file(store, f"{path}/{name}/zarr.json")

    members = root.get(MEMBERS, [])
    with ThreadPoolExecutor(READERS, "look") as pool:
        list(pool.map(look, dict.fromkeys([*(member.split("/")[0] for member in members), *members])))


def finished_root(attributes: dict[str, Any], documents: dict[str, bytes]) -> bytes:
    """The root's zarr.json with these attributes and these documents as its consolidated metadata."""
    memory = MemoryStore()
    write_file(memory, "zarr.json", json.dumps(group_document(attributes, "")).encode())
    for path, raw in documents.items():
        write_file(memory, document_key(path), raw)
    with warnings.catch_warnings():
        # Not yet part of the Zarr 3 specification; zarr and xarray read it all the same.
        warnings.filterwarnings(
            "ignore", message="Consolidated metadata is currently not part", category=ZarrUserWarning
        )
        zarr.consolidate_metadata(memory, zarr_format=3)
    consolidated = parse_document(read_file(memory, "zarr.json"))["consolidated_metadata"]
    document = group_document({**attributes, CONSOLIDATED: digest(consolidated)}, "")
    return document_bytes({**document, "consolidated_metadata": consolidated})
