"""The layout of a store: names, dimensions, dtypes, codecs, and sizes of shards and chunks.

Shape legend: N sentences, K layers, H hidden size, S sentences of a shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, VLenUTF8Codec, ZstdCodec

FORMAT = 1
KIND = "drillcore"
SHARD_BYTES = 256 * 2**20
CHUNK_BYTES = 2**20
COLUMN_CHUNK = 65_536
FILLS = {"float32": np.nan, "float16": np.nan, "uint8": 0, "int32": -1, "int64": -1, "float64": np.nan, "bool": False}


@dataclass(frozen=True)
class Shape:
    """What decides the arrays of one model and dataset; another shape needs them anew.

    layers: layer numbers. shard, chunk: sentences, powers of two.
    """

    num_sentences: int
    layers: tuple[int, ...]
    layer_names: tuple[str, ...]
    hidden_size: int
    store_dtype: str
    shard: int
    chunk: int

    @property
    def num_shards(self) -> int:
        """Shards of the hidden states."""
        return -(-self.num_sentences // self.shard)

    @property
    def sentence_bytes(self) -> int:
        """Bytes of one sentence's states, before compression."""
        return len(self.layers) * self.hidden_size * np.dtype(self.store_dtype).itemsize

    def bounds(self, shard: int) -> tuple[int, int]:
        """First sentence of a shard and the one after its last."""
        return shard * self.shard, min((shard + 1) * self.shard, self.num_sentences)

    def as_attribute(self) -> dict[str, Any]:
        """JSON-ready, to be compared on the next run."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """A group's array by name; raises KeyError where there is none."""
    found = group[name]
    if not isinstance(found, zarr.Array):
        raise KeyError(name)
    return found


def attributes_of(group: zarr.Group) -> dict[str, Any]:
    """A group's attributes."""
    return dict(group.attrs)


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
    """Sizes: a shard of 128 to 256 MB, chunks of 0.5 to 1 MB of one layer, neither beyond what the dataset fills."""
    item = np.dtype(store_dtype).itemsize
    enough = 1 << max(0, (num_sentences - 1).bit_length())
    rows = shard or min(_power_of_two(SHARD_BYTES / (len(layers) * hidden_size * item)), enough)
    chunk = min(_power_of_two(CHUNK_BYTES / (hidden_size * item)), rows)
    return Shape(num_sentences, tuple(layers), tuple(layer_names), hidden_size, store_dtype, rows, chunk)


def create_array(
    group: zarr.Group, name: str, shape: tuple[int, ...], dtype: str, dims: Sequence[str], chunks: tuple[int, ...]
) -> zarr.Array[Any]:
    """An array of ours: checksummed, compressed unless it is a fingerprint, fill value NaN where the dtype has one."""
    serializer: Any = VLenUTF8Codec() if dtype == "string" else "auto"
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=tuple(max(1, c) for c in chunks),
        serializer=serializer,
        compressors=(ZstdCodec(level=3), Crc32cCodec()),
        fill_value="" if dtype == "string" else FILLS[dtype],
        dimension_names=list(dims),
        config={"write_empty_chunks": True},
        overwrite=True,
    )


def create_states(group: zarr.Group, shape: Shape) -> zarr.Array[Any]:
    """The `hidden_states` array: shards (S, K, H) of chunks (C, 1, H)."""
    item = np.dtype(shape.store_dtype).itemsize
    # One Blosc block a chunk: each byte plane is then one run for zstd, which reads 5 times and writes 1.5 times faster
    # than with Blosc's own choice of 32 KiB, and takes a tenth less room.
    chunk_bytes = shape.chunk * shape.hidden_size * item
    blosc = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=item, blocksize=chunk_bytes)
    return group.create_array(
        "hidden_states",
        shape=(shape.num_sentences, len(shape.layers), shape.hidden_size),
        dtype=shape.store_dtype,
        shards=(shape.shard, len(shape.layers), shape.hidden_size),
        chunks=(shape.chunk, 1, shape.hidden_size),
        compressors=(blosc, Crc32cCodec()),
        fill_value=np.nan,
        dimension_names=["sentence", "layer", "hidden"],
        config={"write_empty_chunks": True},
        overwrite=True,
    )


def create_extract_arrays(group: zarr.Group, shape: Shape) -> None:
    """All arrays that extraction fills, whole shape, nothing written."""
    num_layers = len(shape.layers)
    create_states(group, shape)
    create_array(group, "layer_absmax", (shape.num_shards, num_layers), "float32", ("shard", "layer"), (1, num_layers))
    group.create_array(
        "shard_fingerprint",
        shape=(shape.num_shards, 32),
        dtype="uint8",
        chunks=(1, 32),
        compressors=(Crc32cCodec(),),
        fill_value=0,
        dimension_names=["shard", "digest"],
        config={"write_empty_chunks": True},
        overwrite=True,
    )
    layer = create_array(group, "layer", (num_layers,), "int64", ("layer",), (num_layers,))
    layer[:] = np.array(shape.layers, dtype=np.int64)
    names = create_array(group, "layer_name", (num_layers,), "string", ("layer",), (num_layers,))
    names[:] = np.array(shape.layer_names, dtype=np.dtypes.StringDType())
