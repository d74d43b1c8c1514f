"""What pictures show, as plain frozen data: grids of panels, charts of curves, tables, and the report of all of them.

Shape legend: N points, L layers, 2 axes of the projection.
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

    title: drawn above it (a layer name). points_N2: float32; rows that are not finite are not drawn. values_N: colours
    of the points; integers index `Grid.categories` (negative: no label), floats lie in `Grid.value_range` (NaN: no
    value). degenerate: all states of the layer were identical, so that the points mean nothing; the panel says so
    instead of drawing them. layer: its number. figure: the layer's measure, shown beside the title. is_notable: whether
    the measure is more than chance.

    Raises ValueError where shapes do not fit.

    >>> Panel("block_1", np.zeros((3, 2), np.float32), np.array([0, 1, -1], np.int32)).title
    'block_1'
    """

    title: str
    points_N2: NDArray[np.float32]
    values_N: Values
    degenerate: bool = False
    layer: int | None = None
    figure: str = ""
    is_notable: bool = False

    def __post_init__(self) -> None:
        points, values = self.points_N2, self.values_N
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(f"Panel {self.title!r}: points must have shape [N, 2], not {list(points.shape)}")
        if values.shape != points.shape[:1]:
            raise ValueError(f"Panel {self.title!r}: {points.shape[0]} points but values of {list(values.shape)}")
        if values.dtype.kind not in "if":
            raise ValueError(f"Panel {self.title!r}: values must be integers or floats, not {values.dtype}")


PanelSource = Panel | Callable[[], Panel] | None
"""A panel; a function that reads it when it is drawn, so that a large grid is never in memory as a whole; or a gap."""


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest sentences of every sentence at the layers of a row of panels, in the raw space of each.

    read: gives those of the layer at a position of the row, int32 [N, J], nearest first, -1 where there are no more;
    None where they are not known, and `why` says why. tied: of each layer, the sentences that share their state with
    more than J others, so that a tie has chosen for them. python: the line that reads them.
    """

    python: str
    read: Callable[[int], NDArray[np.int32]] | None = None
    tied: tuple[int, ...] = ()
    why: str = ""


@dataclass(frozen=True, eq=False)
class PanelRow:
    """Panels side by side. title: heading above them, the name of a model or dataset; may be empty.

    nearest: for the report, the nearest sentences of its layers.
    """

    title: str
    panels: tuple[PanelSource, ...]
    nearest: Nearest | None = None


@dataclass(frozen=True, eq=False)
class Grid:
    """Rows of panels with title, legend and small print.

    categories: labels in the order of the legend; the points' integers index them. value_range, value_name: instead of
    categories, the range of the points' floats and the name of their colour bar. With neither, all points have one
    colour and there is no legend. panel_px: width and height of a panel in pixels. footer: the small print (library,
    seed, parameters). unlabelled: sentences without label or value; where there are some, the legend has their grey and
    their number. every_point: panels hold all points, also those far away from all others (`Frame.around`). Titles may
    hold line breaks.

    Raises ValueError where the grid has no panel, or has both categories and a range of values.

    >>> panel = Panel("block_1", np.zeros((2, 2), np.float32), np.array([0, 1], np.int32))
    >>> grid = Grid("Cities", "UMAP", (PanelRow("my-model", (panel, panel)),), ("Montreal", "Toronto"))
    >>> grid.num_columns
    2
    """

    title: str
    subtitle: str
    rows: tuple[PanelRow, ...]
    categories: tuple[str, ...] = ()
    value_range: tuple[float, float] | None = None
    value_name: str = ""
    panel_px: int = 200
    footer: str = ""
    unlabelled: int = 0
    every_point: bool = False

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
    """One measure along the layers of one model: a line of a chart.

    layers_L: layer numbers, ascending. value_L: the measure, NaN where there is a gap. low_L, high_L: ends of its
    interval. null_mean_L, null_high_L: mean and limit of the null; values between them are explained by chance.
    p_L: share of permutations that are at least as large, corrected for all layers; told, not drawn.
    control: something that the measure must beat (a probe on the last token, random weights); drawn dashed. of: name of
    the series that a control belongs to and whose colour it has; empty for a control of all, which is grey. shows: name
    of the report's dataset and title of its row whose panels are of the same states.

    Raises ValueError where lengths differ or one end of an interval is missing.

    >>> probe = Series("my-model", np.arange(3), np.array([0.5, 0.8, 0.9]))
    >>> shuffled = Series("random weights", np.arange(3), np.array([0.5, 0.6, 0.6]), control=True, of="my-model")
    """

    name: str
    layers_L: NDArray[np.integer]
    value_L: Floats
    low_L: Floats | None = None
    high_L: Floats | None = None
    null_mean_L: Floats | None = None
    null_high_L: Floats | None = None
    p_L: Floats | None = None
    control: bool = False
    of: str = ""
    shows: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        for field in ("value_L", "low_L", "high_L", "null_mean_L", "null_high_L", "p_L"):
            array = getattr(self, field)
            if array is not None and array.shape != self.layers_L.shape:
                wrong, right = list(array.shape), list(self.layers_L.shape)
                raise ValueError(f"Series {self.name!r}: {field} has shape {wrong}, the layers {right}")
        if (self.low_L is None) != (self.high_L is None) or (self.null_mean_L is None) != (self.null_high_L is None):
            raise ValueError(f"Series {self.name!r}: an interval needs both of its ends")


@dataclass(frozen=True, eq=False)
class Chart:
    """Series that share axes.

    value_name: of the vertical axis. value_range: its ends, by default those of the values. note: small print below.
    relative_depth: in the report, the horizontal axis is the relative depth, 0 to 1 in each model (`Charts` has one
    such field for all of its charts).
    """

    title: str
    value_name: str
    series: tuple[Series, ...]
    value_range: tuple[float, float] | None = None
    note: str = ""
    relative_depth: bool = False


@dataclass(frozen=True, eq=False)
class Charts:
    """A picture of several charts. relative_depth: the horizontal axis is the relative depth, 0 to 1 in each model."""

    title: str
    subtitle: str
    charts: tuple[Chart, ...]
    footer: str = ""
    relative_depth: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the overview. header: may be empty; the first cell of a row is its name.

    Raises ValueError where rows differ in their number of cells.

    >>> Table("Datasets", ("dataset", "sentences"), (("complete", "50"), ("incomplete", "50"))).title
    'Datasets'
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        widths = {len(row) for row in self.rows} | ({len(self.header)} if self.header else set())
        if len(widths) > 1:
            raise ValueError(f"Table {self.title!r}: rows of {sorted(widths)} cells")


@dataclass(frozen=True, eq=False)
class Choice:
    """What the page can colour the points of a dataset by, beside the values of its panels.

    key: choices of several datasets with the same one are switched together. name: as the page shows it. codes: give
    what each sentence has, a place in `words`, or -1 for nothing; one for all rows of the grid, which gives [N], or one
    for each row, which gives [N], or [P, N] where its panels differ. words: the values; empty where there are too many
    numbers to be told exactly, whose codes are steps of the colour bar. places: category, or step, of each value.
    categories, value_range: one of them, as in `Grid`. has_others: whether the last category is that of all values
    without one of their own. missing: what is said where there is no value.
    """

    key: str
    name: str
    codes: tuple[Callable[[], NDArray[np.integer]], ...]
    words: tuple[str, ...]
    places: NDArray[np.int32]
    categories: tuple[str, ...] = ()
    value_range: tuple[float, float] | None = None
    has_others: bool = False
    missing: str = "no value"


@dataclass(frozen=True, eq=False)
class ReportDataset:
    """The sentences of a dataset and their grid: a row for each model, and in every panel one point for each sentence.

    notes: shown beside the texts (an expected next token, the id of a row); as many as texts, or none. recolours: the
    sentences and points are those of a dataset before it, in other colours: the page holds them once. choices: what
    else a reader can colour the points by.
    """

    name: str
    texts: Sequence[str]
    grid: Grid
    notes: Sequence[str] = ()
    recolours: bool = False
    choices: tuple[Choice, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What the report says first.

    words: the question, and paragraphs. chart: number of the chart beside them. panel: its dataset, row and layer.
    """

    words: tuple[str, ...]
    chart: int
    panel: tuple[str, str, int]


@dataclass(frozen=True, eq=False)
class Report:
    """One page: an answer, charts per layer with their small print, the datasets' grids, and tables of the run.

    figure: what the figures beside the titles of panels are. colored_by: what the datasets' own colours are of.
    """

    title: str
    subtitle: str
    tables: tuple[Table, ...]
    charts: tuple[Chart, ...]
    datasets: tuple[ReportDataset, ...]
    footer: str = ""
    charts_note: str = ""
    answer: Answer | None = None
    figure: str = ""
    colored_by: str = "label"
