"""Reads `hidden_states` faster than zarr-python does, and names what is damaged.

Shape legend: N sentences asked for, K layers of the store, Q layers asked for, H hidden size, C sentences of a chunk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from drillcore.errors import DamageError
from drillcore.store.layout import MEND, Shape, array_of
from drillcore.store.places.files import read_ahead, read_end, read_range, read_size
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


class StatesReader:
    """The hidden states of one group; any number of threads may use it."""

    def __init__(self, group: zarr.Group) -> None:
        array = array_of(group, "hidden_states")
        if array.shards is None:
            raise DamageError(f"{group.path}: hidden_states is not sharded", hint=MEND)
        num_sentences, num_layers, hidden_size = array.shape
        # Layer numbers are only needed in errors: a damaged `layer` array must not prevent reading the states.
        self.shape = Shape(
            num_sentences, tuple(range(num_layers)), (), hidden_size, str(array.dtype), array.shards[0], array.chunks[0]
        )
        self.dtype = array.dtype
        self._group = group
        self._store = group.store
        self._key = f"{array.path}/c"
        self._known = lru_cache(maxsize=256)(self._read_index)

    def __getstate__(self) -> dict[str, Any]:
        return {"group": self._group}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["group"])  # type: ignore[misc]

    def index(self, shard: int) -> Index | None:
        """The index of a shard, None where there is no such shard; raises DamageError where it is damaged."""
        try:
            return self._known(shard)
        except FileNotFoundError:
            return None

    def _read_index(self, shard: int) -> Index:
        tail = read_end(self._store, self.key(shard), index_bytes(self.shape))
        if tail is None:
            raise FileNotFoundError
        try:
            return decode_index(tail, self.shape)
        except ValueError as error:
            raise self.damage(shard, None, str(error)) from None

    def key(self, shard: int) -> str:
        """Key of a shard in the store."""
        return f"{self._key}/{shard}/0/0"

    def is_whole(self, shard: int) -> bool:
        """Whether a shard's file exists and ends with its index; raises DamageError where the index is damaged."""
        try:
            index = self._read_index(shard)
        except FileNotFoundError:
            return False
        return read_size(self._store, self.key(shard)) == index.end + index_bytes(self.shape)

    def read(self, rows_N: NDArray[np.int64], slots_Q: NDArray[np.int64]) -> NDArray[Any]:
        """States [N, Q, H] of the sentences and layers at these positions; NaN where none were extracted yet.

        Raises DamageError where bytes are damaged or a committed shard is missing.
        """
        out_NQH = np.empty((len(rows_N), len(slots_Q), self.shape.hidden_size), self.dtype)
        todo = deque(_runs(_spans(self.shape, rows_N, slots_Q), max(1, RUN_BYTES // self._chunk_bytes)))

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
                decode_chunk(piece, out_CH)
                return True
        return self.read_chunk(span.shard, span.part, span.slot, out_CH)

    def _read_ahead(self, todo: deque[list[Span]]) -> None:
        """Let the system read the next run while this one is decoded."""
        with suppress(IndexError, DamageError):  # no next run; damage is reported when its turn comes
            run = todo[threads()]
            spans = self._lie_side_by_side(run)
            if spans:
                read_ahead(self._store, self.key(run[0].shard), spans[0][0], sum(length for _, length in spans))

    def _read_run(self, run: Sequence[Span], scratch: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """The bytes of each chunk where they lie side by side, as we write them; empty otherwise or on a read error."""
        spans = self._lie_side_by_side(run)
        if not spans:
            return []
        first = spans[0][0]
        try:
            raw = read_range(self._store, self.key(run[0].shard), first, sum(length for _, length in spans), scratch)
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
                if self._is_committed(shard):
                    what = "the shard's file is missing" if index is None else "a chunk is missing"
                    raise self.damage(shard, None, what)
                return False
            try:
                decode_chunk(read_range(self._store, self.key(shard), *span), out_CH)
                break
            except ValueError as error:
                if last_try:
                    raise self.damage(shard, slot, str(error)) from None
                self._known.cache_clear()  # a run may have written the shard again since its index was read
        return True

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
