"""Progress of a run: what stages report, without knowing who displays it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


class ProgressListener(Protocol):
    """Receives the progress of a run and shows it."""

    def start(self, stage: str, total: int, unit: str) -> None:
        """A stage begins; `total` units of work, such as sentences, lie ahead."""

    def advance(self, count: int) -> None:
        """`count` more units are done; negative where work is to be done again."""

    def finish(self, summary: str) -> None:
        """The stage ended; `summary` is one line for the user."""

    def say(self, message: str) -> None:
        """Show the user a message."""


class Silent:
    """Shows nothing: the default of the Python interface."""

    def start(self, stage: str, total: int, unit: str) -> None:
        """Ignore."""

    def advance(self, count: int) -> None:
        """Ignore."""

    def finish(self, summary: str) -> None:
        """Ignore."""

    def say(self, message: str) -> None:
        """Ignore."""


@dataclass
class Progress:
    """Receives the progress of the work on blocks.

    advance(n): n more sentences have states; negative where a failed block will be computed again.
    """

    advance: Callable[[int], None] = field(default=lambda n: None)
