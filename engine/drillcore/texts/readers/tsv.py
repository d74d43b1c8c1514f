"""TSV records under a header: a tab ends a field and a line end ends a record, always; there are no quotes or escapes.

That is the registered format (text/tab-separated-values). A quotation mark is a character like any other: read by the
rules of CSV, one without a partner would swallow the rows after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from drillcore.texts.readers.header import Record, rows_under_header
from drillcore.texts.readers.lines import LONE_RETURN, Line, OnProblem, Row, TextFile, without_line_end

HINT = "; TSV has no quotes: no field can hold a tab or a line end (CSV and JSONL can)"


def read_tsv(file: TextFile, wanted: Sequence[str], on_problem: OnProblem) -> Iterator[Row]:
    """Rows with the fields of the header, separated by tabs."""
    return rows_under_header(file, _records(file.lines(on_problem)), on_problem, lambda header: HINT)


def _records(lines: Iterator[Line]) -> Iterator[tuple[int, Record]]:
    for number, line in lines:
        text = without_line_end(line)
        if text is None:
            yield number, LONE_RETURN
        else:
            yield number, text.split("\t") if text else []
