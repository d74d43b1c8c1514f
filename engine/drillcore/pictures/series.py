"""What a curve shows, as plain frozen data: a value per layer with its interval and its null, and charts of these.

Shape legend: L layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Series:
    """One measure along the layers of one model.

    `layers_L` are the layer contract's numbers, ascending. `low_L` and `high_L` are the ends of the interval around
    `value_L`; `null_mean_L` and `null_high_L` are the null's mean and its upper end, between which chance lies. NaN
    is a gap. `control` marks what the measure must beat (a probe on the last token, random weights): drawn dashed, in
    the colour of the series `of` this name, or grey where it belongs to none.

    Raises ValueError where lengths differ.
    """

    name: str
    layers_L: NDArray[np.integer]
    value_L: Floats
    low_L: Floats | None = None
    high_L: Floats | None = None
    null_mean_L: Floats | None = None
    null_high_L: Floats | None = None
    control: bool = False
    of: str = ""

    def __post_init__(self) -> None:
        for field in ("value_L", "low_L", "high_L", "null_mean_L", "null_high_L"):
            array = getattr(self, field)
            if array is not None and array.shape != self.layers_L.shape:
                wrong, right = list(array.shape), list(self.layers_L.shape)
                raise ValueError(f"Series {self.name!r}: {field} has shape {wrong}, the layers {right}")
        if (self.low_L is None) != (self.high_L is None) or (self.null_mean_L is None) != (self.null_high_L is None):
            raise ValueError(f"Series {self.name!r}: an interval needs both of its ends")


@dataclass(frozen=True, eq=False)
class Chart:
    """Series that share axes. `value_range` fixes the vertical axis; `note` is small print below.

    `relative_depth`: in the report, the horizontal axis is each model's own depth, 0 to 1 (`Charts` says so for all of
    its charts).
    """

    title: str
    value_name: str
    series: tuple[Series, ...]
    value_range: tuple[float, float] | None = None
    note: str = ""
    relative_depth: bool = False


@dataclass(frozen=True, eq=False)
class Charts:
    """A picture of charts side by side; with `relative_depth` the horizontal axis is each model's own depth, 0 to 1."""

    title: str
    subtitle: str
    charts: tuple[Chart, ...]
    footer: str = ""
    relative_depth: bool = False
