"""Progress of a run: what stages report, without knowing who displays it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")

_hear: ContextVar[Callable[[str], None] | None] = ContextVar("hear", default=None)
_hear_details: ContextVar[Callable[[str], None] | None] = ContextVar("hear_details", default=None)


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

    def warn(self, message: str) -> None:
        """Show the user what may be wrong with the data, the job or the store; `--quiet` does not hide it."""


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

    def warn(self, message: str) -> None:
        """Ignore."""


def counted(number: int, things: str) -> str:
    """A number with what is counted, given in the plural that ends in s.

    >>> counted(1, "sentences"), counted(1200, "layers")
    ('1 sentence', '1,200 layers')
    """
    return f"{number:,} {things.removesuffix('s') if number == 1 else things}"


@dataclass
class Progress:
    """Receives the progress of the work on blocks.

    advance(n): n more sentences have states; negative where a failed block will be computed again.
    """

    advance: Callable[[int], None] = field(default=lambda n: None)


@contextmanager
def telling(hear: Callable[[str], None], hear_details: Callable[[str], None] | None = None) -> Iterator[None]:
    """Inside, `hear` gets the lines of parts that know no listener, such as the cache; not in threads that start there.

    hear_details: gets what `tell_detail` says; by default whoever did before.

    >>> lines = []
    >>> with telling(lines.append, lines.append):
    ...     tell("one is made again")
    ...     tell_detail("it took 0.1 s")
    >>> lines
    ['one is made again', 'it took 0.1 s']
    """
    token = _hear.set(hear)
    details = _hear_details.set(hear_details or _hear_details.get())
    try:
        yield
    finally:
        _hear.reset(token)
        _hear_details.reset(details)


def tell(line: str) -> None:
    """Say a line to whoever listens; for parts that know no listener."""
    hear = _hear.get()
    if hear is not None:
        hear(line)


def tell_detail(line: str) -> None:
    """Say a line that only those want who look for a reason: what was resolved, seconds, warnings of libraries."""
    hear = _hear_details.get()
    if hear is not None:
        hear(line)


def hearer_of_details() -> Callable[[str], None] | None:
    """Who gets what `tell_detail` says."""
    return _hear_details.get()


def with_lines(function: Callable[[Item], Value], item: Item) -> tuple[Value, list[str]]:
    """What a function gives, and the lines that were said meanwhile: for processes whose lines nobody would hear."""
    lines: list[str] = []
    with telling(lines.append):
        return function(item), lines
