"""Checks of the files that a store records: all are there, none is another, and nothing is beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from zarr.abc.store import Store

from drillcore.errors import DamageError
from drillcore.store.arrays import CANARIES
from drillcore.store.attributes import (
    CONSOLIDATED,
    CONTENTS,
    MEMBERS,
    checked_attributes,
    document_key,
    parse_document,
)
from drillcore.store.checks.finding import Finding
from drillcore.store.contents import OF_SHARDS, READERS, fast_digest
from drillcore.store.layout import Shape, every_column
from drillcore.store.places.files import list_files, list_names, read_file
from drillcore.system.files import PARTIAL, digest

EXCHANGED = "is damaged, or not the one that was recorded"


def check_files(store: Store, path: str, attributes: dict[str, Any]) -> Iterator[Finding]:
    """Compare every small file of a group with its digest.

    attributes: of the group, checked. Raises DamageError where a file cannot be read.
    """
    every = [(n, key, d) for n, digests in attributes.get(CONTENTS, {}).items() for key, d in digests.items()]

    def look(entry: tuple[str, str, str]) -> str:
        data = read_file(store, f"{path}/{entry[0]}/{entry[1]}")
        return "is missing" if data is None else "" if fast_digest(data) == entry[2] else EXCHANGED

    columns = {"row", "sentence", *(str(name) for name, _ in attributes.get("columns", []))}
    with ThreadPoolExecutor(READERS, "digest") as pool:
        for (name, key, _), wrong in zip(every, pool.map(look, every), strict=True):
            if wrong:
                mend = "columns" if name in columns else "result" if name in attributes.get("results", {}) else ""
                yield Finding(path, name, f"{key} {wrong}", mend=mend)


def check_contents(
    store: Store, path: str, attributes: dict[str, Any], shape: Shape | None, complete: bool
) -> Iterator[Finding]:
    """Everything that is wrong with the files of a group as they are recorded; nothing for a group of format 1.

    shape: of the states below, None for the group of a model. complete: whether the last run had finished, so that
    nothing may be missing or half written.
    """
    if CONTENTS not in attributes:
        return
    yield from check_files(store, path, attributes)
    contents, results = attributes[CONTENTS], attributes.get("results", {})
    columns = {name for name, _ in every_column(shape, attributes.get("columns", []))} if shape else set()
    for name in sorted({*columns, *results} - contents.keys()):
        if name in results or complete:
            mend = "result" if name in results else "columns"
            yield Finding(path, name, "is missing from what the group records", mend=mend)
    for name, digests in contents.items():
        if complete and (not digests or (name == "shard_planned" and len(digests) == 1)):
            yield Finding(path, name, "was not written to its end, although the run had finished")
    below = [] if shape else [name for name in list_names(store, path) if name != CANARIES]
    for name in list_names(store, path):
        known = name in contents or name in below or name == "zarr.json" or name.endswith(PARTIAL)
        if not known and (complete or name not in columns):
            yield foreign(path, name)
    for name, digests in contents.items():
        chunks = shard_keys(name, shape) if shape and name in OF_SHARDS else set()
        for key in list_files(store, f"{path}/{name}"):
            if digests and key not in digests and key not in chunks and not key.endswith(PARTIAL):
                yield foreign(path, f"{name}/{key}")


def shard_keys(name: str, shape: Shape) -> set[str]:
    """Keys of the chunks of an array of shards, below it."""
    ending = {"hidden_states": "/0/0", "shard_record": ""}.get(name, "/0")
    return {f"c/{shard}{ending}" for shard in range(shape.num_shards)}


def foreign(path: str, name: str) -> Finding:
    """What drillcore did not write."""
    return Finding(path, name, "is not part of the store; remove it, or move it away")


def check_models(store: Store, members: Iterable[str], complete: bool) -> Iterator[Finding]:
    """Check the groups of the models of a store of format 2."""
    for model in dict.fromkeys(path.split("/")[0] for path in members):
        try:
            attributes = checked_attributes(store, model)
        except DamageError as error:
            if complete or list_names(store, model):
                yield Finding(model, "zarr.json", str(error).partition(": ")[2])
            continue
        yield from check_contents(store, model, attributes, None, complete)


def check_root(store: Store) -> Iterator[Finding]:
    """Check that a store of format 2 has the groups that it records, nothing else, and right consolidated metadata."""
    root, raw = checked_attributes(store, ""), read_file(store, "zarr.json") or b""
    members, recorded = root.get(MEMBERS, []), root.get(CONTENTS)
    models = list(dict.fromkeys(path.split("/")[0] for path in members))
    for name in list_names(store, ""):
        if name not in models and name != "zarr.json" and not name.endswith(PARTIAL):
            yield foreign("", name)
    for model in models:
        for name in list_names(store, model):
            known = name in (CANARIES, "zarr.json") or name.endswith(PARTIAL)
            if f"{model}/{name}" not in members and not known:
                yield foreign(model, name)
    consolidated = "consolidated_metadata" in parse_document(raw)
    if recorded is None:
        if consolidated:
            yield Finding("", "zarr.json", "has consolidated metadata, although the run had not finished")
        return
    for path in dict.fromkeys([*models, *members]):
        document = read_file(store, document_key(path))
        if document is None:
            yield Finding(path, "zarr.json", "the group is gone; a run computes it again if it is one of the job")
        elif path not in recorded or fast_digest(document) != recorded[path].get("zarr.json"):
            yield Finding(path, "zarr.json", EXCHANGED)
    if digest(parse_document(raw).get("consolidated_metadata")) != root.get(CONSOLIDATED):
        yield Finding("", "zarr.json", "its consolidated metadata are not those that the run wrote")
