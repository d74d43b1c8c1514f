"""Blocks of a dataset: their size, and the fingerprint that each shard must have."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from drillcore.store.layout import Shape
from drillcore.system.files import digest
from drillcore.tokens.places import Places
from drillcore.tokens.sequences import Sequences

MAX_BLOCK = 32_768
MANY_WORKERS = 4
# With so many blocks for each worker, waiting for the last one at the end takes less than 5 % of the time.
BLOCKS_PER_WORKER = 24
SMALLEST_SPREAD_BLOCK = 4096


@dataclass(frozen=True)
class Block:
    """A contiguous range of sentences whose packs are built together.

    index: of the block in its dataset. start, stop: its sentences, `stop` not included. first_shard: number of its
    first shard. fingerprints: hex digest that each of its shards must have. of: its sentences where start and stop are
    rows, of which a sentence has any number.
    """

    index: int
    start: int
    stop: int
    first_shard: int
    fingerprints: tuple[str, ...]
    of: tuple[int, int] | None = None

    @property
    def sentences(self) -> tuple[int, int]:
        """Its first sentence and the one after its last."""
        return self.of or (self.start, self.stop)

    def __len__(self) -> int:
        return self.stop - self.start


def block_sentences(shard: int, sentence_bytes: int, memory_bytes: int) -> int:
    """Sentences of a block: a multiple of the shard, at most 32,768 and at most an eighth of the host's memory.

    >>> block_sentences(shard=1000, sentence_bytes=100_000, memory_bytes=8_000_000_000)
    10000
    """
    most = min(MAX_BLOCK, memory_bytes // 8 // max(1, sentence_bytes))
    return max(shard, most // shard * shard)


def spread_block(block: int, num_sentences: int, share: float, num_workers: int) -> int:
    """Sentences of a model's block, chosen so that many workers finish a sweep at about the same time.

    block: the largest size. num_sentences: of the model. share: the model's part of the cost of the sweep, 0 to 1.
    Fewer than four workers keep the largest size, so that their bytes equal those of a single one; and blocks stay
    large enough to share prefixes.

    >>> spread_block(32_768, 1_000_000, share=0.5, num_workers=2), spread_block(32_768, 1_000_000, 0.5, 16)
    (32768, 5208)
    """
    if num_workers < MANY_WORKERS:
        return block
    wanted = num_sentences / max(1.0, num_workers * BLOCKS_PER_WORKER * share)
    return min(block, max(SMALLEST_SPREAD_BLOCK, int(wanted)))


def make_blocks(
    digest_of: Callable[[int, int], str], common: dict[str, Any], num_sentences: int, shard: int, block: int
) -> list[Block]:
    """All blocks of a dataset with the fingerprints that its shards must have.

    digest_of: gives the `rows_digest` of sentences start .. stop - 1. common: what else decides the bytes (model, token
    policy, layers, numerics, ...). The sentences of a block share packs, so a shard's bytes depend on the whole block:
    the block's rows are part of each fingerprint.
    """
    base = digest(common)
    blocks = []
    for index, start in enumerate(range(0, num_sentences, block)):
        stop = min(start + block, num_sentences)
        rows = digest_of(start, stop)
        bounds = [(s, min(s + shard, stop)) for s in range(start, stop, shard)]
        fingerprints = tuple(digest([base, rows, [start, stop], list(b)]) for b in bounds)
        blocks.append(Block(index, start, stop, start // shard, fingerprints))
    return blocks


def make_row_blocks(digest_of: Callable[[int, int], str], common: dict[str, Any], shape: Shape) -> list[Block]:
    """The same for a group whose sentences have any number of rows; a block without rows has no shard."""
    assert shape.rows is not None
    base, blocks, first_shard = digest(common), list[Block](), 0
    for index, num_rows in enumerate(shape.rows.rows_B):
        sentences = index * shape.rows.block, min((index + 1) * shape.rows.block, shape.rows.num_sentences)
        start, stop = shape.block_bounds(index)
        bounds = [shape.bounds(first_shard + k) for k in range(-(-num_rows // shape.shard))]
        rows = digest_of(*sentences) if bounds else ""
        fingerprints = tuple(digest([base, rows, [start, stop], list(b)]) for b in bounds)
        blocks.append(Block(index, start, stop, first_shard, fingerprints, sentences))
        first_shard += len(bounds)
    return blocks


def rows_digest(tokens: Sequences, row_ids: Sequence[str] = (), places: Places | None = None) -> str:
    """Digest of some sentences: their tokens, the ids of their rows, and places other than the last tokens."""
    rows = hashlib.sha256(np.asarray(tokens.ids_T, dtype="<i4").tobytes())
    rows.update(np.asarray(tokens.offsets_N1, dtype="<i8").tobytes())
    rows.update("".join(row_ids).encode())
    if places is not None:
        rows.update(f"{'mean' if places.is_mean else 'places'} of {len(places)}".encode())
        rows.update(np.asarray(places.index_Q, dtype="<i8").tobytes())
        rows.update(np.asarray(places.bounds_N1, dtype="<i8").tobytes())
    tokens.release()
    return rows.hexdigest()
