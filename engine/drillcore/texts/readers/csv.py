"""CSV records under a header; TSV has rules of its own, in `tsv`."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

from drillcore.texts.readers.header import rows_under_header
from drillcore.texts.readers.lines import MAX_LINE_BYTES, Line, OnProblem, Row, TextFile


def read_csv(file: TextFile, wanted: Sequence[str], on_problem: OnProblem) -> Iterator[Row]:
    """Rows with the fields of the header, separated by commas; quoted fields may hold commas, quotes and line ends."""
    # The limit belongs to the whole process: never lower it.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    return rows_under_header(_records(file.lines(on_problem)), on_problem)


def _records(lines: Iterator[Line]) -> Iterator[tuple[int, list[str] | str]]:
    """Yield the line that each record begins on, and its cells, or what is wrong with them."""
    reader = csv.reader((f"{line}\n" for _, line in lines), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            yield line, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, _csv_message(str(error))


def _csv_message(reason: str) -> str:
    if "unexpected end" in reason:
        return "a quote is opened in this row and never closed"
    if "new-line" in reason:
        return "holds a carriage return outside quotes; lines must end in LF or CRLF"
    if "expected after" in reason:
        return "a quote inside a quoted field must be doubled"
    return reason
