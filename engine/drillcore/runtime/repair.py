"""Discards what is damaged in a store, so that the run makes it again: what `verify` noted, and what the run sees.

A run compares every small file with its record before it trusts one. The states themselves are as many bytes as the
store; `verify` reads them, and its note says which shards are to be computed again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr

from drillcore.errors import DamageError
from drillcore.store.arrays import CANARIES, is_result
from drillcore.store.attributes import (
    CONTENTS,
    UNREADABLE,
    checked_attributes,
    document_key,
    put_attributes,
    read_attributes,
)
from drillcore.store.audits import NOT_YET, write_audit
from drillcore.store.checks.contents import check_files, shard_keys
from drillcore.store.checks.finding import NOTE, Finding
from drillcore.store.contents import OF_SHARDS, fast_digest
from drillcore.store.group import GroupWriter
from drillcore.store.layout import shape_of
from drillcore.store.places.files import list_files, list_names, read_file, remove_file, remove_folder
from drillcore.store.record import fingerprint_of, read_seal
from drillcore.store.writer import StoreWriter
from drillcore.system.bounds import ABSENT, problem_with, read_json
from drillcore.system.progress import ProgressListener

SHARD_MENDS = ("shard", "rows")
SHOWN = 20


def discard_damage(store: StoreWriter, job: Sequence[str], folders: Iterable[Path], listener: ProgressListener) -> None:
    """Discard what is damaged, and say so, so that the stages make it again.

    job: paths of the job's groups. folders: where `drillcore verify` may have left its note.
    """
    gone = [path for path in store.members if not list_names(store.root.store, path)]
    for path in gone:
        if path in store.complete:
            what = "computed again" if path in job else "forgotten, since it had left the job"
            listener.warn(f"{path}: is gone from the store, and {what}")
    store.forget([path for path in gone if path not in job])
    # All before anything is written: what is made again of a model is recorded in its datasets.
    for path, damage in {path: damage_of(store, path) for path in _groups(store)}.items():
        for line in damage.lines:
            listener.warn(f"{path}: {line}; made again")
        _put_right(store, path, damage)
        _sweep(store, path)
    for note in sorted(folder / NOTE for folder in folders):
        _follow(store, note, listener)


def refuse_damage(
    store: StoreWriter, job: Sequence[str], folders: Iterable[Path], listener: ProgressListener, *, whole: bool
) -> None:
    """Raise DamageError where anything but the states is damaged, or a shard is not the one that its record names.

    For stages that work on what extraction wrote, and cannot make it again. folders: where `drillcore verify` may
    have left its note; what it found in the states counts. whole: whether no shard may be missing either; the stages
    that read states leave out the groups that are not extracted. Where nothing is damaged, groups that were listed and
    never begun, and left the job, are forgotten.
    """
    gone = [path for path in store.members if not list_names(store.root.store, path)]
    lines = [f"{path}: is gone" for path in gone if path in store.complete]
    for path in _groups(store):
        lines += [f"{path}: {line}" for line in damage_of(store, path).lines]
        if whole and path in job and path in store.recorded:
            missing = sum(not found for found in _opened(store, path).fingerprints())
            lines += [f"{path}: {missing} shards are missing, although the run had finished"] * bool(missing)
    for note in sorted(folder / NOTE for folder in folders):
        for path, entries in (_noted(store, note, listener) or {}).items():
            lines += [f"{path}: `drillcore verify` found damage in {e['array']}: {e.get('what', '')}" for e in entries]
    if lines:
        shown = lines[:SHOWN] + ([f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])
        raise DamageError(
            f"the store {store.location.address} is damaged:\n" + "\n".join(shown),
            hint="`drillcore run` on the job makes it again; `drillcore verify` reads the states too.",
        )
    store.forget([path for path in gone if path not in job])  # listed, and never begun


def _groups(store: StoreWriter) -> list[str]:
    """Paths of the models and datasets that are there, models first."""
    there = [path for path in store.members if list_names(store.root.store, path)]
    return list(dict.fromkeys([*(path.split("/")[0] for path in there), *there]))


@dataclass(frozen=True)
class Damage:
    """What is wrong with a group, but for what only reading all states would show.

    attributes: those of the group, None where they are lost. shards: that are committed, and not as their records say.
    """

    attributes: dict[str, Any] | None
    findings: tuple[Finding, ...] = ()
    shards: tuple[int, ...] = ()
    why: str = ""

    @property
    def lines(self) -> list[str]:
        """One for everything."""
        said = [self.why] * bool(self.why) + [f"{finding.array}: {finding.what}" for finding in self.findings]
        return [*said, *(f"shard {shard} is damaged, or not the one that was committed" for shard in self.shards)]


def damage_of(store: StoreWriter, path: str) -> Damage:
    """Compare the small files of a group, and the ends of its shards, with their records."""
    place, recorded = store.root.store, store.recorded.get(path)
    try:
        attributes = checked_attributes(place, path)
        if recorded is not None and fast_digest(read_file(place, document_key(path)) or b"") != recorded["zarr.json"]:
            raise DamageError(": zarr.json is not the one that the store records")
    except DamageError as error:
        return Damage(None, why=f"its attributes are lost: {str(error).partition(': ')[2]}")
    findings = tuple(check_files(place, path, attributes))
    if "shape" not in attributes or OF_SHARDS.intersection(finding.array for finding in findings):
        return Damage(attributes, findings)
    committed = _opened(store, path).committed()
    shards = [i for i, found in enumerate(committed) if not found and _is_sealed(store, path, i)]
    return Damage(attributes, findings, tuple(shards))


def _is_sealed(store: StoreWriter, path: str, shard: int) -> bool:
    """Whether a shard was committed."""
    try:
        return bool(read_seal(store.root.store, path, shard))
    except ValueError:
        return True


def _opened(store: StoreWriter, path: str) -> GroupWriter:
    return GroupWriter(zarr.open_group(store.root.store, path=path, mode="r+", use_consolidated=False))


def _put_right(store: StoreWriter, path: str, damage: Damage) -> None:
    """Drop the records of what is damaged in a group."""
    place = store.root.store
    if "/" not in path:
        if damage.attributes is None:
            put_attributes(place, path, {})
        elif damage.findings:
            put_attributes(place, path, {**damage.attributes, CONTENTS: {}})
        if damage.lines:
            # Canaries are made again where rows prove that the model is the one of the states.
            for member in store.members:
                if member.startswith(f"{path}/") and read_attributes(place, member):
                    _audit_again(store, member)
    elif damage.attributes is None:
        put_attributes(place, path, {})
        _audit_again(store, path)
    else:
        writer = _opened(store, path)
        writer.retract(damage.shards)
        for name in {finding.array for finding in damage.findings}:
            _remove_foreign(store, path, name, damage.attributes)
        if any(finding.mend == "columns" for finding in damage.findings):
            writer.drop_columns()
        writer.drop_results([finding.array for finding in damage.findings if finding.mend == "result"])


def _remove_foreign(store: StoreWriter, path: str, name: str, attributes: dict[str, Any]) -> None:
    """Remove from a damaged array the files that are not its own: another array may have been put in its place."""
    own = set(attributes[CONTENTS][name]) | (shard_keys(name, shape_of(attributes)) if name in OF_SHARDS else set())

    def foreign() -> list[str]:
        return [key for key in list_files(store.root.store, f"{path}/{name}") if key and key not in own]

    while keys := foreign():  # the folders that are empty once their files are gone, too
        for key in keys:
            remove_file(store.root.store, f"{path}/{name}/{key}")


def _audit_again(store: StoreWriter, path: str) -> None:
    write_audit(store.dataset(*path.split("/")).group, NOT_YET)


def _sweep(store: StoreWriter, path: str) -> None:
    """Remove arrays of ours that no record names: a run ended while it wrote or removed them."""
    place = store.root.store
    attributes = read_attributes(place, path)
    known = {"zarr.json", *attributes.get(CONTENTS, {}), *(name for name, _ in attributes.get("columns", []))}
    ours = is_result if "/" in path else CANARIES.__eq__
    for name in {name for name in list_names(place, path) if ours(name)} - known:
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
    noted = _noted(store, note, listener)
    if noted is None:
        return
    for path, damaged in noted.items():
        writer = store.dataset(*path.split("/"))
        writer.retract(sorted({e["shard"] for e in damaged if e["mend"] == "shard" and e["shard"] is not None}))
        wrong = sorted({e["shard"] for e in damaged if e["mend"] == "rows" and e["shard"] is not None})
        if wrong:
            writer.withdraw(wrong)
        if any(e["mend"] == "columns" for e in damaged):
            writer.drop_columns()
        writer.drop_results(sorted({e["array"] for e in damaged if e["mend"] == "result"}))
        listener.warn(f"{path}: computing again what `drillcore verify` found damaged")
    with suppress(OSError):
        note.unlink()


def _noted(store: StoreWriter, note: Path, listener: ProgressListener) -> dict[str, list[dict[str, Any]]] | None:
    """What a note names that has not been made again since, by group; None where there is no note of this store."""
    try:
        if not note.exists():
            return None
        entries = _entries(read_json(note), store.location.identity)
    except (OSError, ValueError) as error:
        what = str(error) if type(error) in (ValueError, OtherStore) else "it cannot be read"
        listener.warn(f"{note}: ignored: {what}")
        return None
    place = store.root.store
    # A group may have been removed since. The note is a file that anyone may have edited: it names no other path.
    there = {path for path in {e["group"] for e in entries} & set(store.members) if list_names(place, path)}
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in (e for e in entries if e["group"] in there):
        if _names_a_shard(place, entry) and entry.get("state") in (None, _state(place, entry)):
            found.setdefault(entry["group"], []).append(entry)
    return found


def _names_a_shard(store: Any, entry: dict[str, Any]) -> bool:
    """Whether the shard that an entry names, if any, is one of its group."""
    if entry["shard"] is None:
        return True
    try:
        return bool(entry["shard"] < shape_of(read_attributes(store, entry["group"])).num_shards)
    except UNREADABLE:
        return False


def is_note_of(note: Path, address: str) -> bool:
    """Whether a file is a note of `drillcore verify` on the store of this identity, or none that is of another one."""
    try:
        _entries(read_json(note), address)
    except (OSError, ValueError) as error:
        return not isinstance(error, OtherStore)
    return True


class OtherStore(ValueError):
    """A note is about a store at another place, which is there."""


def _entries(note: Any, address: str) -> list[dict[str, Any]]:
    """What a note names; raises ValueError where it is none, OtherStore where it is about another store."""
    if not isinstance(note, list) or not all(map(_is_entry, note)):
        raise ValueError("it is not a note of `drillcore verify`")
    # Older versions did not name the store.
    others = {str(entry["store"]) for entry in note if "store" in entry} - {address}
    # A store that was moved took its note along, whose entries tell by their state what they are about.
    others = {other for other in others if other.startswith("s3://") or problem_with(Path(other)) != ABSENT}
    if others:
        raise OtherStore(f"it is about the store {', '.join(others)}")
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
