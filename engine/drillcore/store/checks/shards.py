"""Checks of the shards of one group: every chunk's checksum, every value, and the fingerprint that stands for them.

Shape legend: K layers, H hidden size, C sentences of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from drillcore.errors import DamageError
from drillcore.store.checks.finding import Finding
from drillcore.store.contents import fast_digest
from drillcore.store.layout import Shape, read_array
from drillcore.store.places.files import plain_store, read_file, read_size
from drillcore.store.record import NOT_COMMITTED, ShardRecord, absmax_key, read_record, read_seal
from drillcore.store.shards import index_bytes, threads
from drillcore.store.states import StatesReader, is_begun

States = NDArray[np.generic]


class ShardChecks:
    """The shards of one group with sound metadata. `complete`: all of them should be committed."""

    def __init__(self, group: zarr.Group, shape: Shape, complete: bool) -> None:
        self._group = group
        self._shape = shape
        self._complete = complete
        self._reader = StatesReader(group, by_plan=False)

    def findings(self) -> Iterator[Finding]:
        """Everything that is wrong, shard by shard."""
        planned: NDArray[np.uint8] | None = None
        try:
            planned = read_array(self._group, "shard_planned")
        except DamageError as error:
            yield self._finding("shard_planned", str(error))
        with ThreadPoolExecutor(threads(), "check") as pool:
            for shard in range(self._shape.num_shards):
                yield from self._check(shard, None if planned is None else planned[shard].tobytes(), pool)

    def _finding(self, array: str, what: str, shard: int | None = None, mend: str = "shard", **place: int) -> Finding:
        sentences = None
        if shard is not None:
            first, stop = self._shape.bounds(shard)
            sentences = (place.get("first", first), place.get("last", stop - 1))
        slot = place.get("slot")
        layer = None if slot is None else self._shape.layers[slot]
        return Finding(self._group.path, array, what, shard, sentences, layer, mend if shard is not None else "")

    def _check(self, shard: int, planned: bytes | None, pool: ThreadPoolExecutor) -> Iterator[Finding]:
        store, path = plain_store(self._group.store), self._group.path
        try:
            record = read_record(store, path, shard)
            fingerprint = bytes.fromhex(record.fingerprint) if record else read_seal(store, path, shard)
        except DamageError as error:
            array, _, what = str(error).partition(": ")[2].partition(" of shard ")
            yield self._finding(array, what.partition(": ")[2], shard)
            return
        if not fingerprint and self._complete:
            yield self._finding("shard_fingerprint", NOT_COMMITTED, shard)
        if not fingerprint:
            return
        is_planned = planned is None or not any(planned) or fingerprint == planned
        if not is_planned and not is_begun(store, path, shard, fingerprint.hex()):
            yield self._finding("shard_fingerprint", "its fingerprint does not belong to this job's rows", shard)
        yield from self._check_file(shard, record, pool)

    def _check_file(self, shard: int, record: ShardRecord | None, pool: ThreadPoolExecutor) -> Iterator[Finding]:
        try:
            index = self._reader.index(shard)
        except DamageError as error:
            yield self._finding("hidden_states", str(error).rpartition(": ")[2], shard)
            return
        if index is None:
            yield self._finding("hidden_states", "its file is missing", shard)
            return
        size = index.end + index_bytes(self._shape)
        if read_size(self._group.store, self._reader.key(shard)) != size or (record and record.size != size):
            yield self._finding("hidden_states", "its file does not have the size that its index says", shard)
        first, stop = self._shape.bounds(shard) if record is None else record.rows
        parts = range(-(-(stop - first) // self._shape.chunk))
        largest_K = np.zeros(len(self._shape.layers), self._shape.store_dtype)
        whole = True
        for finding, slot, largest in pool.map(
            lambda place: self._check_chunk(shard, stop, *place), product(range(len(self._shape.layers)), parts)
        ):
            largest_K[slot] = max(largest_K[slot], largest)
            if finding is not None:
                whole = False
                yield finding
        if whole:
            yield from self._check_absmax(shard, record, largest_K)

    def _check_chunk(self, shard: int, end: int, slot: int, part: int) -> tuple[Finding | None, int, float]:
        shape = self._shape
        first = shape.bounds(shard)[0] + part * shape.chunk
        stop = min(first + shape.chunk, end)
        chunk_CH = np.empty((shape.chunk, shape.hidden_size), shape.store_dtype)
        place: dict[str, Any] = {"first": first, "last": stop - 1, "slot": slot}
        try:
            self._reader.read_chunk(shard, part, slot, chunk_CH)
        except DamageError as error:
            what = str(error).rpartition(": ")[2]
            return self._finding("hidden_states", what, shard, **place), slot, 0.0
        states_CH = chunk_CH[: stop - first]
        finite_C = np.isfinite(states_CH).all(axis=1)
        if not finite_C.all():
            wrong = first + np.flatnonzero(~finite_C)
            place |= {"first": int(wrong[0]), "last": int(wrong[-1])}
            what = f"{len(wrong)} sentences have values that are not finite"
            return self._finding("hidden_states", what, shard, **place), slot, 0.0
        return None, slot, float(np.abs(states_CH).max())

    def _check_absmax(self, shard: int, record: ShardRecord | None, largest_K: States) -> Iterator[Finding]:
        """The maxima were taken when the states were computed: if they differ, the data belong to another shard."""
        try:
            recorded_K = np.asarray(self._group["layer_absmax"][shard])  # type: ignore[index]
        except (ValueError, RuntimeError, KeyError) as error:
            yield self._finding("layer_absmax", f"cannot be read: {error}", shard)
            return
        raw = read_file(self._group.store, absmax_key(self._group.path, shard)) or b""
        if record is not None and fast_digest(raw) != record.absmax:
            yield self._finding("layer_absmax", "its maxima are not those that its record names", shard)
            return
        wrong = np.flatnonzero(recorded_K.astype(self._shape.store_dtype) != largest_K)
        if len(wrong):
            what = f"its maxima differ from the recorded ones at {len(wrong)} layers: its data belong to something else"
            yield self._finding("hidden_states", what, shard, slot=int(wrong[0]))
