"""Plain tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
GAP = "·"


def align_columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines with their cells under each other; numbers (whatever begins with a digit) to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    right = [all(cell[:1].isdigit() for cell in column[1:]) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
        yield "  ".join(cells).rstrip()


def sparkline(values: Sequence[float], *, low: float | None = None, high: float | None = None, width: int = 0) -> str:
    """One character for each value: ▁ at `low`, █ at `high` (by default the smallest and largest value).

    Values beyond are drawn at the ends; a value that is not finite is a dot; where all are equal they are drawn at
    half height. With `width`, longer rows are shortened to it by taking means.
    """
    shown = [float(v) for v in values]
    if 0 < width < len(shown):
        shown = [_mean(shown[len(shown) * i // width : len(shown) * (i + 1) // width]) for i in range(width)]
    finite = [v for v in shown if math.isfinite(v)]
    if not finite:
        return GAP * len(shown)
    bottom, top = min(finite) if low is None else low, max(finite) if high is None else high
    return "".join(_block(v, bottom, top) for v in shown)


def _mean(values: Sequence[float]) -> float:
    finite = [v for v in values if math.isfinite(v)]
    return sum(finite) / len(finite) if finite else math.nan


def _block(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return GAP
    if high <= low:
        return BLOCKS[len(BLOCKS) // 2 - 1]
    share = min(max((value - low) / (high - low), 0.0), 1.0)
    return BLOCKS[min(int(share * len(BLOCKS)), len(BLOCKS) - 1)]
