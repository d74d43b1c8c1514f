"""Attributes of a store's groups, sealed: each document holds a digest of itself and of its path.

A changed character, an older document and one of another group are found when the attributes are read. Stores of
format 1 have no seals; their attributes are taken as they are.
"""

from __future__ import annotations

import json
from typing import Any

import zarr
from zarr.abc.store import Store

from drillcore.errors import DamageError
from drillcore.store.places.files import read_file, write_file
from drillcore.system.files import digest, without_nan

FORMAT, FIRST_FORMAT = 2, 1
FORMATS = (FIRST_FORMAT, FORMAT)
SEAL = "seal"
# Digests of the files of a group's arrays, by array; of the groups' documents in the root of a finished store.
CONTENTS = "contents"
# Paths of all groups, `model/dataset`, in the root: each is listed before it is made.
MEMBERS = "members"
# Paths of the groups that belong to the job, in the root; the others left it.
GROUPS = "groups"
# Paths of the groups that were complete when a run last finished, in the root while another one is under way.
COMPLETE = "complete"
# Digest of the consolidated metadata of a finished store, in the root.
CONSOLIDATED = "consolidated"
# While a group is being renamed: its path before and after.
MOVED_FROM, MOVED_TO = "moved_from", "moved_to"
# Of a group that is growing: the fingerprint of each shard, by number, that holds only its first rows so far.
BEGUN = "begun"
MEND = "`drillcore verify` names all that is damaged; `drillcore run` then computes exactly that again."
# What reading a document of any shape raises.
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


def document_key(path: str) -> str:
    """Key of the zarr.json of a group or array."""
    return f"{path}/zarr.json".lstrip("/")


def parse_document(raw: bytes | None) -> dict[str, Any]:
    """A zarr.json as a mapping with a mapping of attributes; raises ValueError where it is damaged or missing."""
    if raw is None:
        raise ValueError("the file is missing")
    try:
        document = json.loads(raw)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(document, dict) or not isinstance(document.get("attributes", {}), dict):
        raise ValueError("it is not the description of a group or array")
    return document


def check_seal(attributes: dict[str, Any], path: str) -> dict[str, Any]:
    """The attributes without their seal; raises ValueError where it is not theirs."""
    plain = {name: value for name, value in attributes.items() if name != SEAL}
    place = plain.get(MOVED_FROM) if plain.get(MOVED_TO) == path else path
    if attributes.get(SEAL) != digest([place, plain]):
        raise ValueError("its attributes do not match their seal")
    return plain


def is_unsealed(store: Store) -> bool:
    """Whether a store is of format 1, or being brought up to date from it, so that groups may have no seal."""
    try:
        attributes = parse_document(read_file(store, "zarr.json")).get("attributes", {})
    except ValueError:
        return False
    return SEAL not in attributes and attributes.get("format") == FIRST_FORMAT


def checked_attributes(store: Store, path: str) -> dict[str, Any]:
    """Attributes of the group at a path, without their seal; raises DamageError where they are damaged or missing."""
    try:
        document = parse_document(read_file(store, document_key(path)))
        if document.get("node_type") != "group":
            raise ValueError("it is not the description of a group")
        attributes: dict[str, Any] = document.get("attributes", {})
        if SEAL not in attributes and is_unsealed(store):
            return attributes
        return check_seal(attributes, path)
    except ValueError as error:
        raise DamageError(f"{document_key(path)} is damaged: {error}", hint=MEND) from None


def read_attributes(store: Store, path: str) -> dict[str, Any]:
    """The same; empty where there is no such group, or its attributes are damaged."""
    try:
        return checked_attributes(store, path)
    except DamageError:
        return {}


def attributes_of(group: zarr.Group) -> dict[str, Any]:
    """Attributes of a group as its store holds them now; raises DamageError."""
    return checked_attributes(group.store, group.path)


def is_finished(root: dict[str, Any], path: str) -> bool:
    """Whether the group at a path must be complete, by the attributes of the root: its job's run finished."""
    return CONTENTS in root and path in root.get(GROUPS, root.get(MEMBERS, ()))


def group_document(attributes: dict[str, Any], path: str) -> dict[str, Any]:
    """The zarr.json of a group with these attributes, sealed."""
    plain = json.loads(json.dumps(without_nan({k: v for k, v in attributes.items() if k != SEAL})))
    return {"attributes": {**plain, SEAL: digest([path, plain])}, "zarr_format": 3, "node_type": "group"}


def document_bytes(document: dict[str, Any]) -> bytes:
    """A zarr.json as it is written: sorted, so that equal documents have equal bytes."""
    return json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True).encode()


def put_attributes(store: Store, path: str, attributes: dict[str, Any]) -> None:
    """Write all attributes of a group at once and seal them, unless nothing changes; makes the group.

    Whatever else its zarr.json holds, which is consolidated metadata, is removed. Raises CommitError.
    """
    data = document_bytes(group_document(attributes, path))
    if read_file(store, document_key(path)) != data:
        write_file(store, document_key(path), data)


def update_attributes(group: zarr.Group, **facts: Any) -> None:
    """Set some attributes of a group; the others stay. Raises CommitError, DamageError."""
    put_attributes(group.store, group.path, {**attributes_of(group), **facts})


def make_group(store: Store, path: str) -> zarr.Group:
    """The group at a path, made where it is missing or its attributes are lost; the arrays below it stay."""
    try:
        checked_attributes(store, path)
    except DamageError:
        put_attributes(store, path, {})
    return zarr.open_group(store, path=path, mode="r+", use_consolidated=False)
