"""Reads `hidden_states` faster than zarr-python does, and names what is damaged.

Shape legend: N sentences asked for, K layers of the store, Q layers asked for, H hidden size, C sentences of a chunk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store

from drillcore.errors import CommitError, DamageError
from drillcore.store.attributes import BEGUN, CONTENTS, MEND, attributes_of, is_finished, read_attributes
from drillcore.store.contents import fast_digest
from drillcore.store.layout import Shape, array_of, read_array, shape_of
from drillcore.store.places.files import plain_store, read_ahead, read_end, read_file, read_range, read_size
from drillcore.store.record import NOT_COMMITTED, absmax_key, read_record
from drillcore.store.shards import Index, decode_chunk, decode_index, index_bytes, threads

# Read at a time: large enough for storage that answers slowly, small enough to stay in a core's cache until decoded.
RUN_BYTES = 2 * 2**20


@dataclass(frozen=True)
class Span:
    """Sentences of one chunk at one layer: `rows` within the chunk go to `places` of the result's first axis."""

    shard: int
    part: int
    slot: int
    rows: NDArray[np.int64]
    places: NDArray[np.int64]
    layer_place: int


@dataclass(frozen=True)
class Known:
    """What is known of a shard: where its chunks lie, and, from format 2 on, their digests by layer and rows."""

    index: Index
    chunks: tuple[tuple[str, ...], ...] | None


class StatesReader:
    """The hidden states of one group; any number of threads may use it.

    by_plan: whether a shard must be the one that the group plans to have, too. recorded: whether the records of shards
    are looked at; without them every chunk is compared with its own checksum only, as in format 1.
    """

    def __init__(self, group: zarr.Group, *, by_plan: bool = True, recorded: bool = True) -> None:
        array = array_of(group, "hidden_states")
        if array.shards is None:
            raise DamageError(f"{group.path}: hidden_states is not sharded", hint=MEND)
        num_places, num_layers, hidden_size = array.shape
        # Layer numbers are only needed in errors: a damaged `layer` array must not prevent reading the states.
        self.shape = Shape(
            num_places, tuple(range(num_layers)), (), hidden_size, str(array.dtype), array.shards[0], array.chunks[0]
        )
        attributes = attributes_of(group)
        if "rows" in attributes.get("shape", {}):
            described = _described(attributes, group.path)
            self.shape = replace(self.shape, num_sentences=described.num_sentences, rows=described.rows)
        self.dtype = array.dtype
        self._group, self._options = group, {"by_plan": by_plan, "recorded": recorded}
        self.store, self.path = plain_store(group.store), group.path
        self._key = f"{array.path}/c"
        contents: dict[str, Any] | None = attributes.get(CONTENTS)
        self._has_records = recorded and contents is not None
        # While a run writes its plan, shards are what they say they are.
        self._has_plan = (
            by_plan and self._has_records and contents is not None and len(contents.get("shard_planned", ())) > 1
        )
        self._known = lru_cache(maxsize=256)(self._look)

    def __getstate__(self) -> dict[str, Any]:
        return {"group": self._group, **self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @cached_property
    def _planned(self) -> NDArray[np.uint8]:
        """The fingerprint of each shard [shard, 32] that the group must have."""
        return read_array(self._group, "shard_planned")

    def index(self, shard: int) -> Index | None:
        """The index of a shard, None where it is not there; raises DamageError where it is damaged or another's."""
        known = self._find(shard)
        return None if known is None else known.index

    def _find(self, shard: int) -> Known | None:
        try:
            return self._known(shard)
        except FileNotFoundError:
            return None
        except DamageError:
            # A run may have written the shard between two readings.
            self._forget()
            with suppress(FileNotFoundError):
                return self._known(shard)
            return None

    def _forget(self) -> None:
        self._known.cache_clear()
        self.__dict__.pop("_planned", None)

    def _look(self, shard: int) -> Known:
        record = read_record(self.store, self._group.path, shard) if self._has_records else None
        if self._has_records and record is None:
            if is_finished(read_attributes(self.store, ""), self.path):
                raise self.damage(shard, None, NOT_COMMITTED)
            raise FileNotFoundError
        if record is not None and self._has_plan and not self._is_planned(shard, record.fingerprint):
            raise self.damage(shard, None, "it is not of the sentences, model and settings that the group records")
        tail = read_end(self.store, self.key(shard), index_bytes(self.shape))
        if tail is None:
            if record is not None:
                raise self.damage(shard, None, "the shard's file is missing")
            raise FileNotFoundError
        try:
            index = decode_index(tail, self.shape)
            if record is not None and fast_digest(tail) != record.index:
                raise ValueError("the shard's file is not the one that its record names")
        except ValueError as error:
            raise self.damage(shard, None, str(error)) from None
        return Known(index, None if record is None else record.chunks)

    def _is_planned(self, shard: int, fingerprint: str) -> bool:
        """Whether a shard is the one that the group plans, or, while the group grows, holds the first rows of it."""
        if self._planned[shard].tobytes().hex() == fingerprint:
            return True
        return is_begun(self.store, self.path, shard, fingerprint)

    def key(self, shard: int) -> str:
        """Key of a shard in the store."""
        return f"{self._key}/{shard}/0/0"

    def is_whole(self, shard: int) -> bool:
        """Whether a shard's file ends as its record and its index say; raises DamageError where it is damaged."""
        self._forget()
        index = self.index(shard)
        return index is not None and read_size(self.store, self.key(shard)) == index.end + index_bytes(self.shape)

    def read(self, rows_N: NDArray[np.int64], slots_Q: NDArray[np.int64]) -> NDArray[Any]:
        """States [N, Q, H] of the sentences, or rows, and layers at these positions; NaN where none were extracted yet.

        Raises DamageError where bytes are damaged or a committed shard is missing.
        """
        out_NQH = np.empty((len(rows_N), len(slots_Q), self.shape.hidden_size), self.dtype)
        todo = deque(
            _runs(_spans(self.shape, self.shape.places_of(rows_N), slots_Q), max(1, RUN_BYTES // self._chunk_bytes))
        )

        def work(_: int) -> None:
            # One call and one buffer for each thread, not for each chunk: handing out calls costs as much as decoding.
            scratch = np.empty(RUN_BYTES + self._chunk_bytes, np.uint8)
            while (run := _next(todo)) is not None:
                self._read_ahead(todo)
                self._fill(run, out_NQH, scratch)

        with ThreadPoolExecutor(threads(), "decode") as pool:
            try:
                list(pool.map(work, range(threads())))
            finally:
                todo.clear()
        return out_NQH

    def first_rows(self, shard: int, fingerprint: str, num_rows: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """States [rows, K, H] of the first rows of a shard that is committed with a fingerprint, and its maxima [K].

        Raises CommitError where the shard is no longer committed so, DamageError where it is damaged.
        """
        record = read_record(self.store, self.path, shard)
        if record is None or record.fingerprint != fingerprint:
            raise CommitError(
                f"{self.path}: shard {shard}, to which rows are added, is not committed as it was when the run began",
                hint="Run the same command again: it computes all rows of that shard.",
            )
        first = self.shape.bounds(shard)[0]
        states_NKH = self.read(np.arange(first, first + num_rows), np.arange(len(self.shape.layers)))
        maxima = read_file(self.store, absmax_key(self.path, shard)) or b""
        if fast_digest(maxima) != record.absmax or not np.isfinite(states_NKH).all():
            raise self.damage(shard, None, "its first rows, or their maxima, are damaged")
        return states_NKH, np.asarray(array_of(self._group, "layer_absmax")[shard], np.float32)

    def _fill(self, run: Sequence[Span], out_NQH: NDArray[Any], scratch: NDArray[np.uint8]) -> None:
        """Read a run of chunks at once and decode each into its place."""
        pieces = self._read_run(run, scratch)
        scratch_CH = np.empty((self.shape.chunk, self.shape.hidden_size), self.dtype)
        for number, span in enumerate(run):
            target_NH = out_NQH[:, span.layer_place]
            place = None if out_NQH.shape[1] > 1 else _whole(span, self.shape.chunk)
            chunk_CH = scratch_CH if place is None else target_NH[place]
            if not self._decode(pieces[number] if pieces else None, span, chunk_CH):
                target_NH[span.places] = np.nan
            elif place is None:
                target_NH[span.places] = chunk_CH[span.rows]

    def _decode(self, piece: NDArray[np.uint8] | None, span: Span, out_CH: NDArray[Any]) -> bool:
        if piece is not None:
            with suppress(ValueError):  # read_chunk below says what is wrong
                decode_chunk(piece, out_CH, self._recorded(span.shard, span.part, span.slot))
                return True
        return self.read_chunk(span.shard, span.part, span.slot, out_CH)

    def _read_ahead(self, todo: deque[list[Span]]) -> None:
        """Let the system read the next run while this one is decoded."""
        with suppress(IndexError, DamageError):  # no next run; damage is reported when its turn comes
            run = todo[threads()]
            spans = self._lie_side_by_side(run)
            if spans:
                read_ahead(self.store, self.key(run[0].shard), spans[0][0], sum(length for _, length in spans))

    def _read_run(self, run: Sequence[Span], scratch: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """The bytes of each chunk where they lie side by side, as we write them; empty otherwise or on a read error."""
        spans = self._lie_side_by_side(run)
        if not spans:
            return []
        first = spans[0][0]
        try:
            raw = read_range(self.store, self.key(run[0].shard), first, sum(length for _, length in spans), scratch)
        except ValueError:
            return []
        return [raw[start - first : start - first + length] for start, length in spans]

    def _lie_side_by_side(self, run: Sequence[Span]) -> list[tuple[int, int]]:
        """First byte and length of each chunk if they follow each other in the file; empty otherwise."""
        index = self.index(run[0].shard)
        spans = [] if index is None else [s for s in (index.span(c.part, c.slot) for c in run) if s is not None]
        starts, ends = [start for start, _ in spans], [start + length for start, length in spans]
        return spans if len(spans) == len(run) and starts[1:] == ends[:-1] else []

    @property
    def _chunk_bytes(self) -> int:
        return self.shape.chunk * self.shape.hidden_size * int(self.dtype.itemsize)

    def read_chunk(self, shard: int, part: int, slot: int, out_CH: NDArray[Any]) -> bool:
        """Decode one chunk into an array; False where its shard does not exist and is not committed."""
        for last_try in (False, True):
            index = self.index(shard)
            span = None if index is None else index.span(part, slot)
            if span is None:
                if self._is_spare(shard, part, slot):
                    return False
                if self._is_committed(shard):
                    what = "the shard's file is missing" if index is None else "a chunk is missing"
                    raise self.damage(shard, None, what)
                return False
            try:
                decode_chunk(read_range(self.store, self.key(shard), *span), out_CH, self._recorded(shard, part, slot))
                break
            except ValueError as error:
                if last_try:
                    raise self.damage(shard, slot, str(error)) from None
                self._forget()  # a run may have written the shard again since its index was read
        return True

    def _is_spare(self, shard: int, part: int, slot: int) -> bool:
        """Whether a chunk lies after the last row of its shard, by the shard's record."""
        known = self._find(shard)
        return known is not None and known.chunks is not None and part >= len(known.chunks[slot])

    def _recorded(self, shard: int, part: int, slot: int) -> str | None:
        """The digest that a chunk must have; None in format 1. Raises ValueError where its record lacks it."""
        known = self._find(shard)
        if known is None or known.chunks is None:
            return None
        try:
            return known.chunks[slot][part]
        except IndexError:
            raise ValueError("a chunk is not in the record of its shard") from None

    def _is_committed(self, shard: int) -> bool:
        try:
            return bool(np.asarray(array_of(self._group, "shard_fingerprint")[shard]).any())
        except (ValueError, RuntimeError, DamageError):
            return False

    def damage(self, shard: int, slot: int | None, what: str) -> DamageError:
        """The error that names a shard, its sentences and the layer."""
        first, stop = self.shape.bounds(shard)
        layer = "" if slot is None else f", layer {self._layer_number(slot)}"
        return DamageError(
            f"{self._group.path}: shard {shard} (sentences {first} to {stop - 1}){layer}: {what}", hint=MEND
        )

    def _layer_number(self, slot: int) -> str:
        try:
            return str(int(np.asarray(array_of(self._group, "layer")[slot])))
        except (ValueError, RuntimeError, DamageError):
            return f"at position {slot}"


def is_begun(store: Store, path: str, shard: int, fingerprint: str) -> bool:
    """Whether a shard with this fingerprint holds the rows that it had before its group began to grow."""
    if is_finished(read_attributes(store, ""), path):
        return False
    return bool(read_attributes(store, path).get(BEGUN, {}).get(str(shard)) == fingerprint)


def _described(attributes: dict[str, Any], path: str) -> Shape:
    """The shape in a group's attributes; raises DamageError where there is none."""
    try:
        return shape_of(attributes)
    except (ValueError, KeyError, TypeError) as error:
        raise DamageError(f"{path}: its shape cannot be read: {error}", hint=MEND) from None


def _next(todo: deque[list[Span]]) -> list[Span] | None:
    try:
        return todo.popleft()
    except IndexError:  # another thread took the last one
        return None


def _whole(span: Span, chunk: int) -> slice | None:
    """The place of a whole chunk, if all its rows go to one contiguous place in order; None otherwise."""
    first, count = int(span.places[0]), len(span.places)
    if count < chunk or int(span.places[-1]) - first != count - 1 or not np.array_equal(span.rows, np.arange(count)):
        return None
    return slice(first, first + count)


def _runs(spans: Iterable[Span], most: int) -> Iterator[list[Span]]:
    """Runs of chunks of one layer that follow each other in a shard, at most `most` chunks each."""
    run: list[Span] = []
    for span in spans:
        last = run[-1] if run else None
        if last and (len(run) == most or (last.shard, last.slot, last.part + 1) != (span.shard, span.slot, span.part)):
            yield run
            run = []
        run.append(span)
    if run:
        yield run


def _spans(shape: Shape, rows_N: NDArray[np.int64], slots_Q: NDArray[np.int64]) -> Iterator[Span]:
    """The chunks that hold these sentences, layer by layer, so that each file is read forwards."""
    in_order = not (np.diff(rows_N) < 0).any()
    order_N = np.arange(len(rows_N)) if in_order else np.argsort(rows_N, kind="stable")
    chunk_N = rows_N[order_N] // shape.chunk
    cuts = np.flatnonzero(np.diff(chunk_N)) + 1
    groups = np.split(order_N, cuts) if len(rows_N) else []
    chunks_per_shard = shape.shard // shape.chunk
    by_shard: dict[int, list[tuple[int, NDArray[np.int64]]]] = {}
    for places in groups:
        chunk = int(rows_N[places[0]]) // shape.chunk
        by_shard.setdefault(chunk // chunks_per_shard, []).append((chunk % chunks_per_shard, places))
    for shard, parts in by_shard.items():
        for layer_place, slot in enumerate(slots_Q.tolist()):
            for part, places in parts:
                yield Span(shard, part, slot, rows_N[places] % shape.chunk, places, layer_place)
