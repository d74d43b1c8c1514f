"""One sentence a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from drillcore.texts.readers.lines import (
    OnProblem,
    Row,
    TextFile,
    is_blank,
    without_trailing_blanks,
)


def read_plain(file: TextFile, wanted: Sequence[str], on_problem: OnProblem) -> Iterator[Row]:
    """Rows with the one field `text`, a line each."""
    for number, line in without_trailing_blanks(file.lines(on_problem), is_blank, on_problem):
        text = None if line is None else line.removesuffix("\r")
        if text is not None and "\r" in text:
            on_problem(number, "holds a carriage return; lines must end in LF or CRLF")
            text = None
        yield number, None if text is None else {"text": text}
