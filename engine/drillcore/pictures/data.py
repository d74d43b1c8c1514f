"""What a picture shows, as plain frozen data: panels, the rows they stand in, and the grid of rows.

Shape legend: N points, 2 axes of the projection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Values = NDArray[np.int32] | NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Panel:
    """One layer's projection.

    `title` is drawn above it (a layer name). `points_N2` is float32; rows that are not finite are not drawn.
    `values_N` colours the points: integers index `Grid.categories` (negative: no label), floats lie in
    `Grid.value_range` (NaN: no value). `degenerate` says that all states of the layer were identical: the points
    mean nothing then, and the panel says so instead of drawing them.

    Raises ValueError where shapes do not fit.
    """

    title: str
    points_N2: NDArray[np.float32]
    values_N: Values
    degenerate: bool = False

    def __post_init__(self) -> None:
        points, values = self.points_N2, self.values_N
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(f"Panel {self.title!r}: points must have shape [N, 2], not {list(points.shape)}")
        if values.shape != points.shape[:1]:
            raise ValueError(f"Panel {self.title!r}: {points.shape[0]} points but values of {list(values.shape)}")
        if values.dtype.kind not in "if":
            raise ValueError(f"Panel {self.title!r}: values must be integers or floats, not {values.dtype}")


PanelSource = Panel | Callable[[], Panel] | None
"""A panel; or a function that reads it when its turn comes, so that a large grid is never whole in memory; or a gap."""


@dataclass(frozen=True, eq=False)
class PanelRow:
    """Panels side by side under one heading, the model's or the dataset's name."""

    title: str
    panels: tuple[PanelSource, ...]


@dataclass(frozen=True, eq=False)
class Grid:
    """Rows of panels with what explains them.

    Points are coloured by `categories` (labels, in legend order), or, where `value_range` is given, by value along
    a colour bar named `value_name`; with neither they have one colour and no legend. `panel_px` is a panel's width
    and height. `footer` is the small print: backend, seed, n_neighbors, and that distances between clusters mean
    nothing. Titles may hold line breaks. `unlabelled` adds the grey of points without label or value to the legend.

    Raises ValueError where the grid has no panel or its colours contradict each other.
    """

    title: str
    subtitle: str
    rows: tuple[PanelRow, ...]
    categories: tuple[str, ...] = ()
    value_range: tuple[float, float] | None = None
    value_name: str = ""
    panel_px: int = 200
    footer: str = ""
    unlabelled: bool = False

    def __post_init__(self) -> None:
        if not any(row.panels for row in self.rows):
            raise ValueError(f"Grid {self.title!r} has no panels")
        if self.categories and self.value_range is not None:
            raise ValueError(f"Grid {self.title!r}: colour by categories or by value, not both")
        if self.value_range is not None and not np.all(np.isfinite(self.value_range)):
            raise ValueError(f"Grid {self.title!r}: value_range must be finite, not {self.value_range}")
        if self.panel_px < 16:
            raise ValueError(f"Grid {self.title!r}: panel_px must be at least 16, not {self.panel_px}")

    @property
    def num_columns(self) -> int:
        """Panels in the longest row."""
        return max(len(row.panels) for row in self.rows)


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


@dataclass(frozen=True)
class Table:
    """A table of the overview. `header` may be empty: then the first cell of each row names it.

    Raises ValueError where a row has another number of cells than the rest.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        widths = {len(row) for row in self.rows} | ({len(self.header)} if self.header else set())
        if len(widths) > 1:
            raise ValueError(f"Table {self.title!r}: rows of {sorted(widths)} cells")


@dataclass(frozen=True, eq=False)
class ReportDataset:
    """A dataset's sentences and its grid: one row a model, every panel with one point a sentence, in order.

    `notes` stand beside the texts (an expected next token, a row's id) and may be empty.
    """

    name: str
    texts: Sequence[str]
    grid: Grid
    notes: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Report:
    """One page: overview tables, charts per layer with what is to be said of all of them, and the datasets' grids."""

    title: str
    subtitle: str
    tables: tuple[Table, ...]
    charts: tuple[Chart, ...]
    datasets: tuple[ReportDataset, ...]
    footer: str = ""
    charts_note: str = ""
