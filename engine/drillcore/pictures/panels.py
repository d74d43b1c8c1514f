"""What is drawn: panels in rows in a grid, as plain numpy.

Shape legend: N sentences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Panel:
    """One layer. points_N2: float32; values_N: int32, positions in the grid's categories; degenerate: no variance."""

    title: str
    points_N2: NDArray[np.float32]
    values_N: NDArray[np.int32]
    degenerate: bool = False


@dataclass(frozen=True)
class Row:
    """Panels side by side; None leaves a gap. title: what the row is, empty for a grid of one row."""

    title: str
    panels: tuple[Panel | None, ...]


@dataclass(frozen=True)
class Grid:
    """A whole picture. panel_px: width and height of a panel, in pixels."""

    title: str
    subtitle: str
    rows: tuple[Row, ...]
    categories: tuple[str, ...]
    panel_px: int = 200
    footer: str = ""
