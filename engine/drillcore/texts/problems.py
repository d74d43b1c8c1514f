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
    """All that is wrong with the inputs: keeps the first `limit`, counts the rest."""

    limit: int = 20
    kept: list[Problem] = field(default_factory=list)
    count: int = 0

    def add(self, file: str, line: int | None, message: str) -> None:
        """Keep or count one more problem."""
        self.count += 1
        if len(self.kept) < self.limit:
            self.kept.append(Problem(file, line, message))

    def raise_if_any(self) -> None:
        """End with everything that was found, one problem a line.

        Raises:
            TextError: there is at least one.
        """
        if self.count:
            more = self.count - len(self.kept)
            lines = [*map(str, self.kept), *([f"... and {more:,} more"] if more else [])]
            raise TextError("\n".join(lines), hint="Mend what is named here and run again; nothing was written.")
