"""Colours of labels and values.

Up to seven labels take the palette of Okabe and Ito (Color Universal Design, 2008), which colour-blind readers can tell
apart. More labels take further colours, of which each was chosen to be as far as possible from all before it, for
readers of normal sight and, by the matrices of Machado et al. (2009), for the two common kinds of colour blindness: 20
labels are at least 17.9 apart (CIE 1976), 100 at least 7.2. The cities of the source experiment always have the same
colours.

Shape legend: N points.
"""

from __future__ import annotations

from collections.abc import Sequence

import colorcet
import numpy as np
from numpy.typing import NDArray

# Paul Tol's "muted": none of them is a colour of labels.
LINES_HEX = ("#332288", "#117733", "#882255", "#44AA99", "#AA4499", "#999933", "#661100", "#6699CC")
MAX_LABELS = 100
OTHER = "(other labels)"
NO_LABEL_HEX = "#9a9a9a"
FIXED_HEX = {"Toronto": "#D55E00", "Montreal": "#0072B2"}
# Okabe and Ito's yellow is left out: it cannot be read on white.
OKABE_ITO_HEX = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
NUM_STEPS = 256
# The colours after those of Okabe and Ito; each has a contrast of at least 1.9 to white.
MORE_HEX = (
    "0000FF 000049 496DFF 613100 0C009E 79CE79 243D61 3D6161 000024 243186 009EFF C23D3D 003DDB 3D55C2 3DCEDB "
    "DB7949 31240C 6DCE9E F39E49 AA3D00 556186 00006D 9E0C49 242461 9E1831 DB616D 3D4986 00000C 24243D 9E86C2 "
    "3131AA C261E7 0000CE 797986 0C3DFF 9EC2B6 180C3D B631AA 3149CE 240C00 6D7949 0079CE 61AA55 E79ECE 184924 "
    "009E0C 4955FF 79CE55 FF92FF CE8631 B69286 0C0086 55AAB6 9E496D 001824 923D18 86C286 0C00B6 3D5549 610049 "
    "B6559E 240C61 79249E 7986CE 314961 557955 3124B6 3DCE00 9E6124 493131 3161DB 920C6D DB9261 311886 495586 "
    "DB3D55 3D3179 AAAA9E 868686 316131 6D0018 616D86 AA3DE7 490CE7 6D559E AA55CE 5586E7 314949 79923D 61799E "
    "552400 F379E7 79B66D"
)


def category_hex(categories: Sequence[str]) -> list[str]:
    """A colour for each label, as #rrggbb, in the order given; up to 356 labels differ in colour.

    >>> category_hex(["Montreal", "Ottawa", "Toronto"])
    ['#0072B2', '#009E73', '#D55E00']
    """
    palette = [*OKABE_ITO_HEX, *(f"#{color}" for color in MORE_HEX.split())]
    palette += colorcet.palette["glasbey_bw_minc_20_maxl_70"][: max(0, len(categories) - len(palette))]
    taken = {FIXED_HEX[name] for name in categories if name in FIXED_HEX}
    free = [color for color in palette if color not in taken]
    return [FIXED_HEX[name] if name in FIXED_HEX else free.pop(0) for name in categories]


def line_hex(count: int) -> list[str]:
    """Colours of some lines of curves, as #rrggbb.

    >>> line_hex(2)
    ['#332288', '#117733']
    """
    many = colorcet.palette["glasbey_bw_minc_20_maxl_70"]
    return [LINES_HEX[i] if i < len(LINES_HEX) else many[i % len(many)] for i in range(count)]


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


def value_table(*, dark: bool = False) -> NDArray[np.uint8]:
    """RGB along the colour bar and, in the last row, of no value: uint8 [257, 3].

    Every colour is visible on white; dark: on black.
    """
    ramp = colorcet.palette["CET_L8"]  # blue, magenta, orange, yellow, in even steps of lightness
    # The last 7 % are too light on white, the first 30 % too dark on black.
    first, last = (0.3, 0.999) if dark else (0.0, 0.93)
    steps = np.linspace(len(ramp) * first, len(ramp) * last, NUM_STEPS).astype(int)
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
