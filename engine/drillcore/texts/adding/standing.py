"""What the file holds that rows are added to, and how it is written."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from drillcore.texts.adding.given import columns_in, every_row, header_of
from drillcore.texts.formats import Format
from drillcore.texts.problems import Problems
from drillcore.texts.readers.csv import SEPARATOR_LINE
from drillcore.texts.readers.lines import BYTE_ORDER_MARK, CHUNK_BYTES, open_file


@dataclass(frozen=True)
class Standing:
    """A file that rows are added to.

    path: as the job names it. kind: how it is written. num_rows: that it holds. names: of its fields,
    None where it may take any. kinds: what the values of each field are, by `kind_of_value`. tail: its last rows, as
    many as are added at most. header: of a CSV or TSV file. delimiter, quotes_all: of a CSV file. line_end: of its
    lines; is_cut: whether the last one has none. schema: of a Parquet file.
    """

    path: Path
    kind: Format
    num_rows: int
    names: tuple[str, ...] | None
    kinds: dict[str, set[str]] = field(default_factory=dict)
    tail: Sequence[dict[str, Any]] = ()
    header: tuple[str, ...] = ()
    delimiter: str = ","
    quotes_all: bool = False
    line_end: str = "\n"
    is_cut: bool = False
    schema: Any = None


def names_in(path: Path, kind: Format) -> tuple[str, ...] | None:
    """The fields of a file whose rows all have the same ones; None for other formats, or where it has no header."""
    if kind.kind in ("csv", "tsv"):
        return tuple(dict.fromkeys(header_of(path, kind))) or None
    if kind.kind == "txt":
        return ("text",)
    return tuple(columns_in(path, kind)) or None


def look(path: Path, kind: Format, num_last: int, problems: Problems) -> Standing:
    """Read a file that rows are added to. num_last: rows to keep as the tail. What is wrong goes to `problems`."""
    names = names_in(path, kind)
    kinds, tail, num_rows = dict[str, set[str]](), deque[dict[str, Any]](maxlen=num_last), 0
    before = problems.count
    for _, row in every_row(path, kind, lambda line, what: problems.add(str(path), line, what)):
        if row is None:
            continue
        num_rows += 1
        tail.append(row)
        for name, value in row.items():
            kinds.setdefault(name, set()).add(kind_of_value(value))
    if names is None and num_rows:
        names = tuple(kinds)
    if kind.kind in ("csv", "tsv") and names is None and problems.count == before:
        problems.add(str(path), None, "has no header: write one into its first line")
    if problems.count > before:
        return Standing(path, kind, num_rows, names)
    head, line_end, is_cut = _ends(path, kind)
    header = header_of(path, kind) if kind.kind in ("csv", "tsv") else []
    if header.count("") > 1:
        problems.add(str(path), None, "has several columns without a name: give them names")
    delimiter, quotes_all = _style(head, kind, header) if kind.kind == "csv" else (",", False)
    schema = pq.read_schema(path) if kind.kind == "parquet" else None
    style = (delimiter, quotes_all, line_end, is_cut)
    return Standing(path, kind, num_rows, names, kinds, tail, tuple(header), *style, schema)


def kind_of_value(value: object) -> str:
    """What a value is: none, boolean, number, text or other.

    >>> [kind_of_value(v) for v in (None, True, 1.5, "a", [])]
    ['none', 'boolean', 'number', 'text', 'other']
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else "text" if isinstance(value, str) else "other"


def _ends(path: Path, kind: Format) -> tuple[bytes, str, bool]:
    """The beginning of a text file, what its lines end in, and whether the last one has no end."""
    if kind.kind in ("parquet", "json"):
        return b"", "\n", False
    head = last = b""
    with open_file(path, kind.compression) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            head, last = head or chunk, chunk
    first, feed, _ = head.partition(b"\n")
    return head, "\r\n" if feed and first.endswith(b"\r") else "\n", bool(last) and not last.endswith(b"\n")


def _style(head: bytes, kind: Format, header: Sequence[str]) -> tuple[str, bool]:
    """What separates the fields of a CSV file, and whether all of them, its header too, stand in quotes."""
    lines = head.removeprefix(BYTE_ORDER_MARK).decode(kind.encoding, errors="replace").split("\n")
    named = SEPARATOR_LINE.fullmatch(lines[0])
    delimiter = kind.delimiter or (named[1] if named else ",")
    first = "\n".join(lines[1 if named else 0 :]).replace("\r\n", "\n")
    return delimiter, first.startswith(csv_line(header, delimiter, quotes_all=True).replace("\r\n", "\n"))


def csv_line(cells: Sequence[str], delimiter: str, *, quotes_all: bool) -> str:
    r"""A record of a CSV file, without what ends it.

    >>> csv_line(["a", 'b "c" d', "e\rf"], ";", quotes_all=False)
    'a;"b ""c"" d";"e\rf"'
    """
    written = io.StringIO(newline="")
    # With that line end, cells with either of its characters are put in quotes.
    how = csv.writer(
        written, delimiter=delimiter, quoting=csv.QUOTE_ALL if quotes_all else csv.QUOTE_MINIMAL, lineterminator="\r\n"
    )
    how.writerow(cells)
    return written.getvalue().removesuffix("\r\n")
