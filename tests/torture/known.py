"""What may still go wrong: beginnings of rows of the table."""

from __future__ import annotations

from collections.abc import Sequence

NOT_YET: Sequence[str] = ()


def is_known(row: str) -> bool:
    """Whether trials of this row may still go wrong."""
    return row.startswith(tuple(NOT_YET))
