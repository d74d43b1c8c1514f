"""CSV and TSV records under a header."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from drillcore.texts.readers.lines import (
    MAX_LINE_BYTES,
    Line,
    Report,
    Row,
    UnreadableError,
    _filled,
    _twice,
    shown,
)


def _csv(lines: Iterator[Line], report: Report, delimiter: str = ",") -> Iterator[Row]:
    # The limit belongs to the whole process: never take it down.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    header: list[str] | None = None
    for line, record in _filled(_records(lines, delimiter), lambda cells: cells == [], report):
        if header is None and record is not None:
            header = _header(line, record)
        elif header is None or not isinstance(record, list) or len(record) != len(header):
            if isinstance(record, list):
                report(line, f"has {len(record)} fields where the header has {len(header or ())}")
            elif record is not None:
                report(line, record)
            yield line, None
        else:
            yield line, dict(zip(header, record, strict=True))


def _tsv(lines: Iterator[Line], report: Report) -> Iterator[Row]:
    return _csv(lines, report, delimiter="\t")


def _header(line: int, record: list[str] | str) -> list[str]:
    if isinstance(record, str):
        raise UnreadableError(line, record)
    # Tables written with an index have columns without a name.
    twice = _twice([name for name in record if name])
    if twice is not None:
        raise UnreadableError(line, f"the header names {shown(twice)} twice")
    return record


def _records(lines: Iterator[Line], delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Line that each record begins on, and its cells, or what is wrong with it."""
    reader = csv.reader((f"{line}\n" for _, line in lines), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            yield line, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, _csv_message(str(error))


def _csv_message(told: str) -> str:
    if "unexpected end" in told:
        return "a quote is opened in this row and never closed"
    if "new-line" in told:
        return "holds a carriage return outside quotes; lines must end in LF or CRLF"
    if "expected after" in told:
        return "a quote inside a quoted field must be doubled"
    return told
