"""The layout of a grid: columns, sizes in pixels, lines of panels, and the tiles that a large grid is cut into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from drillcore.pictures.data import Grid, PanelRow, PanelSource

MIN_WIDTH_PX = 640  # leaves room for title and legend above a single panel
LONGEST_LINE = 10  # panels; a longer single row is wrapped


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

    def left(self, column: int) -> int:
        """Left edge of a column's panels."""
        return self.margin + column * (self.panel + self.gap)

    def lines(self, row: PanelRow) -> Iterator[tuple[PanelSource, ...]]:
        """The row's panels, line by line."""
        for start in range(0, len(row.panels), self.columns):
            yield row.panels[start : start + self.columns]

    def row_height(self, row: PanelRow) -> int:
        """Height of a row with its heading."""
        return (self.heading if row.title else 0) + -(-len(row.panels) // self.columns) * self.line_height


def default_columns(grid: Grid) -> int:
    """All panels of a row side by side; a single long row is wrapped into six to ten columns with the fewest gaps."""
    count = grid.num_columns
    if len(grid.rows) > 1 or count <= LONGEST_LINE:
        return count
    return min(range(6, LONGEST_LINE + 1), key=lambda columns: (-count % columns, abs(columns - 8)))


def tiles(grid: Grid, columns: int | None, tile_px: int, head_px: int) -> tuple[list[list[Grid]], int]:
    """The grid cut into grids that are at most `tile_px` wide and high, and the number of their panels side by side.

    A tile with a single panel may be larger. The outer list goes from top to bottom, the inner ones from left to right.
    head_px: height of head and foot together.
    """
    layout = Layout.of(grid, columns)
    height = head_px + sum(layout.row_height(row) for row in grid.rows)
    if layout.width <= tile_px and height <= tile_px:
        return [[grid]], layout.columns
    wide = (tile_px - 2 * layout.margin + layout.gap) // (layout.panel + layout.gap)
    if len(grid.rows) == 1:
        across = min(layout.columns, max(1, wide))
        room = (tile_px - head_px - layout.heading) // layout.line_height
        step = across * _even(-(-grid.num_columns // across), room)
        return [[_part(grid, grid.rows, start, start + step)] for start in range(0, grid.num_columns, step)], across
    across = _even(grid.num_columns, wide)
    high = _even(len(grid.rows), (tile_px - head_px) // (layout.heading + layout.line_height))
    return [
        [_part(grid, grid.rows[top : top + high], left, left + across) for left in range(0, grid.num_columns, across)]
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
