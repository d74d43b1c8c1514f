"""Panels of models of different depths set side by side by relative depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from drillcore.pictures.data import Grid, PanelSource, Row


def columns_by_depth(num_panels: int, num_columns: int) -> list[int]:
    """Column of each of a model's layers: the first and last at the ends, the others in proportion between."""
    if num_panels > num_columns:
        raise ValueError(f"{num_panels} panels do not fit {num_columns} columns")
    if num_panels <= 1:
        return [0] * num_panels
    step = (num_columns - 1) / (num_panels - 1)
    return [int(i * step + 0.5) for i in range(num_panels)]


def aligned_by_depth(grid: Grid) -> Grid:
    """The grid with each row spread over all columns by relative depth; the columns between stay empty."""
    return replace(grid, rows=tuple(Row(row.title, _spread(row.panels, grid.num_columns)) for row in grid.rows))


def _spread(panels: Sequence[PanelSource], num_columns: int) -> tuple[PanelSource, ...]:
    spread: list[PanelSource] = [None] * num_columns
    for column, panel in zip(columns_by_depth(len(panels), num_columns), panels, strict=True):
        spread[column] = panel
    return tuple(spread)
