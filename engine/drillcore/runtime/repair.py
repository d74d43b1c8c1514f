"""Discards what is damaged in a store, so that the run makes it again: what `verify` noted, and what the run sees.

A run compares every small file with its record before it trusts one. The states themselves are as many bytes as the
store; `verify` reads them, and its note says which shards are to be computed again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from drillcore.errors import DamageError
from drillcore.store.arrays import ARRAYS, CANARIES
from drillcore.store.attributes import (
    CONTENTS,
    checked_attributes,
    document_key,
    put_attributes,
    read_attributes,
)
from drillcore.store.checks.contents import check_files
from drillcore.store.checks.finding import NOTE, Finding
from drillcore.store.contents import fast_digest
from drillcore.store.places.files import list_names, read_file, remove_folder
from drillcore.store.record import fingerprint_of
from drillcore.store.writer import StoreWriter
from drillcore.system.bounds import read_json
from drillcore.system.progress import ProgressListener

SHARD_MENDS = ("shard", "rows")


def discard_damage(store: StoreWriter, job: Sequence[str], folders: Iterable[Path], listener: ProgressListener) -> None:
    """Discard what is damaged, and say so, so that the stages make it again.

    job: paths of the job's groups. folders: where `drillcore verify` may have left its note.
    """
    members = store.members
    gone = [path for path in members if not list_names(store.root.store, path)]
    for path in gone:
        if path in store.recorded:
            what = "computed again" if path in job else "forgotten, since it had left the job"
            listener.say(f"{path}: is gone from the store, and {what}")
    store.forget([path for path in gone if path not in job])
    left = [path for path in members if path not in gone]
    for path in dict.fromkeys([*(path.split("/")[0] for path in left), *left]):
        for line in _put_right(store, path):
            listener.say(f"{path}: {line}")
    for note in sorted(folder / NOTE for folder in folders):
        _follow(store, note, listener)


def _put_right(store: StoreWriter, path: str) -> list[str]:
    """Discard what is damaged among the small files of a group; returns a line for everything."""
    place, said = store.root.store, list[str]()
    try:
        attributes = checked_attributes(place, path)
        recorded = store.recorded.get(path)
        if recorded is not None and fast_digest(read_file(place, document_key(path)) or b"") != recorded["zarr.json"]:
            raise DamageError("zarr.json is damaged: it is not the one that the store records")
    except DamageError as error:
        said.append(f"{str(error).partition(': ')[2]}; it is written again, and what it stood for is made again")
        attributes = {}
        put_attributes(place, path, attributes)
    findings = list(check_files(place, path, attributes))
    said += [f"{finding.array}: {finding.what}; made again" for finding in findings]
    is_model = "/" not in path
    if is_model and findings:
        put_attributes(place, path, {**attributes, CONTENTS: {}})
    elif findings:
        writer = store.dataset(*path.split("/"))
        if any(finding.mend == "columns" for finding in findings):
            writer.drop_columns()
        writer.drop_results([finding.array for finding in findings if finding.mend == "result"])
    _sweep(store, path)
    return said


def _sweep(store: StoreWriter, path: str) -> None:
    """Remove arrays of ours that no record names: a run ended while it wrote or removed them."""
    place = store.root.store
    attributes = read_attributes(place, path)
    known = {"zarr.json", *attributes.get(CONTENTS, {}), *(name for name, _ in attributes.get("columns", []))}
    ours = {CANARIES} if "/" not in path else {name for name, spec in ARRAYS.items() if spec.is_result}
    for name in ours.intersection(list_names(place, path)) - known:
        remove_folder(place, f"{path}/{name}")


def note_of(address: str, findings: Iterable[Finding], store: Any) -> bytes:
    """The note of what the next run must make again, bound to the store and to what the group holds now."""
    notes = [f.as_note() for f in findings if f.mend]
    return json.dumps([{**n, "store": address, "state": _state(store, n)} for n in notes], indent=1).encode()


def _state(store: Any, entry: dict[str, Any]) -> str:
    """What tells whether the thing that was found damaged has been made again since."""
    path = entry["group"]
    if entry["mend"] in SHARD_MENDS and entry["shard"] is not None:
        return fingerprint_of(store, path, entry["shard"])
    attributes = read_attributes(store, path)
    if entry["mend"] == "columns":
        return str(attributes.get("columns_made_from", ""))
    return str(attributes.get("results", {}).get(entry["array"], {}).get("made_from", ""))


def _follow(store: StoreWriter, note: Path, listener: ProgressListener) -> None:
    """Discard what a note names, and remove the note; one that is not ours, or not of this store, stays."""
    try:
        if not note.exists():
            return
        entries = _entries(read_json(note), store.location.identity)
    except (OSError, ValueError) as error:
        what = str(error) if type(error) is ValueError else "it cannot be read"
        listener.say(f"{note}: ignored: {what}")
        return
    for path in dict.fromkeys(entry["group"] for entry in entries):
        if not list_names(store.root.store, path):
            continue  # the group was removed, or renamed, since
        damaged = [e for e in entries if e["group"] == path and e.get("state") in (None, _state(store.root.store, e))]
        if not damaged:
            continue
        writer = store.dataset(*path.split("/"))
        writer.retract(sorted({e["shard"] for e in damaged if e["mend"] == "shard" and e["shard"] is not None}))
        wrong = sorted({e["shard"] for e in damaged if e["mend"] == "rows" and e["shard"] is not None})
        if wrong:
            writer.withdraw(wrong)
        if any(e["mend"] == "columns" for e in damaged):
            writer.drop_columns()
        writer.drop_results(sorted({e["array"] for e in damaged if e["mend"] == "result"}))
        listener.say(f"{path}: computing again what `drillcore verify` found damaged")
    with suppress(OSError):
        note.unlink()


def _entries(note: Any, address: str) -> list[dict[str, Any]]:
    """What a note names; raises ValueError where it is none, or is about another store."""
    if not isinstance(note, list) or not all(map(_is_entry, note)):
        raise ValueError("it is not a note of `drillcore verify`")
    # Older versions did not name the store.
    others = {entry["store"] for entry in note if "store" in entry} - {address}
    if others:
        raise ValueError(f"it is about the store {', '.join(map(str, others))}")
    return note


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("group"), str)
        and entry["group"].count("/") == 1
        and isinstance(entry.get("array"), str)
        and isinstance(entry.get("mend"), str)
        and (entry.get("shard") is None or (type(entry["shard"]) is int and entry["shard"] >= 0))
    )
