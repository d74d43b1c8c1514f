"""The layout of a grid: columns, sizes in pixels, bands of panels, and the tiles that a large grid is cut into.

A band holds some columns of all rows: the panels of one layer stand under each other, however many bands there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from drillcore.pictures.data import Grid, PanelRow, PanelSource

MIN_WIDTH_PX = 640  # leaves room for title and legend above a single panel
LONGEST_LINE = 10  # panels; longer rows are wrapped
PAGE_SHAPE = 1.5  # width over height towards which a grid of several rows is wrapped


@dataclass(frozen=True)
class Layout:
    """Sizes in pixels. columns: panels side by side. scale: of fonts and margins, 1 for a panel of 200 pixels."""

    panel: int
    columns: int
    scale: float
    margin: int
    gap: int
    caption: int
    heading: int

    @classmethod
    def of(cls, grid: Grid, columns: int | None = None) -> Layout:
        """Sizes in proportion to the panel.

        columns: by default `default_columns`.
        """
        scale = min(max(grid.panel_px / 200, 0.8), 4.0)
        sizes = [round(scale * size) for size in (20, 10, 20, 30)]
        return cls(grid.panel_px, columns or default_columns(grid), scale, *sizes)

    @property
    def width(self) -> int:
        """Width of the picture in pixels."""
        panels = self.columns * (self.panel + self.gap) - self.gap
        return max(panels, round(MIN_WIDTH_PX * self.scale)) + 2 * self.margin

    @property
    def line_height(self) -> int:
        """Height of a line of panels: captions, panels, and the gap below."""
        return self.caption + self.panel + self.gap

    def band_height(self, rows: Sequence[PanelRow]) -> int:
        """Height of a band in which each row has a line, with their headings."""
        return sum((self.heading if row.title else 0) + self.line_height for row in rows)

    def left(self, column: int) -> int:
        """Left edge of a column's panels."""
        return self.margin + column * (self.panel + self.gap)

    def lines(self, rows: Sequence[PanelRow]) -> Iterator[tuple[str, tuple[PanelSource, ...]]]:
        """Heading and panels of each line, band by band; the heading of a single row stands above its first line."""
        for start in range(0, max((len(row.panels) for row in rows), default=0), self.columns):
            for row in rows:
                panels = row.panels[start : start + self.columns]
                if any(panel is not None for panel in panels):
                    yield row.title if len(rows) > 1 or start == 0 else "", panels

    def height(self, rows: Sequence[PanelRow]) -> int:
        """Height of all lines of some rows."""
        return sum((self.heading if title else 0) + self.line_height for title, _ in self.lines(rows))


def default_columns(grid: Grid) -> int:
    """Panels side by side: all of a short row; of longer ones what gives few gaps and, with several, a page's shape.

    >>> rows = tuple(PanelRow(name, (None,) * 32) for name in ("one", "two", "three"))
    >>> default_columns(Grid("", "", rows)), default_columns(Grid("", "", rows[:1]))
    (16, 8)
    """
    count, rows = grid.num_columns, len(grid.rows)
    if count <= LONGEST_LINE:
        return count
    if rows == 1:
        return min(range(6, LONGEST_LINE + 1), key=lambda columns: (-count % columns, abs(columns - 8)))

    def cost(columns: int) -> float:
        bands = -(-count // columns)
        gaps = (bands * columns - count) / count
        return abs(math.log(columns / (bands * rows * 1.3) / PAGE_SHAPE)) + gaps

    return min(range(6, count + 1), key=cost)


def tiles(grid: Grid, columns: int | None, tile_px: int, head_px: int) -> tuple[list[list[Grid]], int]:
    """The grid cut into grids that are at most `tile_px` wide and high, and the number of their panels side by side.

    A tile with a single panel may be larger. The outer list goes from top to bottom, the inner ones from left to right.
    head_px: height of head and foot together.
    """
    layout = Layout.of(grid, columns)
    if layout.width <= tile_px and head_px + layout.height(grid.rows) <= tile_px:
        return [[grid]], layout.columns
    wide = max(1, (tile_px - 2 * layout.margin + layout.gap) // (layout.panel + layout.gap))
    across = layout.columns if layout.columns <= wide else _even(grid.num_columns, wide)
    room = tile_px - head_px
    high = _even(len(grid.rows), room // layout.band_height(grid.rows[:1]))
    bands = room // max(layout.band_height(grid.rows[top : top + high]) for top in range(0, len(grid.rows), high))
    step = across * _even(-(-grid.num_columns // across), bands)
    return [
        [_part(grid, grid.rows[top : top + high], left, left + step) for left in range(0, grid.num_columns, step)]
        for top in range(0, len(grid.rows), high)
    ], across


def _even(count: int, most: int) -> int:
    """Size of equal parts of `count` things, none larger than `most` (or 1).

    >>> _even(10, 4)
    4
    >>> _even(9, 5)
    5
    """
    return -(-count // -(-count // max(1, most)))


def _part(grid: Grid, rows: tuple[PanelRow, ...], start: int, stop: int) -> Grid:
    cut = tuple(PanelRow(row.title, row.panels[start:stop]) for row in rows)
    position = f"columns {start + 1} to {min(stop, grid.num_columns)} of {grid.num_columns}"
    if len(rows) < len(grid.rows):
        first = next(i for i, row in enumerate(grid.rows) if row is rows[0])
        position = f"rows {first + 1} to {first + len(rows)} of {len(grid.rows)}, {position}"
    return replace(grid, rows=cut, subtitle=f"{grid.subtitle}\n{position}".lstrip())


def columns_by_depth(num_panels: int, num_columns: int) -> list[int]:
    """Column of each layer of a model: the first and last layer at the ends, the others in proportion between them.

    Raises ValueError where there are more panels than columns.

    >>> columns_by_depth(3, 9)
    [0, 4, 8]
    """
    if num_panels > num_columns:
        raise ValueError(f"{num_panels} panels do not fit {num_columns} columns")
    if num_panels <= 1:
        return [0] * num_panels
    step = (num_columns - 1) / (num_panels - 1)
    return [int(i * step + 0.5) for i in range(num_panels)]


def aligned_by_depth(grid: Grid) -> Grid:
    """The grid with the panels of each row moved to the columns of their relative depth, with gaps between them."""
    return replace(grid, rows=tuple(PanelRow(row.title, _spread(row.panels, grid.num_columns)) for row in grid.rows))


def _spread(panels: Sequence[PanelSource], num_columns: int) -> tuple[PanelSource, ...]:
    spread: list[PanelSource] = [None] * num_columns
    for column, panel in zip(columns_by_depth(len(panels), num_columns), panels, strict=True):
        spread[column] = panel
    return tuple(spread)
