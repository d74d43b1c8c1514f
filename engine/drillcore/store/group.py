"""Writes the group of one model and dataset: whole shards, each followed by its fingerprint; coordinates; results.

A shard counts once it has a fingerprint, which is written only after its data are on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from drillcore.errors import CommitError, DamageError
from drillcore.store import layout
from drillcore.store.arrays import ARRAYS, is_result, spec_of
from drillcore.store.attributes import BEGUN, CONTENTS, attributes_of, put_attributes
from drillcore.store.committed import each_shard, fingerprints_of
from drillcore.store.contents import Digests, array_digests, fast_digest
from drillcore.store.layout import BORDERS, COLUMN_CHUNK, WITHDRAWN, Shape, array_of, create_array
from drillcore.store.places.files import list_names, read_file, read_size, remove_folder, write_file, write_pieces
from drillcore.store.record import (
    BlockPart,
    ShardRecord,
    absmax_key,
    fingerprint_of,
    read_record,
    retract_seal,
    write_record,
    write_seal,
)
from drillcore.store.shards import Encoding, threads
from drillcore.store.states import StatesReader
from drillcore.system.files import ValuesDigest, without_nan

# Coordinates that results are made from.
RESULTS_READ = ("label", "group", "expected_next")
NONE_BEGUN: Mapping[int, str] = MappingProxyType({})


class GroupWriter:
    """The group of one model and dataset. Raises CommitError where a write fails."""

    def __init__(self, group: zarr.Group) -> None:
        self.group = group
        self._store, self._path = group.store, group.path

    @property
    def attributes(self) -> dict[str, Any]:
        """The group's attributes as they are now; raises DamageError."""
        return attributes_of(self.group)

    def ensure(self, shape: Shape, columns: Sequence[tuple[str, str]], position: Any = "last") -> None:
        """Make the arrays fit. `columns`: names and dtypes of the coordinates. position: which tokens, JSON-ready.

        More sentences make the arrays longer, and committed shards stay; the results of later stages are removed. Any
        other shape creates all arrays again, other columns only the columns. Damaged metadata are written again, and
        the data stay.
        """
        every = layout.every_column(shape, columns)
        expected = layout.expected_metadata(shape, every)
        of_columns = {name: expected.pop(name) for name, _ in every}
        differing = self._differing(expected)
        if differing and self.attributes.get("shape") != shape.as_attribute():
            if self._grows_to(shape):
                self._grow(shape, differing, expected)
            else:
                self._create(shape)
        else:
            for name in differing:
                write_file(self._store, f"{self._path}/{name}/zarr.json", expected[name])
        layers = self._ensure_layers(shape)
        listed = [list(c) for c in columns]
        if self.attributes.get("columns") != listed or self._differing(of_columns):
            self._create_columns(shape, every)
        before, dimensions = self.attributes, ("sentence",) if shape.rows is None else ("row",)
        before.pop(BORDERS, None)
        contents = before.get(CONTENTS, {})
        described = {
            "position": position,
            "coordinates": " ".join(["layer_name", *(name for name, _ in every if name not in dimensions)]),
            "shape": shape.as_attribute(),
            "columns": listed,
            **({BORDERS: list(shape.borders)} if shape.borders else {}),
            CONTENTS: {**contents, **{name: self._metadata_digest(contents, name) for name in expected}, **layers},
        }
        self._set_attributes({"results": {}, **before, **described})
        self._remove_forgotten_results()

    def _metadata_digest(self, contents: dict[str, Digests], name: str) -> Digests:
        """Digests of an array whose zarr.json was found to be as it must be; those of its chunks stay."""
        document = read_file(self._store, f"{self._path}/{name}/zarr.json") or b""
        return {**contents.get(name, {}), "zarr.json": fast_digest(document)}

    def _differing(self, expected: dict[str, bytes]) -> list[str]:
        """Names of the arrays whose metadata are not as expected."""
        place, store = f"{self._path}/{{}}/zarr.json", self._store
        return [n for n, m in expected.items() if not layout.same_metadata(read_file(store, place.format(n)), m)]

    def _set_attributes(self, attributes: dict[str, Any]) -> None:
        """Set all attributes at once, unless nothing changes."""
        put_attributes(self._store, self._path, attributes)

    def _remove_forgotten_results(self) -> None:
        """Remove results that are not recorded: a run that was killed left them, and no later one may make them."""
        attributes = self.attributes
        kept = {*attributes[CONTENTS], *(name for name, _ in attributes["columns"])}
        for name in list_names(self._store, self._path):
            if is_result(name) and name not in kept:
                remove_folder(self._store, f"{self._path}/{name}")

    def _create(self, shape: Shape) -> None:
        """Create all arrays again; fingerprints are removed first and created last: none may stand for missing data."""
        self._set_attributes({})
        remove_folder(self._store, f"{self._path}/shard_fingerprint")
        for name in list_names(self._store, self._path):
            if name != "zarr.json":
                remove_folder(self._store, f"{self._path}/{name}")
        layout.create_extract_arrays(self.group, shape)
        self.__dict__.pop("_reader", None)

    def _grows_to(self, shape: Shape) -> bool:
        """Whether a shape differs from the stored one in nothing but that it has more sentences."""
        try:
            stored = layout.shape_of(self.attributes)
        except (ValueError, KeyError, TypeError):
            return False
        return stored != shape and stored.may_grow_to(shape)

    def _grow(self, shape: Shape, differing: Sequence[str], expected: dict[str, bytes]) -> None:
        """Make the arrays longer: their metadata alone, since a shard is a file. Results are of fewer sentences."""
        # Until `ensure` has recorded the new ones, these arrays are listed without digests: they are being written.
        stored = layout.shape_of(self.attributes)
        longer = (i for i in range(stored.num_shards) if stored.bounds(i) != shape.bounds(i))
        begun = {str(i): found for i in longer if (found := fingerprint_of(self._store, self._path, i))}
        bare = {**self._without_columns(), "results": {}, CONTENTS: {name: {} for name in expected}, BEGUN: begun}
        self._set_attributes(bare)
        for name in list_names(self._store, self._path):
            if is_result(name):
                remove_folder(self._store, f"{self._path}/{name}")
        remove_folder(self._store, f"{self._path}/shard_planned")
        for name in {*differing, "shard_planned"}:
            write_file(self._store, f"{self._path}/{name}/zarr.json", expected[name])
        self.__dict__.pop("_reader", None)

    def _ensure_layers(self, shape: Shape) -> dict[str, Digests]:
        """Write the arrays that the shape alone decides, unless they are right; returns the digests of their files."""
        found = {}
        for name, values in layout.layer_values(shape).items():
            array = array_of(self.group, name)
            try:
                fits = np.array_equal(np.asarray(array[:]), values)
            except (ValueError, RuntimeError):
                fits = False
            if not fits:
                array[:] = values
            found[name] = array_digests(self.group, array)
        return found

    def _create_columns(self, shape: Shape, columns: Sequence[tuple[str, str]]) -> None:
        """Create the columns again, empty; their old names are recorded until that is done."""
        before = self._without_columns()
        old = {name for name, _ in before.pop("columns", [])} | set(before.pop("stale_columns", []))
        self._set_attributes({**before, "stale_columns": sorted(old)})
        for name in old:
            remove_folder(self._store, f"{self._path}/{name}")
        layout.create_columns(self.group, shape, columns)
        self._set_attributes(before)

    def _without_columns(self) -> dict[str, Any]:
        """The attributes without the record of the coordinates: from then on they do not exist for a reader."""
        before = self.attributes
        before.pop("columns_made_from", None)
        names = {"row", "sentence", *(name for name, _ in before.get("columns", []))}
        contents = {name: d for name, d in before.get(CONTENTS, {}).items() if name not in names}
        return {**before, CONTENTS: contents}

    def write_columns(
        self, made_from: str, pieces: Iterator[tuple[int, dict[str, Any]]], labels: Sequence[str] = ()
    ) -> None:
        """Write the coordinates, given as (first sentence, values by name), unless their input has not changed.

        labels: coordinates of further labels.
        """
        if self.columns_made_from() == made_from and self._records_columns():
            return
        before = self._without_columns()
        self._set_attributes(before)  # from here on they hold a mixture
        digests = {name: ValuesDigest() for name in (*RESULTS_READ, *labels)}
        arrays: dict[str, zarr.Array[Any]] = {}
        for start, columns in pieces:
            for name, values in columns.items():
                # Also a chunk whose values are all the fill value is a file: its digest is recorded.
                array = arrays[name] = array_of(self.group, name).with_config({"write_empty_chunks": True})
                cast = np.asarray(values, dtype=array.dtype)
                array[start : start + len(values)] = cast
                if name in digests:
                    digests[name].add(cast)
        found = {name: d.hexadecimal for name, d in digests.items() if d.num_values}
        contents = {**before[CONTENTS], **{name: array_digests(self.group, array) for name, array in arrays.items()}}
        self._set_attributes({**before, "columns_made_from": made_from, "column_digests": found, CONTENTS: contents})

    def _records_columns(self) -> bool:
        """Whether the digests of all coordinates are recorded."""
        attributes = self.attributes
        names = {"sentence", *(name for name, _ in attributes.get("columns", []))}
        names |= {"row"} if "rows" in attributes.get("shape", {}) else set()
        return all(attributes.get(CONTENTS, {}).get(name) for name in names)

    def columns_made_from(self) -> str:
        """The recorded hash of what the coordinates were made from, empty where there is none."""
        return str(self.attributes.get("columns_made_from", ""))

    @cached_property
    def _reader(self) -> StatesReader:
        return StatesReader(self.group, by_plan=False)

    def fingerprints(self) -> list[str]:
        """Hex fingerprint of each shard, empty where it is not committed or its record is damaged."""
        return fingerprints_of(self.group)

    def committed(self) -> list[str]:
        """Hex fingerprint of each shard, empty also where its file is missing, cut short or not the recorded one."""
        return self._each_shard(lambda shard: self._fingerprint(shard) if self._is_whole(shard) else "")

    def _each_shard(self, look: Callable[[int], str]) -> list[str]:
        return each_shard(look, array_of(self.group, "shard_fingerprint").shape[0])

    def _fingerprint(self, shard: int) -> str:
        return fingerprint_of(self._store, self._path, shard)

    def _is_whole(self, shard: int) -> bool:
        """Whether a shard's files are there and end as they must; quick, does not see damage further in."""
        try:
            record = read_record(self._store, self._path, shard)
            if record is not None and read_size(self._store, self._reader.key(shard)) != record.size:
                return False
            return self._has_absmax(shard, record) and self._reader.is_whole(shard)
        except DamageError:
            return False

    def _has_absmax(self, shard: int, record: ShardRecord | None) -> bool:
        raw = read_file(self._store, absmax_key(self._path, shard))
        return raw is not None and (record is None or fast_digest(raw) == record.absmax)

    def plan_fingerprints(self, planned: Sequence[str], begun: Mapping[int, str] = NONE_BEGUN) -> None:
        """Record the fingerprint that each shard must get; begun: what it has meanwhile, with its first rows."""
        plain = {name: value for name, value in self.attributes.items() if name != BEGUN}
        self._set_attributes({**plain, **({BEGUN: {str(k): f for k, f in begun.items()}} if begun else {})})
        wanted = np.array([list(bytes.fromhex(p)) for p in planned], np.uint8).reshape(-1, 32)
        array, before = array_of(self.group, "shard_planned"), self.attributes
        digests: Digests = before[CONTENTS]["shard_planned"]
        try:
            if np.array_equal(np.asarray(array[...]), wanted) and digests == array_digests(self.group, array):
                return
        except (ValueError, RuntimeError, DamageError):
            pass  # damaged: written again
        document = {"zarr.json": digests["zarr.json"]}
        self._set_attributes({**before, CONTENTS: {**before[CONTENTS], "shard_planned": document}})
        array[...] = wanted
        written = array_digests(self.group, array)
        self._set_attributes({**before, CONTENTS: {**before[CONTENTS], "shard_planned": written}})
        self.__dict__.pop("_reader", None)

    def commit(
        self,
        start: int,
        shard: int,
        states: NDArray[Any] | Encoding,
        absmax_K: NDArray[np.float32],
        fingerprint: str,
        block: Sequence[BlockPart] = (),
        before_commit: Callable[[], None] = lambda: None,
    ) -> None:
        """Write shard number `shard`, whose first row is `start`, its record, and then the digest that commits it.

        states: [S, K, H], or their encoding under way. block: the rows that were computed together with these, of this
        and other groups. before_commit: called right before the shard is committed; what it raises keeps it
        uncommitted.
        """
        if not isinstance(states, Encoding):
            with ThreadPoolExecutor(threads(), "encode") as pool:
                encoding = Encoding(states, self._reader.shape, pool)
                return self.commit(start, shard, encoding, absmax_K, fingerprint, block, before_commit)
        stop = start + states.num_sentences
        try:
            # Also where the shard's file is missing: what is committed is what was written last, or nothing.
            retract_seal(self._store, self._path, shard)
            write_pieces(self._store, self._reader.key(shard), states.pieces())
            array_of(self.group, "layer_absmax")[shard] = absmax_K
            absmax = fast_digest(read_file(self._store, absmax_key(self._path, shard)) or b"")
            record = ShardRecord(
                fingerprint, (start, stop), tuple(block), states.size, states.index, absmax, states.chunks
            )
            write_record(self._store, self._path, shard, record)
            before_commit()
            write_seal(self._store, self._path, shard, record.seal)
        except (CommitError, DamageError) as error:
            raise CommitError(
                f"{self._path}: shard {shard} (sentences {start} to {stop - 1}): {error}",
                hint=error.hint,
            ) from None

    def retract(self, shards: Sequence[int]) -> None:
        """Clear what commits the shards that are to be computed again."""
        for shard in shards:
            retract_seal(self._store, self._path, shard)

    def withdraw(self, shards: Sequence[int]) -> None:
        """Retract shards whose states are not those of their sentences; results of such states are stale from now on.

        The right states will have the same fingerprints, so the group counts how often that happened.
        """
        self.describe(**{WITHDRAWN: self.attributes.get(WITHDRAWN, 0) + 1})
        self.retract(shards)

    def write_results(
        self, made_from: str, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        """Write what a later stage made, arrays of `arrays.ARRAYS`, and record them together.

        From before the first is written until all are, none of them is recorded: they never stand for different inputs.
        made_from: hash of their inputs and parameters. facts: recorded beside it, by array; among them `inputs`, the
        record of a `freshness.ResultInputs`. Coordinates have neither: several stages write them, and their values say
        all.

        Raises ValueError where values do not fit the table, or a name is one of the user's columns.
        """
        before, specs = self.attributes, {name: spec_of(name) or ARRAYS[name] for name in arrays}
        for name, values in arrays.items():
            specs[name].check(values)
            if name in [column for column, _ in before.get("columns", [])]:
                raise ValueError(f"{self._path}: {name} is a column of the user's: a result may not overwrite it")
        # A coordinate that several stages write stays where it is the same.
        held = {n for n, values in arrays.items() if specs[n].is_coordinate and self._holds(before, n, values)}
        names = [name for name in arrays if name not in held]
        before = _without_results(before, names)
        self._set_attributes(before)
        results, contents = {**before["results"], **{name: {} for name in held}}, dict(before[CONTENTS])
        for name in names:
            values, spec = arrays[name], specs[name]
            spec = spec.with_rows() if "rows" in before.get("shape", {}) else spec
            array = create_array(self.group, spec, values.shape, tuple(min(n, COLUMN_CHUNK) for n in values.shape))
            array[...] = values.astype(np.dtypes.StringDType()) if spec.dtype == "string" else values
            own = {"made_from": made_from, **without_nan((facts or {}).get(name, {}))}
            results[name] = {} if spec.is_coordinate else own
            contents[name] = array_digests(self.group, array)
        self._set_attributes({**before, "results": results, CONTENTS: contents})

    def _holds(self, attributes: dict[str, Any], name: str, values: NDArray[Any]) -> bool:
        """Whether a result is recorded, and its array is whole and has these values."""
        try:
            array = array_of(self.group, name)
            recorded = attributes.get(CONTENTS, {}).get(name)
            return recorded == array_digests(self.group, array) and np.array_equal(np.asarray(array[...]), values)
        except (DamageError, ValueError, RuntimeError):
            return False

    def result_made_from(self, name: str) -> str:
        """The recorded hash of a result, empty where there is no such result."""
        results = self.attributes.get("results", {})
        return str(results.get(name, {}).get("made_from", "")) if name in self.group else ""

    def adopt_results(self, made_from: str, inputs: dict[str, Any]) -> None:
        """Record the inputs of results that an older version wrote with a hash only."""
        before = self.attributes
        results = before.get("results", {})
        adopted = {n: {**r, "inputs": inputs} if r.get("made_from") == made_from else r for n, r in results.items()}
        self._set_attributes({**before, "results": adopted})

    def drop_results(self, names: Sequence[str]) -> None:
        """Remove results, and all that were made together with them, so that they are made again."""
        before = self.attributes
        results = before.get("results", {})
        made_from = {results[n].get("made_from") for n in names if n in results} - {None}
        dropped = [n for n, r in results.items() if n in names or r.get("made_from") in made_from]
        self._set_attributes(_without_results(before, dropped))
        for name in dropped:
            remove_folder(self._store, f"{self._path}/{name}")

    def describe(self, **facts: Any) -> None:
        """Set some attributes of the group; the others stay."""
        self._set_attributes({**self.attributes, **facts})

    def drop_columns(self) -> None:
        """Remove the record of the coordinates, so that they are written again."""
        self._set_attributes(self._without_columns())


def _without_results(attributes: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A group's attributes without some results: from then on they do not exist for a reader."""
    results = {name: facts for name, facts in attributes.get("results", {}).items() if name not in names}
    contents = {name: digests for name, digests in attributes.get(CONTENTS, {}).items() if name not in names}
    return {**attributes, "results": results, CONTENTS: contents}
