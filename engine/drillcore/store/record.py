"""The record of a shard: what its files must be, down to each chunk. `shard_fingerprint` holds its digest.

So one small file, written last, stands for the states, for what they were made from, and for the block they were
computed in. A shard of format 1 has no record: its `shard_fingerprint` is the fingerprint itself.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

import google_crc32c
from zarr.abc.store import Store

from drillcore.errors import DamageError
from drillcore.store.attributes import MEND, UNREADABLE, is_unsealed
from drillcore.store.places.files import read_file, write_file
from drillcore.system.files import canonical

RECORD_FORMAT = 2
NOT_COMMITTED = "is not committed, although the run had finished"


@dataclass(frozen=True)
class BlockPart:
    """Rows that were computed together in one block. group: what is appended to the dataset's name, such as `~mean`."""

    start: int
    stop: int
    group: str = ""


@dataclass(frozen=True)
class ShardRecord:
    """What a committed shard consists of.

    fingerprint: hex, of what it was made from. rows: its first row and the one after its last; later rows of the shard
    are spare. block: all parts of its block; empty where it is not known. size: bytes of its file. index: digest of
    the file's end. absmax: digest of its chunk of `layer_absmax`. chunks: digest of each chunk, by layer and then by
    rows.
    """

    fingerprint: str
    rows: tuple[int, int]
    block: tuple[BlockPart, ...]
    size: int
    index: str
    absmax: str
    chunks: tuple[tuple[str, ...], ...]

    def text(self) -> str:
        """Canonical JSON."""
        return canonical({"format": RECORD_FORMAT, **asdict(self)}).decode()

    @property
    def seal(self) -> bytes:
        """What `shard_fingerprint` holds: SHA-256 of the text."""
        return hashlib.sha256(self.text().encode()).digest()


def parse_record(text: bytes) -> ShardRecord:
    """A record from its text; raises ValueError where it is none."""
    try:
        fields: dict[str, Any] = json.loads(text)
        if fields.pop("format") != RECORD_FORMAT:
            raise ValueError("its format is not known")
        return ShardRecord(
            str(fields["fingerprint"]),
            (int(fields["rows"][0]), int(fields["rows"][1])),
            tuple(BlockPart(**part) for part in fields["block"]),
            int(fields["size"]),
            str(fields["index"]),
            str(fields["absmax"]),
            tuple(tuple(map(str, layer)) for layer in fields["chunks"]),
        )
    except UNREADABLE as error:
        raise ValueError(f"it cannot be read: {error}") from None


def record_key(path: str, shard: int) -> str:
    """Key of the record of a group's shard."""
    return f"{path}/shard_record/c/{shard}"


def absmax_key(path: str, shard: int) -> str:
    """Key of the chunk of `layer_absmax`."""
    return f"{path}/layer_absmax/c/{shard}/0"


def fingerprint_key(path: str, shard: int) -> str:
    """Key of the chunk of `shard_fingerprint`."""
    return f"{path}/shard_fingerprint/c/{shard}/0"


def _sealed(data: bytes) -> bytes:
    """Bytes as the arrays of records hold them: with their CRC32C."""
    return data + int(google_crc32c.value(data)).to_bytes(4, "little")


def _unsealed(raw: bytes) -> bytes:
    if len(raw) < 4 or _sealed(raw[:-4]) != raw:
        raise ValueError("it does not match its checksum")
    return raw[:-4]


def write_record(store: Store, path: str, shard: int, record: ShardRecord) -> None:
    """Write the record of a shard: one string, as Zarr's codec for variable-length UTF-8 has it. Raises CommitError."""
    text = record.text().encode()
    data = (1).to_bytes(4, "little") + len(text).to_bytes(4, "little") + text
    write_file(store, record_key(path, shard), _sealed(data))


def write_seal(store: Store, path: str, shard: int, seal: bytes) -> None:
    """Write a shard's chunk of `shard_fingerprint`, which commits it. Raises CommitError."""
    write_file(store, fingerprint_key(path, shard), _sealed(seal))


def retract_seal(store: Store, path: str, shard: int) -> None:
    """Clear a shard's chunk of `shard_fingerprint`, unless it is clear or missing: the shard is no longer committed."""
    raw = read_file(store, fingerprint_key(path, shard))
    if raw is not None and raw != _sealed(bytes(32)):
        write_seal(store, path, shard, bytes(32))


def seal_from(raw: bytes | None) -> bytes:
    """What a chunk of `shard_fingerprint` holds; empty where nothing is committed. Raises ValueError for damage."""
    seal = b"" if raw is None else _unsealed(raw)
    if len(seal) not in (0, 32):
        raise ValueError("it is not 32 bytes long")
    return seal if any(seal) else b""


def read_seal(store: Store, path: str, shard: int) -> bytes:
    """A shard's chunk of `shard_fingerprint`; empty where nothing is committed. Raises ValueError for a damaged one."""
    return seal_from(read_file(store, fingerprint_key(path, shard)))


def record_from(seal: bytes, raw: bytes | None, *, is_old: bool = False) -> ShardRecord | None:
    """The record that a seal stands for, from its file.

    is_old: whether the store is of format 1: the seal may be a fingerprint, and then there is no record. Raises
    ValueError where the record is missing, damaged, or not the one that was committed.
    """
    if raw is None:
        if is_old:
            return None
        raise ValueError("it is missing")
    text = _unsealed(raw)[8:]
    record = parse_record(text)
    if hashlib.sha256(text).digest() == seal:
        return record
    if is_old and record.fingerprint == seal.hex():
        return None  # brought up to date but for the last step
    raise ValueError("it is not the one that was committed")


def read_record(store: Store, path: str, shard: int) -> ShardRecord | None:
    """The record of a shard; None where it is not committed, or of format 1.

    Raises DamageError where the record is missing, damaged, or not the one that was committed.
    """
    try:
        seal = read_seal(store, path, shard)
    except ValueError as error:
        raise _damage(path, "shard_fingerprint", shard, str(error)) from None
    if not seal:
        return None
    raw = read_file(store, record_key(path, shard))
    try:
        try:
            return record_from(seal, raw)
        except ValueError:
            if not is_unsealed(store):
                raise
            return record_from(seal, raw, is_old=True)
    except ValueError as error:
        raise _damage(path, "shard_record", shard, str(error)) from None


def fingerprint_of(store: Store, path: str, shard: int) -> str:
    """Hex fingerprint of a committed shard, of either format; empty where there is none, or its record is damaged."""
    try:
        record = read_record(store, path, shard)
        return read_seal(store, path, shard).hex() if record is None else record.fingerprint
    except (DamageError, ValueError):
        return ""


def _damage(path: str, array: str, shard: int, what: str) -> DamageError:
    return DamageError(f"{path}: {array} of shard {shard}: {what}", hint=MEND)
