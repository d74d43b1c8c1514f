"""The square of a projection that a panel shows, and the points that lie outside of it.

Shape legend: N points, 2 axes of the projection.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MARGIN = 0.05  # of a panel's width, on each side
# Points that may lie outside of a panel: at most this share of them, or one where there are as many as FEWEST.
MOST_OUTSIDE, FEWEST = 0.01, 20
# They lie outside only where all others are then shown at least so many times larger.
LARGER = 2.0
# So many points tell whether there can be any that lie outside.
LOOKED_AT = 4096


@dataclass(frozen=True)
class Frame:
    """The square of the projection that a panel shows, at the same scale on both axes.

    x, y: its centre. half: half its side. is_whole: whether all finite points lie in it.
    """

    x: float
    y: float
    half: float
    is_whole: bool = True

    @classmethod
    def around(cls, points_N2: NDArray[np.float32], *, every: bool = False) -> Frame | None:
        """The square around the finite points, with a margin; None where no point is finite.

        At most 1 % of the points (one of 20 to 199) are left outside, where without them all others are at least twice
        as large; every: none is.

        >>> Frame.around(np.array([[0, 0], [9, 1], [np.nan, 0]], np.float32))
        Frame(x=4.5, y=0.5, half=5.0, is_whole=True)
        >>> points = np.array([[i % 10, i // 10] for i in range(40)] + [[1000, 0]], np.float32)
        >>> Frame.around(points).half, Frame.around(points, every=True).half
        (5.0, 555.5555555555555)
        """
        if not points_N2.size:
            return None
        # Each column by itself and contiguous: NumPy reduces along the long axis of [N, 2] many times slower.
        ends = [(float(column.min()), float(column.max())) for column in np.ascontiguousarray(points_N2.T)]
        if not np.isfinite(ends).all():
            return cls.around(points_N2[np.isfinite(points_N2).all(axis=1)], every=every)
        inside = None if every else _without_outliers(points_N2, ends)
        half = max(high - low for low, high in inside or ends) / 2 / (1 - 2 * MARGIN)
        x, y = ((low + high) / 2 for low, high in inside or ends)
        # Float32 cannot resolve smaller squares around this centre.
        return cls(x, y, max(half, 1e-6 * max(abs(x), abs(y), 1e-3)), inside is None)

    def unit(self, points_N2: NDArray[np.float32]) -> NDArray[np.float64]:
        """Points in units of the square's side, [N, 2]: 0 to 1 within it, y upwards.

        >>> Frame(1.0, 1.0, 2.0).unit(np.array([[1, 3]], np.float32))
        array([[0.5, 1. ]])
        """
        return (points_N2.astype(np.float64) - (self.x, self.y)) / (2 * self.half) + 0.5


def outside(unit_N2: NDArray[np.float64]) -> NDArray[np.int64]:
    """Numbers of the finite points outside of the square, ascending.

    >>> outside(np.array([[0.5, 0.5], [1.5, 0.2], [np.nan, 0.5]]))
    array([1])
    """
    with np.errstate(invalid="ignore"):
        is_out_N = (np.abs(unit_N2[:, 0] - 0.5) > 0.5) | (np.abs(unit_N2[:, 1] - 0.5) > 0.5)
    return np.flatnonzero(is_out_N & np.isfinite(unit_N2[:, 0]) & np.isfinite(unit_N2[:, 1]))


def _without_outliers(
    points_N2: NDArray[np.float32], ends: list[tuple[float, float]]
) -> list[tuple[float, float]] | None:
    """Ends of both axes for all but a few points that lie far from the others; None where there are none such."""
    count, side = len(points_N2), max(high - low for low, high in ends)
    most = max(1, int(MOST_OUTSIDE * count)) if count >= FEWEST else 0
    # An odd step: labels that take turns are all looked at.
    step = max(1, count // LOOKED_AT) | 1
    few = max(1, most // step)
    inner = [column[-1 - few] - column[few] for column in np.sort(points_N2[::step].T)] if most else [np.inf]
    if float(max(inner)) * LARGER > side:
        return None
    middles = [float(np.median(column)) for column in points_N2.T]
    # From the middle, on the axis on which a point is farther away.
    far_N = np.maximum(*(np.abs(column - middle) for column, middle in zip(points_N2.T, middles, strict=True)))
    farthest = np.sort(np.partition(far_N, count - most - 1)[count - most - 1 :])[::-1]
    steps = farthest[:-1] / np.maximum(farthest[1:], np.finfo(np.float32).tiny)
    for left_out in (int(np.argmax(steps)) + 1, most):
        inside_M2 = points_N2[far_N <= farthest[left_out]]
        kept = [(float(column.min()), float(column.max())) for column in inside_M2.T]
        if side >= LARGER * max(high - low for low, high in kept) > 0:
            return kept
    return None
