"""What a report shows, as plain frozen data: tables, charts, and datasets with their sentences and grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drillcore.pictures.data import Grid
from drillcore.pictures.series import Chart


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
