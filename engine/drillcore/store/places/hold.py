"""Whether a run still holds the store that it writes to."""

from __future__ import annotations

from typing import Protocol

# Before any write a check as old as this will do; before a fingerprint only a new one.
LATELY_SECONDS = 5.0


class Hold(Protocol):
    """A run's hold of a store, as plain data: it travels to worker processes and other hosts."""

    def check(self, within_seconds: float = 0.0) -> None:
        """Raise CommitError where the run no longer holds the store: nothing more may be written to it.

        within_seconds: a check that costs a request need not be made again so soon after the last one that succeeded.
        """
