"""Digests of the files of small arrays, by which an exchanged, older, damaged or missing file is found.

A group's attribute `contents` holds them: for each array, the digest of its zarr.json and of every chunk. An array
that is not listed does not exist for a reader; one that is listed without digests is being written. It is no
protection against somebody who writes the digests too.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from math import ceil
from typing import Any

import xxhash
import zarr
from zarr.abc.store import Store

from drillcore.errors import DamageError
from drillcore.store.places.files import read_file

# Chunks of these belong to shards, whose records hold their digests.
OF_SHARDS = frozenset(("hidden_states", "layer_absmax", "shard_fingerprint", "shard_record"))
READERS = 16
Digests = dict[str, str]


def fast_digest(data: Any) -> str:
    """XXH3 of bytes, 128 bits, as 32 hex digits."""
    return xxhash.xxh3_128_hexdigest(data)


def chunk_keys(array: zarr.Array[Any]) -> list[str]:
    """Keys of all chunks of an array that is not sharded, below it."""
    counts = [range(ceil(size / chunk)) for size, chunk in zip(array.shape, array.chunks, strict=True)]
    return ["/".join(["c", *map(str, place)]) for place in product(*counts)]


def file_digests(store: Store, path: str, keys: list[str]) -> Digests:
    """Digest of each of these files below a path; raises DamageError where one is missing."""

    def look(key: str) -> str:
        data = read_file(store, f"{path}/{key}")
        if data is None:
            raise DamageError(f"{path}/{key} is missing")
        return fast_digest(data)

    if len(keys) < READERS:
        return {key: look(key) for key in keys}
    with ThreadPoolExecutor(READERS, "digest") as pool:
        return dict(zip(keys, pool.map(look, keys), strict=True))


def array_digests(group: zarr.Group, array: zarr.Array[Any]) -> Digests:
    """Digests of all files of an array of a group, as they are now; raises DamageError."""
    keys = [] if array.basename in OF_SHARDS else chunk_keys(array)
    return file_digests(group.store, array.path, ["zarr.json", *keys])
