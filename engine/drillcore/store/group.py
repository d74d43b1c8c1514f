"""Writes the group of one model and dataset: whole shards, each followed by its fingerprint; coordinates; results.

A shard counts once it has a fingerprint, which is written only after its data are on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store

from drillcore.errors import CommitError, DamageError
from drillcore.store import layout
from drillcore.store.arrays import ARRAYS
from drillcore.store.layout import COLUMN_CHUNK, WITHDRAWN, Shape, array_of, attributes_of, create_array
from drillcore.store.places.files import list_names, read_file, read_size, remove_folder, write_file, write_pieces
from drillcore.store.shards import encode_shard
from drillcore.store.states import StatesReader
from drillcore.system.files import ValuesDigest, without_nan

READERS = 16
# Coordinates that results are made from.
RESULTS_READ = ("label", "group", "expected_next")


class GroupWriter:
    """The group of one model and dataset. Raises CommitError where a write fails."""

    def __init__(self, group: zarr.Group) -> None:
        self.group = group

    def ensure(self, shape: Shape, columns: Sequence[tuple[str, str]]) -> None:
        """Make the arrays fit. `columns`: names and dtypes of the coordinates.

        More sentences make the arrays longer, and committed shards stay; the results of later stages are removed. Any
        other shape creates all arrays again, other columns only the columns. Damaged metadata are written again, and
        the data stay.
        """
        every = [("sentence", "int64"), *columns]
        expected = layout.expected_metadata(shape, every)
        of_columns = {name: expected.pop(name) for name, _ in every}
        differing = self._differing(expected)
        if differing and attributes_of(self.group).get("shape") != shape.as_attribute():
            if self._grows_to(shape):
                self._grow(shape, differing, expected)
            else:
                self._create(shape)
        else:
            for name in differing:
                write_file(self.group.store, f"{self.group.path}/{name}/zarr.json", expected[name])
        self._ensure_layers(shape)
        listed = [list(c) for c in columns]
        if attributes_of(self.group).get("columns") != listed or self._differing(of_columns):
            self._create_columns(shape, every)
        described = {
            "position": "last",
            "coordinates": " ".join(["layer_name", *(name for name, _ in columns)]),
            "shape": shape.as_attribute(),
            "columns": listed,
        }
        self._set_attributes({"results": {}, **attributes_of(self.group), **described})

    def _differing(self, expected: dict[str, bytes]) -> list[str]:
        """Names of the arrays whose metadata are not as expected."""
        place, store = f"{self.group.path}/{{}}/zarr.json", self.group.store
        return [n for n, m in expected.items() if not layout.same_metadata(read_file(store, place.format(n)), m)]

    def _set_attributes(self, attributes: dict[str, Any]) -> None:
        """Set all attributes at once, unless nothing changes."""
        if attributes != attributes_of(self.group):
            self.group.attrs.put(attributes)

    def _create(self, shape: Shape) -> None:
        """Create all arrays again; fingerprints are removed first and created last: none may stand for missing data."""
        self.group.attrs.put({})
        remove_folder(self.group.store, f"{self.group.path}/shard_fingerprint")
        for name in list_names(self.group.store, self.group.path):
            if name != "zarr.json":
                remove_folder(self.group.store, f"{self.group.path}/{name}")
        layout.create_extract_arrays(self.group, shape)
        self.__dict__.pop("_reader", None)

    def _grows_to(self, shape: Shape) -> bool:
        """Whether a shape differs from the stored one in nothing but that it has more sentences."""
        try:
            stored = layout.shape_of(attributes_of(self.group))
        except (ValueError, KeyError, TypeError):
            return False
        longer = replace(stored, num_sentences=shape.num_sentences)
        return stored.num_sentences < shape.num_sentences and longer == shape

    def _grow(self, shape: Shape, differing: Sequence[str], expected: dict[str, bytes]) -> None:
        """Make the arrays longer: their metadata alone, since a shard is a file. Results are of fewer sentences."""
        self._set_attributes({**attributes_of(self.group), "results": {}})
        for name in list_names(self.group.store, self.group.path):
            if name in ARRAYS and ARRAYS[name].is_result:
                remove_folder(self.group.store, f"{self.group.path}/{name}")
        remove_folder(self.group.store, f"{self.group.path}/shard_planned")
        for name in {*differing, "shard_planned"}:
            write_file(self.group.store, f"{self.group.path}/{name}/zarr.json", expected[name])
        self.__dict__.pop("_reader", None)

    def _ensure_layers(self, shape: Shape) -> None:
        for name, values in layout.layer_values(shape).items():
            array = array_of(self.group, name)
            try:
                fits = np.array_equal(np.asarray(array[:]), values)
            except (ValueError, RuntimeError):
                fits = False
            if not fits:
                array[:] = values

    def _create_columns(self, shape: Shape, columns: Sequence[tuple[str, str]]) -> None:
        """Create the columns again, empty; their old names are recorded until that is done."""
        before = attributes_of(self.group)
        old = {name for name, _ in before.pop("columns", [])} | set(before.pop("stale_columns", []))
        before.pop("columns_made_from", None)
        self._set_attributes({**before, "stale_columns": sorted(old)})
        for name in old:
            remove_folder(self.group.store, f"{self.group.path}/{name}")
        layout.create_columns(self.group, shape.num_sentences, columns)
        self._set_attributes(before)

    def write_columns(self, made_from: str, pieces: Iterator[tuple[int, dict[str, Any]]]) -> None:
        """Write the coordinates, given as (first sentence, values by name), unless their input has not changed."""
        before = attributes_of(self.group)
        if before.pop("columns_made_from", None) == made_from:
            return
        self._set_attributes(before)  # from here on they hold a mixture
        digests = {name: ValuesDigest() for name in RESULTS_READ}
        for start, columns in pieces:
            for name, values in columns.items():
                array = array_of(self.group, name)
                cast = np.asarray(values, dtype=array.dtype)
                array[start : start + len(values)] = cast
                if name in digests:
                    digests[name].add(cast)
        found = {name: d.hexadecimal for name, d in digests.items() if d.num_values}
        self._set_attributes({**before, "columns_made_from": made_from, "column_digests": found})

    def columns_made_from(self) -> str:
        """The recorded hash of what the coordinates were made from, empty where there is none."""
        return str(attributes_of(self.group).get("columns_made_from", ""))

    @cached_property
    def _reader(self) -> StatesReader:
        return StatesReader(self.group)

    def fingerprints(self) -> list[str]:
        """Hex fingerprint of each shard, empty where it is not committed or its record is damaged."""
        return self._each_shard(self._fingerprint)

    def committed(self) -> list[str]:
        """Hex fingerprint of each shard, empty also where the shard's file is missing or cut short."""
        return self._each_shard(lambda shard: self._fingerprint(shard) if self._is_whole(shard) else "")

    def _each_shard(self, look: Callable[[int], str]) -> list[str]:
        return _each(look, array_of(self.group, "shard_fingerprint").shape[0])

    def _fingerprint(self, shard: int) -> str:
        return _fingerprint_of(self.group.store, self.group.path, shard)

    def _is_whole(self, shard: int) -> bool:
        """Whether a shard's file exists and ends as it must; quick, does not see damage further in."""
        try:
            return self._reader.is_whole(shard)
        except DamageError:
            return False

    def plan_fingerprints(self, planned: Sequence[str]) -> None:
        """Record the fingerprint that each shard must get, for `verify`."""
        wanted = np.array([list(bytes.fromhex(p)) for p in planned], np.uint8).reshape(-1, 32)
        array = array_of(self.group, "shard_planned")
        try:
            if np.array_equal(np.asarray(array[...]), wanted):
                return
        except (ValueError, RuntimeError):
            pass  # damaged: written again
        array[...] = wanted

    def commit(
        self,
        start: int,
        shard: int,
        states_SKH: NDArray[Any],
        absmax_K: NDArray[np.float32],
        fingerprint: str,
        before_commit: Callable[[], None] = lambda: None,
    ) -> None:
        """Write shard number `shard`, whose first sentence is `start`, and then its fingerprint.

        before_commit: called right before the fingerprint is written; what it raises keeps the shard uncommitted.
        """
        try:
            write_pieces(self.group.store, self._reader.key(shard), encode_shard(states_SKH, self._reader.shape))
            array_of(self.group, "layer_absmax")[shard] = absmax_K
            before_commit()
            self._put_fingerprint(shard, fingerprint)
        except (CommitError, DamageError) as error:
            raise CommitError(
                f"{self.group.path}: shard {shard} (sentences {start} to {start + len(states_SKH) - 1}): {error}",
                hint=error.hint,
            ) from None

    def retract(self, shards: Sequence[int]) -> None:
        """Clear the fingerprints of shards that are to be computed again."""
        for shard in shards:
            self._put_fingerprint(shard, "00" * 32)

    def withdraw(self, shards: Sequence[int]) -> None:
        """Retract shards whose states are not those of their sentences; results of such states are stale from now on.

        The right states will have the same fingerprints, so the group counts how often that happened.
        """
        self.describe(**{WITHDRAWN: attributes_of(self.group).get(WITHDRAWN, 0) + 1})
        self.retract(shards)

    def _put_fingerprint(self, shard: int, fingerprint: str) -> None:
        array_of(self.group, "shard_fingerprint")[shard] = np.frombuffer(bytes.fromhex(fingerprint), np.uint8)

    def write_result(self, name: str, values: NDArray[Any], made_from: str, **facts: Any) -> None:
        """Write a later stage's array, one of `arrays.ARRAYS`, and then record the hash of its inputs and parameters.

        facts: recorded beside the hash, among them `inputs`, the record of a `freshness.ResultInputs`.

        Raises ValueError where the values do not fit the table, or the name is one of the user's columns.
        """
        spec = ARRAYS[name]
        spec.check(values)
        before = attributes_of(self.group)
        if name in [column for column, _ in before.get("columns", [])]:
            raise ValueError(f"{self.group.path}: {name} is a column of the user's: a result may not overwrite it")
        results = dict(before.get("results", {}))
        if results.pop(name, None) is not None:
            self._set_attributes({**before, "results": results})
        chunks = tuple(min(n, COLUMN_CHUNK) for n in values.shape)
        array = create_array(self.group, spec, values.shape, chunks)
        array[...] = values.astype(np.dtypes.StringDType()) if spec.dtype == "string" else values
        self._set_attributes({**before, "results": {**results, name: {"made_from": made_from, **without_nan(facts)}}})

    def result_made_from(self, name: str) -> str:
        """The recorded hash of a result, empty where there is no such result."""
        results = attributes_of(self.group).get("results", {})
        return str(results.get(name, {}).get("made_from", "")) if name in self.group else ""

    def adopt_results(self, made_from: str, inputs: dict[str, Any]) -> None:
        """Record the inputs of results that an older version wrote with a hash only."""
        before = attributes_of(self.group)
        results = before.get("results", {})
        adopted = {n: {**r, "inputs": inputs} if r.get("made_from") == made_from else r for n, r in results.items()}
        self._set_attributes({**before, "results": adopted})

    def drop_results(self, names: Sequence[str]) -> None:
        """Remove the records of results, and of all results made together with them, so that they are made again."""
        before = attributes_of(self.group)
        results = dict(before.get("results", {}))
        made_from = {results[n].get("made_from") for n in names if n in results}
        others = {n: r for n, r in results.items() if r.get("made_from") not in made_from}
        self._set_attributes({**before, "results": others})

    def describe(self, **facts: Any) -> None:
        """Set some attributes of the group; the others stay."""
        self._set_attributes({**attributes_of(self.group), **facts})

    def drop_columns(self) -> None:
        """Remove the record of what the coordinates were made from, so that they are written again."""
        before = attributes_of(self.group)
        before.pop("columns_made_from", None)
        self._set_attributes(before)


def claimed_shards(store: Store, path: str, num_shards: int) -> list[str]:
    """Hex fingerprint of each shard of a group, empty where it is not committed or its file is gone.

    Unlike `GroupWriter.committed` it needs no metadata, which may be damaged: what stands here would be lost if the
    shard were written again.
    """

    def look(shard: int) -> str:
        fingerprint = _fingerprint_of(store, path, shard)
        return fingerprint if fingerprint and read_size(store, f"{path}/hidden_states/c/{shard}/0/0") else ""

    return _each(look, num_shards)


def _each(look: Callable[[int], str], num_shards: int) -> list[str]:
    with ThreadPoolExecutor(READERS, "look") as pool:
        return list(pool.map(look, range(num_shards)))


def _fingerprint_of(store: Store, path: str, shard: int) -> str:
    raw = read_file(store, f"{path}/shard_fingerprint/c/{shard}/0")
    fingerprint = None if raw is None else read_fingerprint(raw)
    return fingerprint.hex() if fingerprint else ""


def read_fingerprint(raw: bytes) -> bytes | None:
    """The fingerprint in a record's bytes: empty where nothing is committed, None where the record is damaged."""
    digest = raw[:32]
    if len(raw) != 36 or google_crc32c.value(digest) != int.from_bytes(raw[32:], "little"):
        return None
    return digest if any(digest) else b""
