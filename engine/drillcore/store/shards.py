"""The bytes of one shard of `hidden_states`: Zarr v3's `sharding_indexed`, chunks of one layer side by side.

Every Zarr reader takes them, and zarr-python's own shards are read here. zarr-python itself spends ten times longer on
a chunk than the compressor does, and orders chunks so that one layer lies scattered over the shard.

Shape legend: S sentences of a shard, K layers, H hidden size, C sentences of a chunk, P chunks along the sentences.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from drillcore.store.contents import fast_digest
from drillcore.store.layout import Shape
from drillcore.system.machine import num_cores

# With two of its own threads Blosc gave different outputs for one input, and bytes must repeat. Our threads take whole
# chunks instead.
blosc.use_threads = False

ABSENT = 2**64 - 1


def threads() -> int:
    """Number of threads that encode or decode chunks: all cores, since compression releases the interpreter's lock."""
    return num_cores()


def index_bytes(shape: Shape) -> int:
    """Bytes of the index at the end of each shard: 16 for each chunk, and a checksum."""
    return 16 * (shape.shard // shape.chunk) * len(shape.layers) + 4


class Encoding:
    """A shard that is being encoded, from the moment this is made; its `pieces` are taken once.

    states_SKH: [S, K, H], which must not change until the last piece was taken, in the store's dtype or in a narrower
    one that it holds exactly (bfloat16 or float16 for float32), which is widened here. The last shard of a dataset may
    have fewer sentences; the missing ones read as NaN. pool: of the threads that encode.

    size, index, chunks: of the file, the digest of its end, and those of its chunks by layer and rows; known at the
    end.
    """

    size = 0
    index = ""
    chunks: tuple[tuple[str, ...], ...] = ()

    def __init__(self, states_SKH: NDArray[Any], shape: Shape, pool: Executor) -> None:
        self.num_sentences, self._shape = len(states_SKH), shape
        self._states_SKH = states_SKH
        parts = -(-len(states_SKH) // shape.chunk)
        places = [(part, slot) for slot in range(len(shape.layers)) for part in range(parts)]
        self._places = deque((place, pool.submit(self._encode, *place)) for place in places)

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes of the file; the next chunks are encoded while one is written."""
        shape = self._shape
        index_PK2 = np.full((shape.shard // shape.chunk, len(shape.layers), 2), ABSENT, "<u8")
        offset, digests = 0, list[list[str]]([] for _ in shape.layers)
        while self._places:
            (part, slot), future = self._places.popleft()
            packed, checksum, found = future.result()
            yield packed
            yield checksum
            index_PK2[part, slot] = offset, len(packed) + len(checksum)
            offset += len(packed) + len(checksum)
            digests[slot].append(found)
        tail = index_PK2.tobytes()
        tail += _checksum(tail)
        yield tail
        self.size, self.index, self.chunks = offset + len(tail), fast_digest(tail), tuple(map(tuple, digests))

    def _encode(self, part: int, slot: int) -> tuple[bytes, bytes, str]:
        """A chunk, its checksum, and its digest."""
        shape = self._shape
        chunk_CH = self._states_SKH[part * shape.chunk : (part + 1) * shape.chunk, slot]
        if len(chunk_CH) < shape.chunk:
            whole_CH = np.full((shape.chunk, shape.hidden_size), np.nan, shape.store_dtype)
            whole_CH[: len(chunk_CH)] = chunk_CH
            chunk_CH = whole_CH
        if chunk_CH.dtype.name == "bfloat16":
            # The upper half of a float32; twice as fast as a cast.
            chunk_CH = np.left_shift(chunk_CH.view(np.uint16), 16, dtype=np.uint32).view(np.float32)
        stored_CH = np.ascontiguousarray(chunk_CH, dtype=np.dtype(shape.store_dtype).newbyteorder("<"))
        packed: bytes = blosc.compress(stored_CH, b"zstd", 1, blosc.SHUFFLE, stored_CH.nbytes)
        return packed, _checksum(packed), fast_digest(packed)


def encode_shard(states_SKH: NDArray[Any], shape: Shape) -> Iterator[bytes]:
    """Yield the bytes of a shard in pieces."""
    with ThreadPoolExecutor(threads(), "encode") as pool:
        yield from Encoding(states_SKH, shape, pool).pieces()


@dataclass(frozen=True)
class Index:
    """Where the chunks of a shard lie in its file: first byte and length of each, ABSENT where there is no chunk."""

    offset_PK: NDArray[np.uint64]
    length_PK: NDArray[np.uint64]

    def span(self, part: int, slot: int) -> tuple[int, int] | None:
        """First byte and length of a chunk."""
        if self.offset_PK[part, slot] == ABSENT:
            return None
        return int(self.offset_PK[part, slot]), int(self.length_PK[part, slot])

    @property
    def end(self) -> int:
        """The first byte after the last chunk."""
        present_PK = self.offset_PK != ABSENT
        return int((self.offset_PK + self.length_PK)[present_PK].max()) if present_PK.any() else 0


def decode_index(tail: bytes, shape: Shape) -> Index:
    """Read the index from the last bytes of a shard; raises ValueError where it is damaged."""
    raw = tail[:-4]
    if len(tail) != index_bytes(shape) or _checksum(raw) != tail[-4:]:
        raise ValueError("the shard's index does not match its checksum")
    index_PK2 = np.frombuffer(raw, "<u8").reshape(-1, len(shape.layers), 2)
    return Index(index_PK2[..., 0], index_PK2[..., 1])


def chunk_digest(piece: NDArray[np.uint8]) -> str:
    """Digest of a chunk, given with its checksum, as its record holds it; raises ValueError where it is damaged."""
    packed = piece[:-4]
    if _checksum(packed) != piece[-4:].tobytes():
        raise ValueError("a chunk does not match its checksum")
    return fast_digest(packed)


def decode_chunk(piece: NDArray[np.uint8], out_CH: NDArray[np.generic], recorded: str | None) -> None:
    """Decode a chunk into a contiguous array of its shape; raises ValueError where it is damaged.

    recorded: the digest that it must have. Without one, as in format 1, its checksum alone is compared.
    """
    packed = piece[:-4]
    if recorded is None or fast_digest(packed) != recorded:
        chunk_digest(piece)
        if recorded is not None:
            raise ValueError("a chunk is not the one that its record names")
    if int.from_bytes(packed[4:8], "little") != out_CH.nbytes:  # Blosc's header holds the unpacked size
        raise ValueError("a chunk does not have the array's shape")
    try:
        blosc.decompress(packed, out_CH)
    except RuntimeError as error:
        raise ValueError(f"a chunk cannot be unpacked: {error}") from None


def _checksum(data: bytes | NDArray[np.uint8]) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(4, "little")
