"""What may still go wrong: beginnings of rows of the table. Empty once a store proves what it holds."""

from __future__ import annotations

from collections.abc import Sequence

# Of a store that holds no digests of its data and metadata.
NOT_YET: Sequence[str] = ("store: ", "killed", "power lost", "beside: made a folder")


def is_known(row: str) -> bool:
    """Whether trials of this row may still go wrong."""
    return row.startswith(tuple(NOT_YET))
