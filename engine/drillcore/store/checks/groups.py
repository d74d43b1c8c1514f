"""Checks of a store's metadata and of every chunk of the smaller arrays; `shards` checks the states."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store

from drillcore.errors import DamageError
from drillcore.store import layout
from drillcore.store.arrays import ARRAYS, dtype_name
from drillcore.store.canaries import CANARIES, read_canaries
from drillcore.store.checks.finding import Finding
from drillcore.store.checks.shards import ShardChecks
from drillcore.store.freshness import stale_results
from drillcore.store.layout import Shape, array_of, shape_of
from drillcore.store.places.files import list_names, read_file
from drillcore.store.reader import read_array

IdsOf = Callable[[list[str]], list[str]]
UNREADABLE = (ValueError, KeyError, TypeError, RuntimeError, AttributeError, DamageError)
OF_SHARDS = {name for name, spec in ARRAYS.items() if spec.writers == ("extract",)} - set(layout.LAYER_ARRAYS)


def group_paths(store: Store) -> list[str]:
    """Paths of the groups of all models and datasets, from their folders, since metadata may be damaged."""
    models = _folders(store, "")
    return [f"{model}/{dataset}" for model in models for dataset in _folders(store, model) if dataset != CANARIES]


def _folders(store: Store, path: str) -> list[str]:
    return [name for name in list_names(store, path) if not name.endswith((".json", ".partial"))]


def _document(store: Store, path: str) -> dict[str, Any]:
    """The contents of a zarr.json; raises ValueError where it is damaged or missing."""
    document = json.loads(read_file(store, f"{path}/zarr.json".lstrip("/")) or b"")
    if not isinstance(document, dict):
        raise ValueError("not a mapping")
    return document


def check_metadata(store: Store) -> Iterator[Finding]:
    """Check the metadata of the models' groups, and the consolidated metadata of a finished store."""
    for model in _folders(store, ""):
        place = "zarr.json"
        try:
            group = zarr.open_group(store, path=model, mode="r", zarr_format=3, use_consolidated=False)
            place = CANARIES
            read_canaries(group)
        except UNREADABLE as error:
            yield Finding(model, place, f"is damaged: {error}")
    consolidated = _document(store, "").get("consolidated_metadata")
    for path, copy in ({} if consolidated is None else consolidated.get("metadata", {})).items():
        try:
            own = _document(store, path)
        except ValueError:
            continue  # reported with its group
        if {k: v for k, v in own.items() if k in copy} != {k: v for k, v in copy.items() if k in own}:
            yield Finding("", "zarr.json", f"the consolidated metadata of {path} differ from its own")


def check_group(store: Store, path: str, ids_of: IdsOf) -> Iterator[Finding]:
    """Everything that is wrong with the group of one model and dataset; `ids_of` gives the row ids of texts."""
    try:
        attributes = _document(store, path)["attributes"]
        group = zarr.open_group(store, path=path, mode="r", zarr_format=3, use_consolidated=False)
        shape = shape_of(attributes)
    except UNREADABLE as error:
        if list_names(store, f"{path}/shard_fingerprint/c"):
            yield Finding(path, "zarr.json", f"is damaged, and what is below it cannot be checked: {error}")
        return
    findings = list(_check_arrays(store, path, attributes, group, shape, ids_of))
    yield from findings
    if not findings:
        for name, why in stale_results(group).items():
            yield Finding(path, name, f"is stale: {why}")


def _check_arrays(
    store: Store, path: str, attributes: dict[str, Any], group: zarr.Group, shape: Shape, ids_of: IdsOf
) -> Iterator[Finding]:
    columns = [(str(name), str(dtype)) for name, dtype in attributes.get("columns", [])]
    damaged = set()
    for name, expected in layout.expected_metadata(shape, [("sentence", "int64"), *columns]).items():
        if not layout.same_metadata(read_file(store, f"{path}/{name}/zarr.json"), expected):
            damaged.add(name)
            yield Finding(path, f"{name}/zarr.json", "is damaged or missing")
    if not damaged.intersection(OF_SHARDS):
        complete = "consolidated_metadata" in _document(store, "")
        yield from ShardChecks(group, shape, complete).findings()
    for name, values in layout.layer_values(shape).items():
        if name not in damaged:
            yield from _check_layers(group, name, values)
    if attributes.get("columns_made_from") and not damaged.intersection(["sentence", *(n for n, _ in columns)]):
        yield from _check_columns(group, ["sentence", *(n for n, _ in columns)], ids_of)
    for name in attributes.get("results", {}):
        yield from _check_result(group, name)


def _check_layers(group: zarr.Group, name: str, values: Any) -> Iterator[Finding]:
    try:
        fits = list(read_array(group, name)) == list(values)
    except DamageError as error:
        yield Finding(group.path, name, str(error).partition(": ")[2])
        return
    if not fits:
        yield Finding(group.path, name, "does not hold the layers of the store")


def _check_columns(group: zarr.Group, names: list[str], ids_of: IdsOf) -> Iterator[Finding]:
    """Check the coordinates' checksums, that sentences are numbered 0 to N - 1, and row ids are those of the texts."""
    damaged = [finding for name in names for finding in _check_chunks(group, name, "columns")]
    yield from damaged
    if damaged or not {"text", "row_id"} <= set(names):
        return
    sentence, text, row_id = (array_of(group, n) for n in ("sentence", "text", "row_id"))
    for start in range(0, sentence.shape[0], layout.COLUMN_CHUNK):
        rows = slice(start, min(start + layout.COLUMN_CHUNK, sentence.shape[0]))
        wrong = np.flatnonzero(np.asarray(sentence[rows]) != np.arange(rows.start, rows.stop))
        if len(wrong):
            yield _at(group, "sentence", start + int(wrong[0]), "does not hold its own number")
        ids = ids_of(np.asarray(text[rows]).tolist())
        wrong = np.flatnonzero(np.asarray(row_id[rows]).astype(object) != np.array(ids, object))
        if len(wrong):
            yield _at(group, "row_id", start + int(wrong[0]), "is not the id of its text")


def _check_result(group: zarr.Group, name: str) -> Iterator[Finding]:
    """A result is the array that the table says, and every chunk of it can be read."""
    findings = list(_check_chunks(group, name, "result"))
    yield from findings
    if findings or name not in ARRAYS:
        return
    array, spec = array_of(group, name), ARRAYS[name]
    dims = tuple(array.metadata.dimension_names or ())  # type: ignore[union-attr]
    dtype = dtype_name(np.empty(0, array.dtype))
    if (dims, dtype) != (spec.dims, spec.dtype):
        yield Finding(group.path, name, f"is {dtype} {dims}, not {spec.dtype} {spec.dims}", mend="result")


def _at(group: zarr.Group, array: str, sentence: int, what: str) -> Finding:
    return Finding(group.path, array, what, sentences=(sentence, sentence), mend="columns")


def _check_chunks(group: zarr.Group, name: str, mend: str) -> Iterator[Finding]:
    """Decode every chunk of an array; a missing chunk would read as empty."""
    try:
        array = array_of(group, name)
        dims = array.metadata.dimension_names or ()  # type: ignore[union-attr]
    except DamageError as error:
        yield Finding(group.path, name, str(error).partition(": ")[2], mend=mend)
        return
    counts = [range(-(-size // chunk)) for size, chunk in zip(array.shape, array.chunks, strict=True)]
    for place in product(*counts):
        key = "/".join([group.path, name, "c", *map(str, place)])
        bounds = [(i * c, min((i + 1) * c, n)) for i, c, n in zip(place, array.chunks, array.shape, strict=True)]
        sentences = next(((a, b - 1) for d, (a, b) in zip(dims, bounds, strict=False) if d == "sentence"), None)
        try:
            if read_file(group.store, key) is None:
                raise ValueError("a chunk's file is missing")
            _ = array[tuple(slice(*b) for b in bounds)]
        except UNREADABLE as error:
            yield Finding(group.path, name, str(error), sentences=sentences, mend=mend)
