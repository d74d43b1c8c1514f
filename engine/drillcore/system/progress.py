"""How far a run is: what stages tell, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


class Reporter(Protocol):
    """Listens to a run."""

    def start(self, stage: str, total: int, unit: str) -> None:
        """A stage begins that has `total` units to do."""

    def advance(self, count: int) -> None:
        """So many more units are done."""

    def finish(self, summary: str) -> None:
        """The stage ended."""

    def say(self, message: str) -> None:
        """Something that the user should read."""


class Silent:
    """Nobody listens: the Python interface's default."""

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
    """Where work reports how far it is.

    advance(n): sentences whose states are there, negative where a failed block's count is taken back.
    """

    advance: Callable[[int], None] = field(default=lambda n: None)
