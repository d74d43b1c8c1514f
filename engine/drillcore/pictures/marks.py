"""Marks on a panel: labels of one spot side by side, the number of its points, and points outside of the frame.

Shape legend: N points, 2 axes of a picture in pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from drillcore.pictures.lettering import font, width_px, write

# A panel tells the sizes of its largest piles.
MOST_NUMBERS, FEWEST_POINTS = 12, 3


class Pile(NamedTuple):
    """Points on one spot. x, y: in pixels, y downwards. size: how many there are. reach: from middle to edge."""

    x: float
    y: float
    size: int
    reach: float


def beside(
    xy_N2: NDArray[np.float64], codes_N: NDArray[np.int32], reach_N: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The points, but those of several labels on one spot side by side; and for each how many are on its spot, [N].

    reach_N: how far such a point is moved from the spot, in pixels.

    >>> moved, sizes = beside(np.zeros((3, 2)), np.array([0, 1, 1], np.int32), np.full(3, 2.0))
    >>> moved.tolist(), sizes.tolist()
    ([[2.0, 0.0], [-2.0, 0.0], [-2.0, 0.0]], [3, 3, 3])
    """
    spots, spot_N, sizes = np.unique(xy_N2[:, 0] * 2.0**20 + xy_N2[:, 1], return_inverse=True, return_counts=True)
    if len(spots) == len(xy_N2):
        return xy_N2, np.ones(len(xy_N2), np.int64)
    # The distinct labels of each spot in order; a label's rank among them gives the direction in which it moves.
    pairs, pair_N = np.unique(spot_N * 2**20 + codes_N, return_inverse=True)
    of_pair = pairs // 2**20
    first_of_spot, labels_of_spot = np.unique(of_pair, return_index=True, return_counts=True)[1:]
    turn_N = 2 * np.pi * ((np.arange(len(pairs)) - first_of_spot[of_pair]) / labels_of_spot[of_pair])[pair_N]
    moved_N2 = np.rint(np.stack([np.cos(turn_N), np.sin(turn_N)], axis=1) * reach_N[:, None])
    is_mixed_N = labels_of_spot[of_pair][pair_N] > 1
    return np.where(is_mixed_N[:, None], xy_N2 + moved_N2, xy_N2), sizes[spot_N]


def with_numbers(image: NDArray[np.uint8], piles: list[Pile], size_px: int) -> NDArray[np.uint8]:
    """A panel with the sizes of its largest piles beside them, where there is room; RGB, uint8.

    size_px: of the font.
    """
    named = sorted((pile for pile in piles if pile.size >= FEWEST_POINTS), key=lambda pile: (-pile.size, pile))
    if not named:
        return image
    picture, face = Image.fromarray(image), font(size_px)
    draw, taken = ImageDraw.Draw(picture), list[tuple[float, float, float, float]]()
    for pile in named[:MOST_NUMBERS]:
        text = f"{pile.size:,}"
        wide, high = width_px(text, face), size_px
        left = pile.x + pile.reach + 2
        if left + wide > picture.width - 2:
            left = pile.x - pile.reach - 2 - wide
        top = min(max(pile.y - high / 2, 1.0), picture.height - high - 1.0)
        box = (left, top, left + wide, top + high)
        if left < 1 or any(_overlap(box, other) for other in taken):
            continue
        taken.append(box)
        write(draw, (left, top + high / 2), text, face, halo_px=2)
    return np.asarray(picture)


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def with_outliers(
    image: NDArray[np.uint8], unit_M2: NDArray[np.float64], colors_M3: NDArray[np.uint8], size_px: int
) -> NDArray[np.uint8]:
    """A panel with triangles at its edges that point to what lies outside of it, and how many there are; RGB, uint8.

    unit_M2: of the points outside, in units of the panel's side, y upwards. colors_M3: their colours. size_px: of the
    font.
    """
    if not len(unit_M2):
        return image
    picture, side = Image.fromarray(image), len(image)
    draw, size = ImageDraw.Draw(picture), max(5.0, side / 26)
    away_M2 = np.stack([unit_M2[:, 0] - 0.5, 0.5 - unit_M2[:, 1]], axis=1)
    # Where the line from the middle to the point leaves the panel.
    edge_M2 = away_M2 / (2 * np.abs(away_M2).max(axis=1, keepdims=True)) + 0.5
    tips_M2 = np.rint(edge_M2 * (side - 5)) + 2
    # Of several on one place the last is drawn, as with discs.
    places, last_M = np.unique(tips_M2[::-1], axis=0, return_index=True)
    for (x, y), index in zip(places.tolist(), (len(tips_M2) - 1 - last_M).tolist(), strict=True):
        across, down = away_M2[index]
        out = np.array([np.sign(across), 0.0] if abs(across) >= abs(down) else [0.0, np.sign(down)])
        back, turn = np.array([x, y]) - size * out, 0.6 * size * out[::-1]
        corners = [(x, y), tuple((back + turn).tolist()), tuple((back - turn).tolist())]
        draw.polygon(corners, fill=tuple(colors_M3[index].tolist()))
    text, face = f"{len(unit_M2):,} outside", font(size_px)
    write(draw, (size + 4, side - size - 4 - size_px / 2), text, face, halo_px=2)
    return np.asarray(picture)
