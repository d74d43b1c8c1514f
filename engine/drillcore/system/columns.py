"""Rows of cells as aligned lines, and sizes in words."""

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


def size_words(num_bytes: int) -> str:
    """A number of bytes in its natural unit: three digits, B to TB.

    >>> size_words(1234), size_words(5 * 10**12)
    ('1.23 kB', '5.0 TB')
    """
    value = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"
