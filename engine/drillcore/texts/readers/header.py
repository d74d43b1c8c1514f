"""Rows of formats whose first record names the fields: CSV and TSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from drillcore.texts.readers.lines import (
    OnProblem,
    Row,
    TextFile,
    UnreadableError,
    named_twice,
    quoted,
)

Record = list[str] | str
"""The cells of a record, none for an empty line, or what is wrong with it."""


def rows_under_header(
    file: TextFile, records: Iterator[tuple[int, Record]], on_problem: OnProblem, hint: Callable[[list[str]], str]
) -> Iterator[Row]:
    """Rows with the fields that the first record names. records: with the line that each begins on.

    hint: what goes after the message for a record of another number of fields, given the header.
    """
    header: list[str] | None = None
    for line, record in file.without_blanks(records, lambda cells: cells == [], on_problem):
        if header is None and record is not None:
            header = _header(line, record)
        elif header is None or not isinstance(record, list) or len(record) != len(header):
            if isinstance(record, list):
                fields = "1 field" if len(record) == 1 else f"{len(record)} fields"
                on_problem(line, f"has {fields} where the header has {len(header or ())}{hint(header or [])}")
            elif record is not None:
                on_problem(line, record)
            yield line, None
        else:
            yield line, dict(zip(header, record, strict=True))


def _header(line: int, record: Record) -> list[str]:
    if isinstance(record, str):
        raise UnreadableError(line, record)
    # Tables written with an index have columns without a name.
    twice = named_twice([name for name in record if name])
    if twice is not None:
        raise UnreadableError(line, f"the header names {quoted(twice)} twice")
    return record
