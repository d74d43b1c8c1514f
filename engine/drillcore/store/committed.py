"""Which shards of a group are committed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import zarr
from zarr.abc.store import Store

from drillcore.store.attributes import BEGUN, read_attributes
from drillcore.store.layout import array_of
from drillcore.store.places.files import plain_store, read_size
from drillcore.store.record import fingerprint_of

READERS = 16


def fingerprints_of(group: zarr.Group) -> list[str]:
    """Hex fingerprint of each shard of a group, empty where rows of it are not committed or its record is damaged."""
    store, num_shards = plain_store(group.store), array_of(group, "shard_fingerprint").shape[0]
    found = each_shard(lambda s: fingerprint_of(store, group.path, s), num_shards)
    begun = read_attributes(store, group.path).get(BEGUN, {})
    return [fingerprint if begun.get(str(s)) != fingerprint else "" for s, fingerprint in enumerate(found)]


def claimed_shards(store: Store, path: str, num_shards: int) -> list[str]:
    """Hex fingerprint of each shard of a group, empty where it is not committed or its file is gone.

    Unlike `GroupWriter.committed` it needs no metadata, which may be damaged: what stands here would be lost if the
    shard were written again.
    """

    def look(shard: int) -> str:
        fingerprint = fingerprint_of(store, path, shard)
        return fingerprint if fingerprint and read_size(store, f"{path}/hidden_states/c/{shard}/0/0") else ""

    return each_shard(look, num_shards)


def each_shard(look: Callable[[int], str], num_shards: int) -> list[str]:
    """What `look` gives for each shard, several at a time."""
    with ThreadPoolExecutor(READERS, "look") as pool:
        return list(pool.map(look, range(num_shards)))
