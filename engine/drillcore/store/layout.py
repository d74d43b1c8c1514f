"""The layout of a store: codecs, and sizes of shards and chunks; `arrays` lists the arrays.

Shape legend: N sentences, K layers, H hidden size, S sentences of a shard.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.buffer import default_buffer_prototype
from zarr.codecs import BloscCodec, Crc32cCodec, VLenUTF8Codec, ZstdCodec
from zarr.storage import MemoryStore

from drillcore.errors import DamageError, StoreError
from drillcore.store.arrays import ARRAYS, ROW_COLUMNS, ArraySpec
from drillcore.store.attributes import FORMAT, FORMATS, MEND

KIND = "drillcore"
# Attribute of a group: how often its states turned out not to be those of its sentences.
WITHDRAWN = "withdrawn"
# Attribute of a group that grew: how many sentences it had each time before.
BORDERS = "borders"
SHARD_BYTES = 256 * 2**20
CHUNK_BYTES = 2 * 2**20
COLUMN_CHUNK = 65_536
# Made from the shape alone: `layer_values`.
LAYER_ARRAYS = ("layer", "layer_name")
FILLS = {
    **dict.fromkeys(("float16", "float32", "float64"), np.nan),
    **dict.fromkeys(("int16", "int32", "int64"), -1),
    **{"uint8": 0, "bool": False},
}


@dataclass(frozen=True)
class Rows:
    """How the rows of a group lie whose sentences have any number of them.

    Each block begins a shard, so that no shard is of two blocks; what is left of a block's last shard holds nothing.
    num_sentences: of the dataset. block: sentences of a block. rows_B: rows of each block.
    """

    num_sentences: int
    block: int
    rows_B: tuple[int, ...]


@dataclass(frozen=True)
class Shape:
    """What decides the arrays of one model and dataset; another shape needs new arrays.

    num_sentences: of the group, or its rows where a sentence has any number of them: `rows` is given then. layers:
    layer numbers. shard, chunk: sentences (or rows), powers of two. borders: how many sentences the dataset had each
    time before it grew, ascending: what stands on two sides of one was not computed together.
    """

    num_sentences: int
    layers: tuple[int, ...]
    layer_names: tuple[str, ...]
    hidden_size: int
    store_dtype: str
    shard: int
    chunk: int
    rows: Rows | None = None
    borders: tuple[int, ...] = ()

    @property
    def num_shards(self) -> int:
        """Shards of the hidden states."""
        return -(-self.num_sentences // self.shard) if self.rows is None else int(self._first_shard_B[-1])

    @cached_property
    def _first_row_B(self) -> NDArray[np.int64]:
        """The first row of each block, and the number of all rows."""
        assert self.rows is not None
        return np.concatenate([[0], np.cumsum(self.rows.rows_B, dtype=np.int64)])

    @cached_property
    def _first_shard_B(self) -> NDArray[np.int64]:
        """The first shard of each block, and the number of all shards."""
        assert self.rows is not None
        return np.concatenate([[0], np.cumsum(-(-np.array(self.rows.rows_B, np.int64) // self.shard))])

    @property
    def num_places(self) -> int:
        """Length of `hidden_states`: its rows, and between blocks the places that hold none."""
        return (
            self.num_sentences if self.rows is None else int(self.places_of(np.array([self.num_sentences - 1]))[0]) + 1
        )

    def places_of(self, rows_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where rows stand in `hidden_states`, int64 [N] each.

        >>> Shape(5, (0,), ("embed",), 8, "float32", 2, 1, Rows(4, 2, (3, 2))).places_of(np.arange(5)).tolist()
        [0, 1, 2, 4, 5]
        """
        if self.rows is None:
            return rows_N
        block_N = np.searchsorted(self._first_row_B, rows_N, side="right") - 1
        return np.asarray(self._first_shard_B[block_N] * self.shard + rows_N - self._first_row_B[block_N])

    def shards_of(self, rows_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """The shard of each row."""
        return self.places_of(rows_N) // self.shard

    def block_of_shard(self, shard: int) -> int:
        """The block of a shard, where `rows` is given."""
        return int(np.searchsorted(self._first_shard_B, shard, side="right")) - 1

    def block_bounds(self, block: int) -> tuple[int, int]:
        """First row of a block and the one after its last, where `rows` is given."""
        return int(self._first_row_B[block]), int(self._first_row_B[block + 1])

    def may_grow_to(self, other: Shape) -> bool:
        """Whether another shape is this one, or has more sentences at its end."""
        mine = replace(self, num_sentences=other.num_sentences, rows=other.rows, borders=other.borders)
        if other.borders[: len(self.borders)] != self.borders:
            return False
        if mine != other or self.num_sentences > other.num_sentences or (self.rows is None) != (other.rows is None):
            return False
        if self.rows is None or other.rows is None:
            return True
        before, after = self.rows.rows_B, other.rows.rows_B
        if self.rows.block != other.rows.block or self.rows.num_sentences > other.rows.num_sentences:
            return False
        same = self.rows.num_sentences == other.rows.num_sentences
        return before == after if same else before[:-1] == after[: len(before) - 1]

    @property
    def sentence_bytes(self) -> int:
        """Bytes of one sentence's states, before compression."""
        return len(self.layers) * self.hidden_size * np.dtype(self.store_dtype).itemsize

    def bounds(self, shard: int) -> tuple[int, int]:
        """First sentence of a shard, or row, and the one after its last."""
        if self.rows is None:
            return shard * self.shard, min((shard + 1) * self.shard, self.num_sentences)
        block = self.block_of_shard(shard)
        first, stop = self.block_bounds(block)
        first += (shard - int(self._first_shard_B[block])) * self.shard
        return first, min(first + self.shard, stop)

    def as_attribute(self) -> dict[str, Any]:
        """JSON-ready, to be compared on the next run; the borders are an attribute of their own."""
        skipped = ("rows", "borders")
        described = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items() if k not in skipped}
        if self.rows is None:
            return described
        return {**described, "rows": {**asdict(self.rows), "rows_B": list(self.rows.rows_B)}}


def shape_of(attributes: dict[str, Any]) -> Shape:
    """The shape that a group's attributes record; raises ValueError, KeyError or TypeError where they hold none."""
    described: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in attributes["shape"].items()}
    rows = described.pop("rows", None)
    shape = Shape(**described)
    if rows is not None:
        shape = replace(shape, rows=Rows(int(rows["num_sentences"]), int(rows["block"]), tuple(rows["rows_B"])))
    shape = replace(shape, borders=tuple(map(int, attributes.get(BORDERS, ()))))
    if not (shape.num_sentences > 0 and shape.shard > 0 and shape.chunk > 0):
        raise ValueError("the shape is not valid")
    if shape.rows is not None and (sum(shape.rows.rows_B) != shape.num_sentences or min(shape.rows.rows_B) < 0):
        raise ValueError("the shape is not valid")
    return shape


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """An array of a group by name; raises DamageError where it is missing or its metadata cannot be read."""
    try:
        array = group[name]
    except (KeyError, ValueError, TypeError) as error:
        what = "is missing" if isinstance(error, KeyError) else f"cannot be read: {error}"
        raise DamageError(f"{group.path}: the array {name} {what}", hint=MEND) from None
    if not isinstance(array, zarr.Array):
        raise DamageError(f"{group.path}: {name} is not an array", hint=MEND)
    return array


def read_array(group: zarr.Group, name: str) -> NDArray[Any]:
    """All values of a small array, strings as objects; raises DamageError where it is damaged or missing."""
    try:
        values = np.asarray(array_of(group, name)[...])
    except (ValueError, RuntimeError, TypeError) as error:
        raise DamageError(f"{group.path}: {name} cannot be read: {error}", hint=MEND) from None
    return values.astype(object) if values.dtype.kind == "T" else values


def _power_of_two(value: float) -> int:
    """The largest power of two not above `value`, at least 1."""
    return 1 << max(0, int(value).bit_length() - 1)


def choose_shape(
    num_sentences: int,
    layers: Sequence[int],
    layer_names: Sequence[str],
    hidden_size: int,
    store_dtype: str,
    shard: int | None = None,
) -> Shape:
    """Choose sizes: shards of 128 to 256 MB, chunks of 1 to 2 MB of one layer, none larger than the dataset fills.

    >>> choose_shape(10, (0, 1), ("embed", "block_1"), 64, "float32").shard
    16
    """
    item = np.dtype(store_dtype).itemsize
    enough = 1 << max(0, (num_sentences - 1).bit_length())
    rows = shard or min(_power_of_two(SHARD_BYTES / (len(layers) * hidden_size * item)), enough)
    chunk = min(_power_of_two(CHUNK_BYTES / (hidden_size * item)), rows)
    return Shape(num_sentences, tuple(layers), tuple(layer_names), hidden_size, store_dtype, rows, chunk)


def create_array(
    group: zarr.Group, spec: ArraySpec, shape: tuple[int, ...], chunks: tuple[int, ...]
) -> zarr.Array[Any]:
    """Create an array: checksummed, compressed, fill value NaN where the dtype has one."""
    serializer: Any = VLenUTF8Codec() if spec.dtype == "string" else "auto"
    return group.create_array(
        spec.name,
        shape=shape,
        dtype=spec.dtype,
        chunks=tuple(max(1, c) for c in chunks),
        serializer=serializer,
        compressors=(ZstdCodec(level=3), Crc32cCodec()),
        fill_value="" if spec.dtype == "string" else FILLS[spec.dtype],
        dimension_names=list(spec.dims),
        config={"write_empty_chunks": True},
        overwrite=True,
    )


def create_states(group: zarr.Group, shape: Shape) -> zarr.Array[Any]:
    """The `hidden_states` array: shards (S, K, H) of chunks (C, 1, H)."""
    item = np.dtype(shape.store_dtype).itemsize
    # One Blosc block a chunk: each byte plane is then one run for zstd, which reads 5 times and writes 1.5 times faster
    # than with Blosc's own choice of 32 KiB, and takes a tenth less room.
    chunk_bytes, spec = shape.chunk * shape.hidden_size * item, ARRAYS["hidden_states"]
    blosc = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=item, blocksize=chunk_bytes)
    dims = spec.dims if shape.rows is None else ("place", *spec.dims[1:])
    return group.create_array(
        spec.name,
        shape=(shape.num_places, len(shape.layers), shape.hidden_size),
        dtype=shape.store_dtype,
        shards=(shape.shard, len(shape.layers), shape.hidden_size),
        chunks=(shape.chunk, 1, shape.hidden_size),
        compressors=(blosc, Crc32cCodec()),
        fill_value=np.nan,
        dimension_names=list(dims),
        config={"write_empty_chunks": True},
        overwrite=True,
    )


def create_extract_arrays(group: zarr.Group, shape: Shape) -> None:
    """Create all arrays that extraction fills, in full shape and empty; fingerprints last: they stand for data."""
    num_layers = len(shape.layers)
    create_states(group, shape)
    create_record(group, shape.num_shards)
    create_array(group, ARRAYS["layer_absmax"], (shape.num_shards, num_layers), (1, num_layers))
    for name in LAYER_ARRAYS:
        create_array(group, ARRAYS[name], (num_layers,), (num_layers,))
    _create_digests(group, ARRAYS["shard_planned"], shape.num_shards, shape.num_shards)
    _create_digests(group, ARRAYS["shard_fingerprint"], shape.num_shards, 1)


def create_record(group: zarr.Group, num_shards: int) -> None:
    """The `shard_record` array: one text a shard, uncompressed, so that `record` reads and writes it as it is."""
    group.create_array(
        "shard_record",
        shape=(num_shards,),
        dtype="string",
        chunks=(1,),
        serializer=VLenUTF8Codec(),
        compressors=(Crc32cCodec(),),
        fill_value="",
        dimension_names=list(ARRAYS["shard_record"].dims),
        config={"write_empty_chunks": True},
        overwrite=True,
    )


def _create_digests(group: zarr.Group, spec: ArraySpec, num_shards: int, chunk: int) -> None:
    """SHA-256 digests, 32 bytes a shard, uncompressed."""
    group.create_array(
        spec.name,
        shape=(num_shards, 32),
        dtype=spec.dtype,
        chunks=(chunk, 32),
        compressors=(Crc32cCodec(),),
        fill_value=0,
        dimension_names=list(spec.dims),
        config={"write_empty_chunks": True},
        overwrite=True,
    )


def create_columns(group: zarr.Group, shape: Shape, columns: Sequence[tuple[str, str]]) -> None:
    """Create the coordinates, given by name and dtype, empty: of the sentences, or of rows and of sentences."""
    for name, dtype in columns:
        if shape.rows is None:
            dim, size = "sentence", shape.num_sentences
        else:
            of_rows = name in ROW_COLUMNS
            dim, size = ("row", shape.num_sentences) if of_rows else ("instance", shape.rows.num_sentences)
        create_array(group, ArraySpec(name, (dim,), dtype, ("columns",)), (size,), (min(COLUMN_CHUNK, size),))


def every_column(shape: Shape, columns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The coordinates with those that number sentences and rows."""
    return (
        [("sentence", "int64"), *columns] if shape.rows is None else [("row", "int64"), ("sentence", "int64"), *columns]
    )


def layer_values(shape: Shape) -> dict[str, NDArray[Any]]:
    """What the arrays `layer` and `layer_name` hold."""
    return {
        "layer": np.array(shape.layers, dtype=np.int64),
        "layer_name": np.array(shape.layer_names, dtype=np.dtypes.StringDType()),
    }


def expected_metadata(shape: Shape, columns: Sequence[tuple[str, str]] = ()) -> dict[str, bytes]:
    """What the zarr.json of every array must say, by the array's name; the arrays are created in memory for this."""
    store = MemoryStore()
    group = zarr.create_group(store)
    create_extract_arrays(group, shape)
    create_columns(group, shape, columns)
    metadata = {}
    for name, array in group.arrays():
        metadata[name] = array.metadata.to_buffer_dict(default_buffer_prototype())["zarr.json"].to_bytes()
    return metadata


def same_metadata(stored: bytes | None, expected: bytes) -> bool:
    """Whether an array's zarr.json says what is expected."""
    try:
        return stored is not None and bool(json.loads(stored) == json.loads(expected))
    except (ValueError, RecursionError):
        return False


def check_ours(attributes: dict[str, Any], address: str, job_name: str | None) -> None:
    """Raise StoreError unless the root's attributes are those of a store of ours, of this format and job."""
    if attributes.get("kind") != KIND:
        raise StoreError(
            f"store {address} is not a drillcore store", hint="Name a folder that does not exist yet, or another store."
        )
    if attributes.get("format") not in FORMATS:
        raise StoreError(
            f"store {address} has format {attributes.get('format')}, this version reads formats 1 and {FORMAT}",
            hint="Use the version that wrote it, or give the job another store.",
        )
    if job_name is not None and attributes.get("job") != job_name:
        raise StoreError(
            f"store {address} belongs to the job {attributes.get('job')}, not {job_name}",
            hint="Give this job another store, or rename it back.",
        )


def check_group_name(name: str, what: str) -> None:
    """Raise StoreError where a name cannot be a group or an array of a store."""
    wrong = not name or "/" in name or "\\" in name or not name.isprintable() or name != name.strip()
    if wrong or name in (".", "..", "zarr.json") or name.startswith("__") or len(name.encode()) > 200:
        raise StoreError(
            f"{what} {name!r} cannot be a name in the store",
            hint="Give it another one with `as:`." if what == "model" else "Choose another name.",
        )
