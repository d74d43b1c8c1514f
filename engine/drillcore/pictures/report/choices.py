"""What else the page can colour the points by, packed; the page leaves out what has no room.

Shape legend: N sentences, P panels of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.pictures.colors import NUM_STEPS, category_table
from drillcore.pictures.data import Choice
from drillcore.pictures.report.encode import packed_numbers, packed_texts

NO_CODE = 65_535
MAX_CHARACTERS = 6_000_000  # of all choices of a page


@dataclass(frozen=True)
class PackedChoice:
    """A choice as the page reads it. info: its metadata. blobs: its data by their names in the metadata."""

    info: dict[str, Any]
    words: bytes
    places: bytes
    codes: tuple[bytes, ...]

    @property
    def blobs(self) -> tuple[bytes, ...]:
        """All of its data."""
        return (self.words, self.places, *self.codes)


def packed_choice(choice: Choice, count: int, num_rows: int, kept_K: NDArray[np.int64]) -> PackedChoice:
    """Pack a choice. count: sentences of the dataset. num_rows: of its grid. kept_K: the sentences that the page holds.

    Raises ValueError where codes are not of these sentences and rows, or more values than numbers of 16 bits.
    """
    if len(choice.codes) not in (1, num_rows) or len(choice.places) >= NO_CODE:
        raise ValueError(f"choice {choice.name!r}: {len(choice.codes)} arrays of {len(choice.places):,} values")
    codes, counts = [], []
    for read in choice.codes:
        codes_PN = np.atleast_2d(read())
        if codes_PN.shape[-1] != count:
            raise ValueError(f"choice {choice.name!r}: {codes_PN.shape[-1]} codes for {count} sentences")
        counts.append([_counts(choice, codes_N) for codes_N in codes_PN])
        kept_PK = codes_PN[:, kept_K]
        codes.append(packed_numbers([np.where(kept_PK < 0, NO_CODE, kept_PK).astype(np.uint16)]))
    info = {
        "key": choice.key,
        "name": choice.name,
        "categories": choice.categories,
        "valueRange": choice.value_range,
        "valueName": choice.name,
        "hasOthers": choice.has_others,
        "missing": choice.missing,
        "counts": counts,
    }
    places = packed_numbers([choice.places.astype(np.uint16)])
    return PackedChoice(info, packed_texts(choice.words), places, tuple(codes))


def palette_of(choice: Choice) -> NDArray[np.uint8] | None:
    """The colours of a choice's categories; None for those of the colour bar."""
    return category_table(choice.categories) if choice.value_range is None else None


def _counts(choice: Choice, codes_N: NDArray[np.integer]) -> list[int]:
    """Sentences of each category, and without a value; of numbers, the latter alone."""
    missing = int((codes_N < 0).sum())
    if choice.value_range is not None:
        return [missing]
    places_N = choice.places[codes_N[codes_N >= 0]]
    return [*np.bincount(places_N, minlength=len(choice.categories)).tolist(), missing]


def step_places() -> NDArray[np.int32]:
    """The places of numbers that are told by their steps of the colour bar."""
    return np.arange(NUM_STEPS, dtype=np.int32)
