"""Colours of labels and values.

Few labels take the palette of Okabe and Ito (Color Universal Design, 2008), which colour-blind readers tell apart;
many take Glasbey's (colorcet), restricted to colours that show on white. Cities of the source experiment keep theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

import colorcet
import numpy as np
from numpy.typing import NDArray

MAX_LABELS = 100
OTHER = "(other labels)"
NO_LABEL_HEX = "#9a9a9a"
FIXED_HEX = {"Toronto": "#D55E00", "Montreal": "#0072B2"}
# Okabe and Ito's yellow is left out: on white it cannot be read.
OKABE_ITO_HEX = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
NUM_STEPS = 256


def category_hex(categories: Sequence[str]) -> list[str]:
    """A colour for each label, as #rrggbb, in the order given; up to 256 labels differ in colour."""
    if len(categories) <= len(OKABE_ITO_HEX):
        taken = {FIXED_HEX[name] for name in categories if name in FIXED_HEX}
        free = [color for color in OKABE_ITO_HEX if color not in taken]
        return [FIXED_HEX[name] if name in FIXED_HEX else free.pop(0) for name in categories]
    many = colorcet.palette["glasbey_bw_minc_20_maxl_70"]
    return [FIXED_HEX.get(name, many[i % len(many)]) for i, name in enumerate(categories)]


def rgb(hex_color: str) -> tuple[int, int, int]:
    """Red, green and blue of a #rrggbb colour, 0 to 255."""
    return int(hex_color[1:3], 16), int(hex_color[3:5], 16), int(hex_color[5:7], 16)


def category_table(categories: Sequence[str]) -> NDArray[np.uint8]:
    """RGB of each label and, in the last row, of no label: uint8 [len(categories) + 1, 3].

    Without categories there is one colour, for all points.
    """
    return np.array([rgb(color) for color in [*(category_hex(categories) or ["#0072B2"]), NO_LABEL_HEX]], np.uint8)


def value_table() -> NDArray[np.uint8]:
    """RGB along the colour bar and, in the last row, of no value: uint8 [257, 3]. Every colour shows on white."""
    ramp = colorcet.palette["CET_L8"]  # blue, magenta, orange, yellow, of even steps in lightness
    shown = np.linspace(0, len(ramp) * 0.93, NUM_STEPS).astype(int)
    return np.array([rgb(color) for color in [*(ramp[i] for i in shown), NO_LABEL_HEX]], np.uint8)


def value_steps(values_N: NDArray[np.floating], low: float, high: float) -> NDArray[np.int32]:
    """Row of `value_table` for each value; beyond the range the ends, NaN the last row."""
    span = (high - low) or 1.0
    finite_N = np.isfinite(values_N)
    share_N = np.clip((np.where(finite_N, values_N, low) - low) / span, 0, 1)
    return np.where(finite_N, np.rint(share_N * (NUM_STEPS - 1)), NUM_STEPS).astype(np.int32)


def encode_labels(labels: Sequence[str], *, limit: int = MAX_LABELS) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Categories in sorted order, and each label's index among them; an empty label has index -1.

    Beyond `limit` labels the rarest share one category, named last.
    """
    names, index_N, counts = np.unique(
        np.asarray(labels, dtype=object).astype(str), return_inverse=True, return_counts=True
    )
    categories, places = place_labels([str(name) for name in names], counts, limit=limit)
    return categories, places[index_N]


def place_labels(
    names: Sequence[str], counts: NDArray[np.integer], *, limit: int = MAX_LABELS
) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """The same for distinct labels of which each stands for so many points: the index of each name [len(names)].

    Labels that are all whole numbers are sorted as such.
    """
    numeric = all(name.removeprefix("-").isdecimal() for name in names if name != "")
    order = sorted(range(len(names)), key=lambda i: (int(names[i] or 0), "") if numeric else (0, names[i]))
    labelled = [i for i in order if names[i] != ""]
    kept = set(sorted(labelled, key=lambda i: -int(counts[i]))[: limit - 1] if len(labelled) > limit else labelled)
    shown = [i for i in order if i in kept]
    places = np.full(len(names), len(shown), np.int32)
    places[shown] = np.arange(len(shown))
    places[[i for i, name in enumerate(names) if name == ""]] = -1
    categories = tuple(names[i] for i in shown)
    return (categories if len(kept) == len(labelled) else (*categories, OTHER)), places
