"""CSV and TSV records under a header."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

from drillcore.texts.readers.lines import (
    MAX_LINE_BYTES,
    Line,
    OnProblem,
    Row,
    TextFile,
    UnreadableError,
    named_twice,
    quoted,
    without_trailing_blanks,
)


def read_csv(file: TextFile, wanted: Sequence[str], on_problem: OnProblem) -> Iterator[Row]:
    """Rows with the fields of the header, separated by commas."""
    return _read(file.lines(on_problem), on_problem, ",")


def read_tsv(file: TextFile, wanted: Sequence[str], on_problem: OnProblem) -> Iterator[Row]:
    """Rows with the fields of the header, separated by tabs."""
    return _read(file.lines(on_problem), on_problem, "\t")


def _read(lines: Iterator[Line], on_problem: OnProblem, delimiter: str) -> Iterator[Row]:
    # The limit belongs to the whole process: never lower it.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    header: list[str] | None = None
    for line, record in without_trailing_blanks(_records(lines, delimiter), lambda cells: cells == [], on_problem):
        if header is None and record is not None:
            header = _header(line, record)
        elif header is None or not isinstance(record, list) or len(record) != len(header):
            if isinstance(record, list):
                on_problem(line, f"has {len(record)} fields where the header has {len(header or ())}")
            elif record is not None:
                on_problem(line, record)
            yield line, None
        else:
            yield line, dict(zip(header, record, strict=True))


def _header(line: int, record: list[str] | str) -> list[str]:
    if isinstance(record, str):
        raise UnreadableError(line, record)
    # Tables written with an index have columns without a name.
    twice = named_twice([name for name in record if name])
    if twice is not None:
        raise UnreadableError(line, f"the header names {quoted(twice)} twice")
    return record


def _records(lines: Iterator[Line], delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Yield the line that each record begins on, and its cells, or what is wrong with them."""
    reader = csv.reader((f"{line}\n" for _, line in lines), delimiter=delimiter, strict=True)
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
