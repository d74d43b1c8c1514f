"""Checks of a store's metadata and of every chunk of the smaller arrays; `shards` checks the states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store

from drillcore.errors import DamageError
from drillcore.store import attributes as documents
from drillcore.store import layout
from drillcore.store.arrays import ARRAYS, CANARIES, dtype_name, spec_of
from drillcore.store.attributes import CONTENTS, checked_attributes
from drillcore.store.checks.contents import check_contents
from drillcore.store.checks.finding import Finding
from drillcore.store.checks.shards import ShardChecks
from drillcore.store.freshness import is_asked_for, stale_results
from drillcore.store.layout import Shape, array_of, read_array, shape_of
from drillcore.store.places.files import list_names, read_file

IdsOf = Callable[[list[str]], list[str]]
UNREADABLE = (*documents.UNREADABLE, RuntimeError, DamageError)
OF_SHARDS = {name for name, spec in ARRAYS.items() if spec.writers == ("extract",)} - set(layout.LAYER_ARRAYS)


def group_paths(store: Store) -> list[str]:
    """Paths of the groups of all models and datasets, from their folders, since metadata may be damaged."""
    models = _folders(store, "")
    return [f"{model}/{dataset}" for model in models for dataset in _folders(store, model) if dataset != CANARIES]


def _folders(store: Store, path: str) -> list[str]:
    return [name for name in list_names(store, path) if not name.endswith((".json", ".partial"))]


def check_group(
    store: Store, path: str, ids_of: IdsOf, complete: bool = False, in_job: bool = True
) -> Iterator[Finding]:
    """Everything that is wrong with the group of one model and dataset.

    ids_of: gives the row ids of texts. complete: whether the last run had finished. in_job: whether the group is one of
    the job: no run makes the stale results of another one again, nor those that the job no longer asks for.
    """
    try:
        attributes = checked_attributes(store, path)
        group = zarr.open_group(store, path=path, mode="r", zarr_format=3, use_consolidated=False)
        if not attributes and not complete:
            return  # a run ended before it wrote anything here
        shape = shape_of(attributes)
    except UNREADABLE as error:
        if complete or list_names(store, path):
            what = str(error).partition(": ")[2] if isinstance(error, DamageError) else str(error)
            yield Finding(path, "zarr.json", f"is damaged, and what is below it cannot be checked: {what}")
        return
    findings = list(_check_arrays(store, path, attributes, group, shape, ids_of, complete))
    yield from findings
    if not findings:
        for name, why in stale_results(group).items() if in_job else ():
            if is_asked_for(group, name):
                yield Finding(path, name, f"is stale: {why}")


def _check_arrays(
    store: Store,
    path: str,
    attributes: dict[str, Any],
    group: zarr.Group,
    shape: Shape,
    ids_of: IdsOf,
    complete: bool,
) -> Iterator[Finding]:
    types = layout.every_column(shape, [(str(n), str(dtype)) for n, dtype in attributes.get("columns", [])])
    columns = [name for name, _ in types]
    damaged = set()
    for finding in check_contents(store, path, attributes, shape, complete):
        damaged.add(finding.array)
        yield finding
    expected = layout.expected_metadata(shape, types)
    for name in expected.keys() - damaged if CONTENTS in attributes else expected.keys() - {"shard_record"}:
        if not layout.same_metadata(read_file(store, f"{path}/{name}/zarr.json"), expected[name]):
            damaged.add(name)
            yield Finding(path, name, "its zarr.json is damaged or missing")
    if not damaged.intersection(OF_SHARDS):
        yield from ShardChecks(group, shape, complete).findings()
    for name, values in layout.layer_values(shape).items():
        if name not in damaged:
            yield from _check_layers(group, name, values)
    if attributes.get("columns_made_from") and not damaged.intersection(columns):
        yield from check_columns(group, columns, ids_of)
        yield from _check_rows(group, shape)
    for name in attributes.get("results", {}):
        if name not in damaged:
            yield from check_result(group, name)


def _check_layers(group: zarr.Group, name: str, values: Any) -> Iterator[Finding]:
    try:
        fits = list(read_array(group, name)) == list(values)
    except DamageError as error:
        yield Finding(group.path, name, str(error).partition(": ")[2])
        return
    if not fits:
        yield Finding(group.path, name, "does not hold the layers of the store")


def check_columns(group: zarr.Group, names: list[str], ids_of: IdsOf) -> Iterator[Finding]:
    """Check the coordinates' checksums, that sentences are numbered 0 to N - 1, and row ids are those of the texts."""
    damaged = [finding for name in names for finding in _check_chunks(group, name, "columns")]
    yield from damaged
    if damaged or not {"text", "row_id"} <= set(names):
        return
    number = "row" if "row" in names else "sentence"
    numbers, text, row_id = (array_of(group, n) for n in (number, "text", "row_id"))
    for start in range(0, numbers.shape[0], layout.COLUMN_CHUNK):
        rows = slice(start, min(start + layout.COLUMN_CHUNK, numbers.shape[0]))
        wrong = np.flatnonzero(np.asarray(numbers[rows]) != np.arange(rows.start, rows.stop))
        if len(wrong):
            yield _at(group, number, start + int(wrong[0]), "does not hold its own number")
    for start in range(0, text.shape[0], layout.COLUMN_CHUNK):
        rows = slice(start, min(start + layout.COLUMN_CHUNK, text.shape[0]))
        ids = ids_of(np.asarray(text[rows]).tolist())
        wrong = np.flatnonzero(np.asarray(row_id[rows]).astype(object) != np.array(ids, object))
        if len(wrong):
            yield _at(group, "row_id", start + int(wrong[0]), "is not the id of its text")


def _check_rows(group: zarr.Group, shape: Shape) -> Iterator[Finding]:
    """Where a sentence has any number of rows: they lie in the sentences' order, as many as each has."""
    if shape.rows is None:
        return
    try:
        size_N, sentence_R = read_array(group, "row_size"), read_array(group, "sentence")
    except DamageError:
        return  # named already
    if (size_N < 0).any() or not np.array_equal(sentence_R, np.repeat(np.arange(len(size_N)), np.maximum(size_N, 0))):
        yield Finding(group.path, "row_size", "is not the number of rows of each sentence", mend="columns")


def check_result(group: zarr.Group, name: str) -> Iterator[Finding]:
    """A result is the array that the table says, and every chunk of it can be read."""
    findings = list(_check_chunks(group, name, "result"))
    yield from findings
    spec = spec_of(name)
    if findings or spec is None:
        return
    array = array_of(group, name)
    spec = spec.with_rows() if "row_size" in group else spec
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
