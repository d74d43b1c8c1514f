"""Whether a run still holds the store that it writes to."""

from __future__ import annotations

from typing import Protocol


class Hold(Protocol):
    """A run's hold of a store, as plain data: it travels to worker processes and other hosts."""

    def check(self) -> None:
        """Raise CommitError where the run no longer holds the store: nothing more may be written to it."""
