"""Brings a store of format 1 up to date: records digests of what it holds, once that was found whole by its checksums.

Nothing is computed again but what is damaged. A run that ends before all is done leaves a store of format 1.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import zarr
from zarr.abc.store import Store

from drillcore.errors import DamageError
from drillcore.store.arrays import CANARIES
from drillcore.store.attributes import (
    CONTENTS,
    FORMAT,
    MEMBERS,
    SEAL,
    checked_attributes,
    document_key,
    parse_document,
    put_attributes,
    read_attributes,
)
from drillcore.store.checks.groups import check_columns, check_result, group_paths
from drillcore.store.checks.shards import ShardChecks
from drillcore.store.contents import OF_SHARDS, array_digests, fast_digest
from drillcore.store.layout import Shape, array_of, create_record, shape_of
from drillcore.store.places.files import list_names, read_end, read_file, read_range, read_size, remove_folder
from drillcore.store.record import ShardRecord, absmax_key, read_record, read_seal, write_record, write_seal
from drillcore.store.shards import chunk_digest, index_bytes
from drillcore.store.states import StatesReader
from drillcore.texts.rows import row_ids

WHY = "it was written before data digests"


def is_ours(store: Store, path: str) -> bool:
    """Whether there is a group of ours at a path, perhaps with damaged attributes."""
    return bool(read_attributes(store, path)) or bool(list_names(store, f"{path}/shard_fingerprint"))


def bring_up_to_date(store: Store, say: Callable[[str], None]) -> None:
    """Give every group of a store of format 1 its records and seals, and then the root format 2; raises CommitError."""
    paths = [path for path in group_paths(store) if is_ours(store, path)]
    if paths:
        say(f"{WHY}: checking and recording what the store holds; nothing that is whole is computed again")
    for path in paths:
        if not _is_sealed(store, path):
            for line in _bring_group(store, path):
                say(f"{path}: {line}")
    for model in dict.fromkeys(path.split("/")[0] for path in paths):
        if not _is_sealed(store, model):
            _bring_model(store, model)
    root = checked_attributes(store, "")
    put_attributes(store, "", {**root, "format": FORMAT, MEMBERS: paths})


def _is_sealed(store: Store, path: str) -> bool:
    try:
        return SEAL in parse_document(read_file(store, document_key(path)))["attributes"]
    except (ValueError, KeyError):
        return False


def _bring_model(store: Store, model: str) -> None:
    attributes, contents = read_attributes(store, model), {}
    if CANARIES in list_names(store, model):
        try:
            group = zarr.open_group(store, path=model, mode="r", use_consolidated=False)
            contents[CANARIES] = array_digests(group, array_of(group, CANARIES))
        except (DamageError, ValueError, KeyError, TypeError):
            remove_folder(store, f"{model}/{CANARIES}")
    put_attributes(store, model, {**attributes, CONTENTS: contents})


def _bring_group(store: Store, path: str) -> list[str]:
    """Record what a group holds; returns a line for everything that is damaged, and will be made again."""
    attributes = read_attributes(store, path)
    try:
        group = zarr.open_group(store, path=path, mode="r+", zarr_format=3, use_consolidated=False)
        shape = shape_of(attributes)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        put_attributes(store, path, {})
        return [f"its metadata are damaged ({error}) and written again"]
    said: list[str] = []
    if "shard_record" not in group:
        create_record(group, shape.num_shards)
    try:
        said += _record_shards(group, shape)
    except DamageError as error:
        said.append(str(error))
    contents: dict[str, Any] = {}
    for name in sorted(OF_SHARDS | {"layer", "layer_name", "shard_planned"}):
        contents |= _digests(group, name, said)
    columns = ["sentence", *(str(name) for name, _ in attributes.get("columns", []))]
    if "columns_made_from" in attributes:
        wrong = [str(finding) for finding in check_columns(group, columns, row_ids)]
        found = {} if wrong else {k: v for name in columns for k, v in _digests(group, name, wrong).items()}
        contents |= {} if wrong else found
        said += wrong
        if wrong:
            attributes.pop("columns_made_from")
    results = attributes.get("results", {})
    damaged = set()
    for name in results:
        wrong = [str(finding) for finding in check_result(group, name)]
        contents |= {} if wrong else _digests(group, name, wrong)
        said += wrong
        if wrong:
            damaged.add(results[name].get("made_from"))
    kept = {name: facts for name, facts in results.items() if facts.get("made_from") not in damaged}
    contents = {name: digests for name, digests in contents.items() if name in kept or name not in results}
    put_attributes(store, path, {**attributes, "results": kept, CONTENTS: contents})
    return said


def _digests(group: zarr.Group, name: str, said: list[str]) -> dict[str, Any]:
    try:
        return {name: array_digests(group, array_of(group, name))}
    except DamageError as error:
        said.append(str(error))
        return {}


def _record_shards(group: zarr.Group, shape: Shape) -> list[str]:
    """Give every shard that is committed and whole its record; returns what is wrong with the others."""
    reader, store, path = StatesReader(group), group.store, group.path
    findings = list(ShardChecks(group, shape, complete=False).findings())
    for shard in sorted(set(range(shape.num_shards)) - {finding.shard for finding in findings}):
        seal = read_seal(store, path, shard)
        if not seal or read_record(store, path, shard) is not None:
            continue  # not committed, or recorded by a run that ended before the store was done
        record = record_of(reader, shape, shard, seal.hex())
        write_record(store, path, shard, record)
        write_seal(store, path, shard, record.seal)
    return [str(finding) for finding in findings]


def record_of(reader: StatesReader, shape: Shape, shard: int, fingerprint: str) -> ShardRecord:
    """The record of a shard that is whole; the block it was computed in is not known any more."""
    index, store, key = reader.index(shard), reader.store, reader.key(shard)
    first, stop = shape.bounds(shard)
    parts = -(-(stop - first) // shape.chunk)
    assert index is not None
    spans = {place: index.span(place[1], place[0]) for place in product(range(len(shape.layers)), range(parts))}
    digests = {place: chunk_digest(read_range(store, key, *span)) for place, span in spans.items() if span is not None}
    chunks = tuple(tuple(digests[slot, part] for part in range(parts)) for slot in range(len(shape.layers)))
    tail = read_end(store, key, index_bytes(shape)) or b""
    absmax = fast_digest(read_file(store, absmax_key(reader.path, shard)) or b"")
    return ShardRecord(fingerprint, (first, stop), (), read_size(store, key) or 0, fast_digest(tail), absmax, chunks)
