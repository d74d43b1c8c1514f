"""The audit: rows of a store, read back and compared with the sentence computed alone by plain `transformers`.

Nothing else proves that row i of a store is sentence i: the self-check ends where states leave the model.

Shape legend: N sentences of the dataset, C audited ones, K layers, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from drillcore.backends.alone import (
    FLOAT32_NOISE_FACTOR,
    LARGEST_LOWER_NOISE,
    LARGEST_NOISE,
    ONE_STEP,
    SINGLE_NOISE_FACTOR,
    Alone,
    relative_errors,
)
from drillcore.store.reader import Coordinate
from drillcore.store.states import StatesReader
from drillcore.tokens.places import Places
from drillcore.tokens.sequences import Sequences

# A sentence that is longer than this is not computed alone.
LONGEST_ALONE = 16_384
# Seeded sentences where the job leaves their number open, as long as they are at most this share of the tokens, or cost
# so few operations that nobody notices.
MOST_SEEDED, SHARE, FREE_OPERATIONS = 32, 0.02, 5e9
# Draws for each seeded sentence wanted: equal sentences count once.
TRIES = 8


@dataclass(frozen=True)
class Witness:
    """Sentences that are computed alone. places: tokens that the mean is taken over; None for the last of each."""

    tokens: Sequences
    places: Places | None = None

    def take(self, index: NDArray[np.int64]) -> Witness:
        """The sentences whose numbers are in `index`, in that order."""
        return Witness(self.tokens.take(index), None if self.places is None else self.places.take(index))


@dataclass(frozen=True)
class Wrong:
    """A stored sentence, or row, that is out of its bound.

    sentence: its number. unit: sentence or row. layer: where it is furthest out. holds: the audited sentence whose
    states stand there, if any.
    """

    sentence: int
    layer: int
    error: float
    bound: float
    holds: int | None = None
    unit: str = "sentence"

    @property
    def figures(self) -> str:
        """How far off it is, and whose states it has, if that is known."""
        what = f"relative error {self.error:.2g} at layer {self.layer}, bound {self.bound:.1e}"
        return what + ("" if self.holds is None else f"; they are those of {self.unit} {self.holds}")

    def __str__(self) -> str:
        return f"the states of {self.unit} {self.sentence} are not those of its text: {self.figures}"


@dataclass(frozen=True)
class Comparison:
    """Audited rows of one group. worst: largest relative error; bound: the bound of that sentence and layer."""

    rows_C: NDArray[np.int64]
    worst: float
    bound: float
    wrong: tuple[Wrong, ...]


def budget_tokens(tokens_of_dataset: int, num_parameters: int) -> int:
    """Tokens that the seeded sentences may have: two in a hundred, or as many as cost next to nothing."""
    return int(max(SHARE * tokens_of_dataset, FREE_OPERATIONS / (2 * max(1, num_parameters))))


def choose_rows(
    lengths_N: NDArray[np.int64],
    shards: Sequence[tuple[int, int]],
    block: int,
    seeded: int | None,
    budget: int,
    content: Callable[[int], Hashable],
    seed: int,
) -> NDArray[np.int64]:
    """Rows to audit, ascending: the longest, the first and last of some shards and of a block, and seeded ones.

    lengths_N: tokens of each sentence. shards: first row and the one after the last, of the shards to choose from.
    block: sentences of a block. seeded: their number, or None for as many as `budget` tokens allow. content: tells
    equal sentences apart from others: of those, one is enough.

    >>> lengths = np.array([3, 3, 9, 3, 3, 3])
    >>> choose_rows(lengths, [(0, 4), (4, 6)], 4, seeded=0, budget=0, content=int, seed=0).tolist()
    [0, 2, 3, 4, 5]
    """
    if not shards:
        return np.empty(0, np.int64)
    draw = np.random.default_rng(seed)
    inside = np.concatenate([np.arange(first, stop) for first, stop in shards])
    fitting: NDArray[np.int64] = inside[lengths_N[inside] <= LONGEST_ALONE]
    if not len(fitting):
        return fitting
    chosen = {int(fitting[lengths_N[fitting].argmax()])}
    ends = [row for first, stop in _some_shards(shards, block, draw) for row in (first, stop - 1)]
    chosen.update(row for row in ends if lengths_N[row] <= LONGEST_ALONE)
    known = {content(row) for row in chosen}
    left = budget
    wanted = MOST_SEEDED if seeded is None else seeded
    for row in draw.permutation(fitting)[: TRIES * wanted].tolist():
        if wanted == 0:
            break
        if row in chosen or (same := content(row)) in known:
            continue
        left -= int(lengths_N[row])
        if seeded is None and left < 0:
            break
        chosen.add(row)
        known.add(same)
        wanted -= 1
    return np.array(sorted(chosen), np.int64)


def _some_shards(shards: Sequence[tuple[int, int]], block: int, draw: np.random.Generator) -> Iterator[tuple[int, int]]:
    """The first shard and the last, one between them, and the two at the border of a block."""
    places = {0, len(shards) - 1, int(draw.integers(len(shards)))}
    begin_block = [i for i, (first, _) in enumerate(shards) if i and first % block == 0]
    if begin_block:
        border = begin_block[int(draw.integers(len(begin_block)))]
        places |= {border - 1, border}
    for place in sorted(places):
        yield shards[place]


def compare(
    group: zarr.Group, rows_C: NDArray[np.int64], alone: Alone, layers: Sequence[int], own_dtype: str
) -> Comparison:
    """Read rows back from a group's states and compare each with its sentence alone; raises DamageError.

    alone: of these rows, in their order. layers: numbers of the stored layers. own_dtype: that the model computed in.
    """
    reader = StatesReader(group)
    stored_CKH = np.asarray(reader.read(rows_C, np.arange(len(layers))), np.float32)
    bounds_CK = alone.bounds_CK(own_dtype, reader.shape.store_dtype)
    known_CK = ~np.isnan(alone.states_CKH).any(axis=2)
    errors_CK = np.where(known_CK, relative_errors(stored_CKH, alone.states_CKH), 0.0)
    excess_CK = np.nan_to_num(errors_CK, nan=np.inf) / np.maximum(bounds_CK, 1e-30)
    wrong = [_wrong(c, rows_C, stored_CKH, alone, errors_CK, bounds_CK, layers) for c in _out_of_bounds(excess_CK)]
    if reader.shape.rows is not None:
        wrong = [replace(each, unit="row") for each in wrong]
    c, slot = np.unravel_index(int(excess_CK.argmax()), excess_CK.shape) if excess_CK.size else (0, 0)
    worst, bound = (float(a[c, slot]) if a.size else 0.0 for a in (errors_CK, bounds_CK))
    return Comparison(rows_C, worst, bound, tuple(wrong))


def _out_of_bounds(excess_CK: NDArray[np.float64]) -> list[int]:
    return [int(c) for c in np.flatnonzero((excess_CK > 1).any(axis=1))]


def _wrong(
    c: int,
    rows_C: NDArray[np.int64],
    stored_CKH: NDArray[np.float32],
    alone: Alone,
    errors_CK: NDArray[np.float64],
    bounds_CK: NDArray[np.float64],
    layers: Sequence[int],
) -> Wrong:
    slot = int((np.nan_to_num(errors_CK[c], nan=np.inf) / np.maximum(bounds_CK[c], 1e-30)).argmax())
    others_CK = relative_errors(np.broadcast_to(stored_CKH[c], stored_CKH.shape), alone.states_CKH)
    holds_C = (np.nan_to_num(others_CK) <= bounds_CK).all(axis=1) & np.isfinite(others_CK).any(axis=1)
    holds = int(rows_C[holds_C.argmax()]) if holds_C.any() else None
    return Wrong(int(rows_C[c]), layers[slot], float(errors_CK[c, slot]), float(bounds_CK[c, slot]), holds)


def confirmed(
    found: Comparison, alone: Alone, rows: Witness, noise_of: Callable[[Witness], NDArray[np.float64]]
) -> list[Wrong]:
    """The wrong rows, less those that plain `transformers` is that far off for.

    rows: that were compared. noise_of: gives how far, by sentence and layer, as `suspects_noise` does; asked for
    suspects alone.
    """
    is_lower = alone.own_dtype in ONE_STEP
    noisy = [w for w in found.wrong if w.error < (LARGEST_LOWER_NOISE if is_lower else LARGEST_NOISE)]
    if not noisy or alone.quantised or alone.dtype != "float32" or alone.own_dtype not in ("float32", *ONE_STEP):
        return list(found.wrong)
    place = {int(row): c for c, row in enumerate(found.rows_C)}
    noise_CK = noise_of(rows.take(np.array([place[w.sentence] for w in noisy], np.int64)))
    allowed = [
        max(w.bound, SINGLE_NOISE_FACTOR * noise) if is_lower else w.bound + FLOAT32_NOISE_FACTOR * noise
        for w, noise in zip(noisy, noise_CK.max(axis=1).tolist(), strict=True)
    ]
    explained = {w.sentence for w, most in zip(noisy, allowed, strict=True) if w.error <= most}
    return [w for w in found.wrong if w.sentence not in explained]


def column_rows(group: zarr.Group, name: str, rows_C: NDArray[np.int64]) -> list[Any]:
    """Values of a coordinate at some rows, as Python has them."""
    values: list[Any] = Coordinate(group, name)[rows_C].tolist()
    return values
