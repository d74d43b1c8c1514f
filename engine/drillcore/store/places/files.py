"""Reads and writes the files of a store as plain bytes by their keys, in a folder or a bucket."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from zarr.abc.store import RangeByteRequest, Store, SuffixByteRequest
from zarr.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, WrapperStore

from drillcore.errors import DrillcoreError
from drillcore.store.places.local import DurableStore, inside, read_local

# What opening a file raises where there is none, or something else in its place.
NO_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


def write_file(store: Store, key: str, data: bytes) -> None:
    """Write a whole file; it is on disk when this returns."""
    write_pieces(store, key, [data])


def write_pieces(store: Store, key: str, pieces: Iterable[bytes]) -> None:
    """Write a whole file from its pieces, each as it comes where the store is a folder."""
    if isinstance(store, DurableStore):
        store.put(key, pieces)
    else:
        sync(store.set(key, default_buffer_prototype().buffer.from_bytes(b"".join(pieces))))


def plain_store(store: Store) -> Store:
    """A store without what checks its files as they are read."""
    return store._store if isinstance(store, WrapperStore) else store


def read_file(store: Store, key: str) -> bytes | None:
    """All bytes of a file, None where there is no such file; raises DamageError where it cannot be read."""
    if isinstance(store, LocalStore):
        return read_local(inside(Path(store.root), key))
    buffer = sync(store.get(key, default_buffer_prototype()))
    return None if buffer is None else buffer.to_bytes()


def list_names(store: Store, folder: str) -> list[str]:
    """Names of the files and folders directly in a folder, sorted."""

    async def collect() -> list[str]:
        return [name.rstrip("/") async for name in store.list_dir(folder)]

    return sorted(sync(collect()))


def list_files(store: Store, folder: str) -> list[str]:
    """Keys of all files in a folder and in its folders, below it, sorted; empty folders count as files."""
    if isinstance(store, LocalStore):
        root, found = inside(Path(store.root), folder), list[str]()
        for place, folders, files in os.walk(root):
            names = files if folders or files else [""]
            found += [(Path(place) / name).relative_to(root).as_posix() for name in names]
        return sorted(found)

    async def collect() -> list[str]:
        return [key.removeprefix(f"{folder}/") async for key in store.list_prefix(f"{folder}/")]

    return sorted(sync(collect()))


def remove_file(store: Store, key: str) -> None:
    """Remove a file; does nothing where there is none."""
    sync(store.delete(key))


def remove_folder(store: Store, folder: str) -> None:
    """Remove a folder with everything in it; does nothing where there is no such folder."""
    sync(store.delete_dir(folder))


def move_folder(store: Store, folder: str, to: str) -> None:
    """Give a folder another key, in one step where the store is a folder; `to` must not exist.

    In a bucket it is copied, fingerprints of shards last, and then removed. Raises CommitError where the place refuses.
    """
    if isinstance(store, DurableStore):
        store.rename(folder, to)
        return

    async def keys() -> list[str]:
        return [key async for key in store.list_prefix(f"{folder}/")]

    for key in sorted(sync(keys()), key=lambda k: "/shard_fingerprint/" in k):
        write_file(store, to + key.removeprefix(folder), read_file(store, key) or b"")
    remove_folder(store, folder)


def read_range(
    store: Store, key: str, start: int, length: int, scratch: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Bytes of a file, fewer where it ends; in `scratch` if they fit. Raises ValueError where there is no such file."""
    if isinstance(store, LocalStore):
        buffer = np.empty(length, np.uint8) if scratch is None or len(scratch) < length else scratch[:length]
        try:
            with inside(Path(store.root), key).open("rb", buffering=0) as file:
                file.seek(start)
                return buffer[: file.readinto(buffer.data) or 0]
        except NO_FILE:
            raise ValueError("the shard's file is missing") from None
    received = sync(store.get(key, default_buffer_prototype(), RangeByteRequest(start, start + length)))
    if received is None:
        raise ValueError("the shard's file is missing")
    return np.frombuffer(received.to_bytes(), np.uint8)


def read_ahead(store: Store, key: str, start: int, length: int) -> None:
    """Ask the system to read bytes of a local file in advance; does nothing elsewhere."""
    if not isinstance(store, LocalStore) or not hasattr(os, "posix_fadvise"):
        return
    with suppress(OSError):
        descriptor = os.open(inside(Path(store.root), key), os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)


def read_end(store: Store, key: str, length: int) -> bytes | None:
    """The last bytes of a file, None where there is no such file."""
    if isinstance(store, LocalStore):
        try:
            with inside(Path(store.root), key).open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                return os.pread(stream.fileno(), length, max(0, size - length))
        except NO_FILE:
            return None
    try:
        buffer = sync(store.get(key, default_buffer_prototype(), SuffixByteRequest(length)))
    except DrillcoreError:
        # Object storage refuses a request for the end of an empty object.
        if read_size(store, key) == 0:
            return b""
        raise
    return None if buffer is None else buffer.to_bytes()


def read_size(store: Store, key: str) -> int | None:
    """Size of a file in bytes, None where there is no such file."""
    try:
        return sync(store.getsize(key))
    except FileNotFoundError:
        return None
