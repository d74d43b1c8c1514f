"""Blocks of a dataset: their size, and the fingerprint that each shard must have."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
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
class Stretch:
    """Rows of a block whose packs are built together: all of them, or those that came before or after the dataset grew.

    start, stop: its rows, `stop` not included. sentences: its first sentence and the one after its last.
    """

    start: int
    stop: int
    sentences: tuple[int, int]


@dataclass(frozen=True)
class Begun:
    """What a shard is committed with while it holds the rows before `stop` only, since more came later."""

    fingerprint: str
    stop: int


@dataclass(frozen=True)
class Block:
    """A contiguous range of sentences whose packs are built together, in one stretch unless the dataset grew.

    index: of the block in its dataset. start, stop: its sentences, `stop` not included. first_shard: number of its
    first shard. fingerprints: hex digest that each of its shards must have. of: its sentences where start and stop are
    rows, of which a sentence has any number. grown: its stretches, where there are several. begun: for each shard what
    it may be, and have to be completed; none where there is one stretch.
    """

    index: int
    start: int
    stop: int
    first_shard: int
    fingerprints: tuple[str, ...]
    of: tuple[int, int] | None = None
    grown: tuple[Stretch, ...] = ()
    begun: tuple[tuple[Begun, ...], ...] = ()

    @property
    def sentences(self) -> tuple[int, int]:
        """Its first sentence and the one after its last."""
        return self.of or (self.start, self.stop)

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """What is computed together, in the order of the rows."""
        return self.grown or (Stretch(self.start, self.stop, self.sentences),)

    @property
    def shards(self) -> range:
        """Numbers of its shards."""
        return range(self.first_shard, self.first_shard + len(self.fingerprints))

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
    digest_of: Callable[[int, int], str],
    common: dict[str, Any],
    num_sentences: int,
    shard: int,
    block: int,
    borders: Sequence[int] = (),
) -> list[Block]:
    """All blocks of a dataset with the fingerprints that its shards must have.

    digest_of: gives the `rows_digest` of sentences start .. stop - 1. common: what else decides the bytes (model, token
    policy, layers, numerics, ...). borders: where the dataset ended before it grew. The sentences of a stretch share
    packs, so a shard's bytes depend on the whole stretch: its rows are part of each fingerprint.
    """
    base, blocks = digest(common), list[Block]()
    for index, start in enumerate(range(0, num_sentences, block)):
        stop = min(start + block, num_sentences)
        stretches = [Stretch(first, last, (first, last)) for first, last in _cut(start, stop, borders)]
        bounds = [(s, min(s + shard, stop)) for s in range(start, stop, shard)]
        blocks.append(_planned(base, digest_of, Block(index, start, stop, start // shard, ()), stretches, bounds))
    return blocks


def make_row_blocks(
    digest_of: Callable[[int, int], str],
    common: dict[str, Any],
    shape: Shape,
    num_rows: Callable[[int, int], int] = lambda start, stop: 0,
) -> list[Block]:
    """The same for a group whose sentences have any number of rows; a block without rows has no shard.

    num_rows: of sentences start .. stop - 1; needed where the dataset grew.
    """
    assert shape.rows is not None
    base, blocks, first_shard = digest(common), list[Block](), 0
    for index, count in enumerate(shape.rows.rows_B):
        sentences = index * shape.rows.block, min((index + 1) * shape.rows.block, shape.rows.num_sentences)
        start, stop = shape.block_bounds(index)
        bounds = [shape.bounds(first_shard + k) for k in range(-(-count // shape.shard))]
        stretches, row = list[Stretch](), start
        for first, last in _cut(*sentences, shape.borders):
            after = stop if last == sentences[1] else row + num_rows(first, last)
            stretches.append(Stretch(row, after, (first, last)))
            row = after
        blocks.append(
            _planned(base, digest_of, Block(index, start, stop, first_shard, (), sentences), stretches, bounds)
        )
        first_shard += len(bounds)
    return blocks


def _cut(start: int, stop: int, borders: Sequence[int]) -> list[tuple[int, int]]:
    """A range cut at the borders that lie within it."""
    return list(pairwise([start, *(border for border in borders if start < border < stop), stop]))


def _planned(
    base: str,
    digest_of: Callable[[int, int], str],
    block: Block,
    stretches: Sequence[Stretch],
    bounds: Sequence[tuple[int, int]],
) -> Block:
    """A block with its fingerprints. bounds: the first row of each of its shards, and the one after its last."""
    every = [_fingerprints(base, digest_of, stretches, *each) for each in bounds]
    fingerprints = tuple(found[-1].fingerprint for found in every)
    if len(stretches) == 1:
        return replace(block, fingerprints=fingerprints)
    begun = tuple(tuple(found[:-1]) for found in every)
    return replace(block, fingerprints=fingerprints, grown=tuple(stretches), begun=begun)


def _fingerprints(
    base: str, digest_of: Callable[[int, int], str], stretches: Sequence[Stretch], first: int, end: int
) -> list[Begun]:
    """What a shard is committed with once it holds its rows of the first stretch, of the first two, and so on.

    Each names the one before it, so that the last stands for all rows; that of a single stretch is as it always was.
    """
    found: list[Begun] = []
    for stretch in stretches:
        stop = min(stretch.stop, end)
        if max(stretch.start, first) < stop:
            rows = digest_of(*stretch.sentences)
            made_from = [base, rows, [stretch.start, stretch.stop], [first, stop]]
            found.append(Begun(digest([*made_from, *(before.fingerprint for before in found[-1:])]), stop))
    return found


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
