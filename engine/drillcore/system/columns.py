"""Rows of cells as aligned lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def align_columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a table, the first row being its header; columns of numbers (cells that begin with a digit) go right.

    All rows have the same number of cells; raises ValueError otherwise.

    >>> for line in align_columns([("layer", "probe"), ("embed", "0.5"), ("block_1", "12.5")]):
    ...     print(line)
    layer    probe
    embed      0.5
    block_1   12.5
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    right = [all(cell[:1].isdigit() for cell in column[1:]) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
        yield "  ".join(cells).rstrip()
