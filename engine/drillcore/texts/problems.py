"""Everything wrong with the inputs, collected before it is raised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from drillcore.errors import TextError

# Lines of one file that are shown with the same problem.
SHOWN_EACH = 3
# Of what has the same problem, lines that are named.
NAMED_EACH = 13


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong; `line` counts from 1 (Parquet: the row), None for the whole file."""

    file: str
    line: int | None
    message: str

    def __str__(self) -> str:
        """file:line: message."""
        return f"{self.file}: {self.message}" if self.line is None else f"{self.file}:{self.line}: {self.message}"


@dataclass
class Problems:
    """Everything that is wrong with the inputs: keeps the first `limit` problems, three of each kind; counts the rest.

    kinds: how many there are of each file and message of which one is kept; lines: of those, the first ones.

    >>> problems = Problems(limit=1)
    >>> problems.add("a.csv", 3, "is empty")
    >>> problems.add("a.csv", 4, "is empty")
    >>> print(problems.shown[0], problems.count)
    a.csv:3: is empty 2
    """

    limit: int = 20
    shown: list[Problem] = field(default_factory=list)
    count: int = 0
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    lines: dict[tuple[str, str], list[int | None]] = field(default_factory=dict)

    def add(self, file: str, line: int | None, message: str) -> None:
        """Keep or count one more problem."""
        self.count += 1
        kind, has_room = (file, message), len(self.shown) < self.limit
        if kind in self.kinds or has_room:
            self.kinds[kind] += 1
            lines = self.lines.setdefault(kind, [])
            lines += [line] if len(lines) < NAMED_EACH else []
        if has_room and self.kinds[kind] <= SHOWN_EACH:
            self.shown.append(Problem(file, line, message))

    def take(self, others: Problems) -> None:
        """Add what was found elsewhere and is not among the problems that are kept.

        >>> problems, others = Problems(), Problems()
        >>> problems.add("a.csv", 3, "is empty"), others.add("a.csv", 3, "is empty"), problems.take(others)
        (None, None, None)
        >>> problems.count
        1
        """
        new = [problem for problem in others.shown if problem not in self.shown]
        for problem in new:
            self.add(problem.file, problem.line, problem.message)
        if new:
            self.count += others.count - len(others.shown)
            shown = Counter((problem.file, problem.message) for problem in others.shown)
            for kind, number in (others.kinds - shown).items():
                if kind in self.kinds:
                    self.kinds[kind] += number
                    self.lines[kind] += others.lines[kind][shown[kind] :]

    def raise_if_any(self) -> None:
        """Raise everything that was found, one problem a line.

        Raises:
            TextError: there is at least one.
        """
        if self.count:
            raise TextError("\n".join(self._in_words()), hint="Fix these problems and run again; nothing was written.")

    def _in_words(self) -> Iterator[str]:
        shown = Counter((problem.file, problem.message) for problem in self.shown)
        for kind, number in shown.items():
            yield from (str(problem) for problem in self.shown if (problem.file, problem.message) == kind)
            left = self.kinds[kind] - number
            if left:
                listed = [str(line) for line in self.lines[kind][number:NAMED_EACH] if line is not None]
                dots = ", ..." if listed and len(listed) < left else ""
                yield f"... and {left:,} more like that" + (f", in {', '.join(listed)}{dots}" if listed else "")
        more = self.count - self.kinds.total()
        if more:
            yield f"... and {more:,} more"
