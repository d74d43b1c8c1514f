"""The plan: which blocks a dataset has, what each shard's fingerprint must be, and which blocks are pending."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from drillcore.system.files import digest
from drillcore.tokens.sequences import Sequences

MAX_BLOCK = 32_768
MANY_WORKERS = 4
# With so many blocks each, workers that end unevenly idle for less than 5 % of the time.
BLOCKS_A_WORKER = 24
SMALLEST_SPREAD = 4096


@dataclass(frozen=True)
class Block:
    """A contiguous range of sentences whose packs are built together.

    start, stop: sentences. shards: numbers of its shards, first_shard .. first_shard + len(fingerprints) - 1.
    fingerprints: hex digest that each must have.
    """

    index: int
    start: int
    stop: int
    first_shard: int
    fingerprints: tuple[str, ...]

    def __len__(self) -> int:
        return self.stop - self.start


def block_sentences(shard: int, sentence_bytes: int, memory_bytes: int) -> int:
    """Sentences of a block: a multiple of the shard, at most 32,768 and an eighth of the host's memory."""
    most = min(MAX_BLOCK, memory_bytes // 8 // max(1, sentence_bytes))
    return max(shard, most // shard * shard)


class RowIds(Protocol):
    """Ids of a dataset's rows, made for a range of them when it is asked for."""

    def __getitem__(self, rows: slice, /) -> Sequence[str]:
        """Ids of rows.start .. rows.stop - 1."""


def spread_block(block: int, num_sentences: int, share: float, num_workers: int) -> int:
    """Sentences of a model's block when many workers share a sweep: so dear that none waits long at the end.

    num_sentences: of the model, which is so large a share of the sweep's cost. A few workers keep blocks as they are,
    so that their bytes are those of one; and blocks stay large enough to share prefixes.
    """
    if num_workers < MANY_WORKERS:
        return block
    wanted = num_sentences / max(1.0, num_workers * BLOCKS_A_WORKER * share)
    return min(block, max(SMALLEST_SPREAD, int(wanted)))


def make_blocks(
    tokens: Sequences, row_ids: RowIds, common: dict[str, Any], num_sentences: int, shard: int, block: int
) -> list[Block]:
    """All blocks of a dataset with the fingerprints that its shards must have.

    common: what else decides the bytes (model, token policy, layers, numerics, ...). A shard's bytes depend on its
    whole block, since sentences of one block share packs: so the block's rows are in each fingerprint.
    """
    base = digest(common)
    blocks = []
    for index, start in enumerate(range(0, num_sentences, block)):
        stop = min(start + block, num_sentences)
        rows = _rows_digest(tokens.slice(start, stop), row_ids[start:stop])
        bounds = [(s, min(s + shard, stop)) for s in range(start, stop, shard)]
        prints = tuple(digest([base, rows, [start, stop], list(b)]) for b in bounds)
        blocks.append(Block(index, start, stop, start // shard, prints))
    return blocks


def _rows_digest(tokens: Sequences, row_ids: Sequence[str]) -> str:
    found = hashlib.sha256(np.asarray(tokens.ids_T, dtype="<i4").tobytes())
    found.update(np.asarray(tokens.offsets_N1, dtype="<i8").tobytes())
    found.update("".join(row_ids).encode())
    tokens.release()
    return found.hexdigest()


def pending(blocks: Sequence[Block], committed: Sequence[str]) -> list[Block]:
    """Blocks of which a shard is not committed as it must be."""
    return [
        b for b in blocks if tuple(committed[b.first_shard : b.first_shard + len(b.fingerprints)]) != b.fingerprints
    ]
