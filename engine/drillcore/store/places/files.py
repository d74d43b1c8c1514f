"""The files of a store by their keys, here or in a bucket, as plain bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from zarr.abc.store import RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

from drillcore.errors import DrillcoreError
from drillcore.store.places.local import DurableStore


def write_file(store: Store, key: str, data: bytes) -> None:
    """Write a file whole; it is there for good when this returns."""
    write_pieces(store, key, [data])


def write_pieces(store: Store, key: str, pieces: Iterable[bytes]) -> None:
    """The same, piece by piece as they come where the store is a folder."""
    if isinstance(store, DurableStore):
        store.put(key, pieces)
    else:
        sync(store.set(key, default_buffer_prototype().buffer.from_bytes(b"".join(pieces))))


def read_file(store: Store, key: str) -> bytes | None:
    """All bytes of a file, None where it is not there."""
    found = sync(store.get(key, default_buffer_prototype()))
    return None if found is None else found.to_bytes()


def list_names(store: Store, folder: str) -> list[str]:
    """Names directly in a folder."""

    async def collect() -> list[str]:
        return [name.rstrip("/") async for name in store.list_dir(folder)]

    return sorted(sync(collect()))


def remove_folder(store: Store, folder: str) -> None:
    """Remove a folder with all that is in it; nothing where it is not there."""
    sync(store.delete_dir(folder))


def read_range(
    store: Store, key: str, start: int, length: int, scratch: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Bytes of a file, fewer where it ends; in `scratch` if they fit. Raises ValueError where it is not there."""
    if isinstance(store, LocalStore):
        buffer = np.empty(length, np.uint8) if scratch is None or len(scratch) < length else scratch[:length]
        try:
            descriptor = os.open(Path(store.root) / key, os.O_RDONLY)
        except FileNotFoundError:
            raise ValueError("the shard's file is missing") from None
        try:
            return buffer[: os.preadv(descriptor, [buffer.data], start)]
        finally:
            os.close(descriptor)
    found = sync(store.get(key, default_buffer_prototype(), RangeByteRequest(start, start + length)))
    if found is None:
        raise ValueError("the shard's file is missing")
    return np.frombuffer(found.to_bytes(), np.uint8)


def read_ahead(store: Store, key: str, start: int, length: int) -> None:
    """Ask the system to bring bytes of a local file near; does nothing elsewhere."""
    if not isinstance(store, LocalStore) or not hasattr(os, "posix_fadvise"):
        return
    with suppress(OSError):
        descriptor = os.open(Path(store.root) / key, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)


def read_end(store: Store, key: str, length: int) -> bytes | None:
    """The last bytes of a file, None where it is not there."""
    if isinstance(store, LocalStore):
        try:
            with (Path(store.root) / key).open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                return os.pread(stream.fileno(), length, max(0, size - length))
        except FileNotFoundError:
            return None
    try:
        found = sync(store.get(key, default_buffer_prototype(), SuffixByteRequest(length)))
    except DrillcoreError:
        # Object storage refuses to give the end of what is empty.
        if read_size(store, key) == 0:
            return b""
        raise
    return None if found is None else found.to_bytes()


def read_size(store: Store, key: str) -> int | None:
    """Bytes of a file, None where it is not there."""
    try:
        return sync(store.getsize(key))
    except FileNotFoundError:
        return None
