"""One sentence a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from drillcore.texts.readers.lines import (
    LONE_RETURN,
    OnProblem,
    Row,
    TextFile,
    is_blank,
    without_line_end,
)


def read_plain(file: TextFile, wanted: Sequence[str], on_problem: OnProblem) -> Iterator[Row]:
    """Rows with the one field `text`, a line each."""
    for number, line in file.without_blanks(file.lines(on_problem), is_blank, on_problem):
        text = None if line is None else without_line_end(line)
        if line is not None and text is None:
            on_problem(number, LONE_RETURN)
        yield number, None if text is None else {"text": text}
