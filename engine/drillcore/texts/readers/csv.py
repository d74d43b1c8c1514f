"""CSV records under a header; TSV has rules of its own, in `tsv`."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator, Sequence

from drillcore.system.nearly import shown
from drillcore.texts.readers.header import rows_under_header
from drillcore.texts.readers.lines import MAX_LINE_BYTES, Line, OnProblem, Row, TextFile, UnreadableError
from drillcore.texts.readers.separators import SEPARATORS, remedy_for, separator_in

# What spreadsheets write before the header of a file whose fields are not separated by commas.
SEPARATOR_LINE = re.compile(r"sep=([^\"])\r?")


def read_csv(file: TextFile, wanted: Sequence[str], on_problem: OnProblem) -> Iterator[Row]:
    """Rows with the fields of the header; quoted fields may hold what separates fields, quotes and line ends.

    Fields are separated by what the job says, by what a first line `sep=;` says, or by commas.
    """
    # The limit belongs to the whole process: never lower it.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    return rows_under_header(file, records_of(file.lines(on_problem), file.delimiter), on_problem, _hint)


def records_of(lines: Iterator[Line], delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Yield the line that each record begins on, and its cells, or what is wrong with them.

    delimiter: between the fields where the job says so, or empty.
    """
    first = next(lines, None)
    if first is None:
        return
    named = SEPARATOR_LINE.fullmatch(first[1])
    if named is None:
        lines = itertools.chain([first], lines)
    elif delimiter not in ("", named[1]):
        what = f"says that {shown(named[1])} separates fields, and the job's `delimiter` is {shown(delimiter)}"
        raise UnreadableError(1, what)
    num_before = 0 if named is None else 1
    separator = delimiter or (named[1] if named else ",")
    reader = csv.reader((f"{line}\n" for _, line in lines), delimiter=separator, strict=True)
    while True:
        line = reader.line_num + 1 + num_before
        try:
            yield line, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, _csv_message(str(error))


def _hint(header: list[str]) -> str:
    """What may be the matter where a record has more or fewer fields than the header."""
    sign = separator_in(header)
    if not sign:
        return "; a field that holds what separates fields stands in double quotes"
    return f"; the header's fields are separated by {SEPARATORS[sign]}: {remedy_for(sign, 'csv')}"


def _csv_message(reason: str) -> str:
    if "unexpected end" in reason:
        return "a quote is opened in this row and never closed"
    if "new-line" in reason:
        return "holds a carriage return outside quotes; lines must end in LF or CRLF"
    if "expected after" in reason:
        return "a quote inside a quoted field must be doubled"
    return reason
