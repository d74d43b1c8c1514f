"""Colours of labels and values.

Up to seven labels take the palette of Okabe and Ito (Color Universal Design, 2008), which colour-blind readers can tell
apart; more take Glasbey's (colorcet), restricted to colours that are visible on white. The cities of the source
experiment always have the same colours.

Shape legend: N points.
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
# Okabe and Ito's yellow is left out: it cannot be read on white.
OKABE_ITO_HEX = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
NUM_STEPS = 256


def category_hex(categories: Sequence[str]) -> list[str]:
    """A colour for each label, as #rrggbb, in the order given; up to 256 labels differ in colour.

    >>> category_hex(["Montreal", "Ottawa", "Toronto"])
    ['#0072B2', '#009E73', '#D55E00']
    """
    if len(categories) <= len(OKABE_ITO_HEX):
        taken = {FIXED_HEX[name] for name in categories if name in FIXED_HEX}
        free = [color for color in OKABE_ITO_HEX if color not in taken]
        return [FIXED_HEX[name] if name in FIXED_HEX else free.pop(0) for name in categories]
    many = colorcet.palette["glasbey_bw_minc_20_maxl_70"]
    return [FIXED_HEX.get(name, many[i % len(many)]) for i, name in enumerate(categories)]


def rgb(hex_color: str) -> tuple[int, int, int]:
    """Red, green and blue of a #rrggbb colour, 0 to 255.

    >>> rgb("#0072B2")
    (0, 114, 178)
    """
    return int(hex_color[1:3], 16), int(hex_color[3:5], 16), int(hex_color[5:7], 16)


def category_table(categories: Sequence[str]) -> NDArray[np.uint8]:
    """RGB of each label and, in the last row, of no label: uint8 [len(categories) + 1, 3].

    Without categories, all points have one colour.

    >>> category_table(["Montreal"]).tolist()
    [[0, 114, 178], [154, 154, 154]]
    """
    return np.array([rgb(color) for color in [*(category_hex(categories) or ["#0072B2"]), NO_LABEL_HEX]], np.uint8)


def value_table() -> NDArray[np.uint8]:
    """RGB along the colour bar and, in the last row, of no value: uint8 [257, 3]. Every colour is visible on white."""
    ramp = colorcet.palette["CET_L8"]  # blue, magenta, orange, yellow, in even steps of lightness
    # The last 7 % are too light on white.
    steps = np.linspace(0, len(ramp) * 0.93, NUM_STEPS).astype(int)
    return np.array([rgb(color) for color in [*(ramp[i] for i in steps), NO_LABEL_HEX]], np.uint8)


def value_steps(values_N: NDArray[np.floating], low: float, high: float) -> NDArray[np.int32]:
    """Row of `value_table` for each value, int32 [N]: beyond the range the nearest end, for NaN the last row.

    >>> value_steps(np.array([-1.0, 0.0, 0.5, 1.0, np.nan]), 0.0, 1.0)
    array([  0,   0, 128, 255, 256], dtype=int32)
    """
    span = (high - low) or 1.0
    finite_N = np.isfinite(values_N)
    share_N = np.clip((np.where(finite_N, values_N, low) - low) / span, 0, 1)
    return np.where(finite_N, np.rint(share_N * (NUM_STEPS - 1)), NUM_STEPS).astype(np.int32)


def encode_labels(labels: Sequence[str], *, limit: int = MAX_LABELS) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Categories in sorted order, and each label's index among them, int32 [N]; an empty label has index -1.

    Where there are more than `limit` labels, the rarest share one category, named last.

    >>> encode_labels(["Toronto", "", "Montreal", "Toronto"])
    (('Montreal', 'Toronto'), array([ 1, -1,  0,  1], dtype=int32))
    """
    names, index_N, counts = np.unique(
        np.asarray(labels, dtype=object).astype(str), return_inverse=True, return_counts=True
    )
    categories, places = place_labels([str(name) for name in names], counts, limit=limit)
    return categories, places[index_N]


def place_labels(
    names: Sequence[str], counts: NDArray[np.integer], *, limit: int = MAX_LABELS
) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Categories in sorted order, and the category of each of some distinct labels, int32 [len(names)].

    counts: points of each label. Where there are more than `limit` labels, the rarest share one category, named last.
    Labels that are all whole numbers are sorted as numbers.

    >>> place_labels(["10", "9", ""], np.array([1, 5, 2]))
    (('9', '10'), array([ 1,  0, -1], dtype=int32))
    >>> place_labels(["a", "b", "c"], np.array([1, 5, 2]), limit=2)
    (('b', '(other labels)'), array([1, 0, 1], dtype=int32))
    """
    numeric = all(name.removeprefix("-").isdecimal() for name in names if name != "")
    order = sorted(range(len(names)), key=lambda i: (int(names[i] or 0), "") if numeric else (0, names[i]))
    labelled = [i for i in order if names[i] != ""]
    commonest = sorted(labelled, key=lambda i: -int(counts[i]))
    own_category = set(commonest[: limit - 1] if len(labelled) > limit else labelled)
    listed = [i for i in order if i in own_category]
    places = np.full(len(names), len(listed), np.int32)
    places[listed] = np.arange(len(listed))
    places[[i for i, name in enumerate(names) if name == ""]] = -1
    categories = tuple(names[i] for i in listed)
    return (categories if len(listed) == len(labelled) else (*categories, OTHER)), places
