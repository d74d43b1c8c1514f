"""Everything wrong with the inputs, collected before it is raised."""

from __future__ import annotations

from dataclasses import dataclass, field

from drillcore.errors import TextError


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
    """Everything that is wrong with the inputs: keeps the first `limit` problems, counts the rest.

    >>> problems = Problems(limit=1)
    >>> problems.add("a.csv", 3, "is empty")
    >>> problems.add("a.csv", 4, "is empty")
    >>> print(problems.shown[0], problems.count)
    a.csv:3: is empty 2
    """

    limit: int = 20
    shown: list[Problem] = field(default_factory=list)
    count: int = 0

    def add(self, file: str, line: int | None, message: str) -> None:
        """Keep or count one more problem."""
        self.count += 1
        if len(self.shown) < self.limit:
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

    def raise_if_any(self) -> None:
        """Raise everything that was found, one problem a line.

        Raises:
            TextError: there is at least one.
        """
        if self.count:
            more = self.count - len(self.shown)
            lines = [*map(str, self.shown), *([f"... and {more:,} more"] if more else [])]
            raise TextError("\n".join(lines), hint="Fix these problems and run again; nothing was written.")
