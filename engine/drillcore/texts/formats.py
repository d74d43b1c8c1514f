"""Rows of a dataset's file: JSONL, CSV, TSV, plain text and Parquet, each row with the line it begins on.

Rows are streamed: one line, one CSV record or one slice of a Parquet row group is held at a time. What a row must
hold is the concern of `texts`.
"""

from __future__ import annotations

import csv
import json
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from drillcore.errors import TextError
from drillcore.texts.readers.lines import MAX_LINE_BYTES, Line, Report, UnreadableError, open_lines

Row = tuple[int, dict[str, Any] | None]
"""Line that a row begins on (Parquet: the row's number), counted from 1, and its fields; None if it was refused."""
Item = TypeVar("Item")

PARQUET_READ_BYTES = 16 << 20
PARQUET_READ_ROWS = 8192
KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".txt": "txt", ".parquet": "parquet"}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
PARQUET_TYPES: tuple[Callable[[Any], bool], ...] = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary),
    *(pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null),
)
DAMAGE = (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError)


@dataclass(frozen=True)
class Format:
    """How a file is written: `kind` is a value of KINDS, `compression` one of COMPRESSIONS or empty."""

    kind: str
    compression: str = ""

    @property
    def has_columns(self) -> bool:
        """Whether all rows have the same fields, so that a missing one is said once and not for every row."""
        return self.kind != "jsonl"

    @property
    def is_typed(self) -> bool:
        """Whether the format tells numbers from strings."""
        return self.kind in ("jsonl", "parquet")


def format_of(path: Path) -> Format:
    """The format that a file's name asks for.

    Raises:
        TextError: the name ends in nothing known.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = COMPRESSIONS.get(suffixes[-1], "") if suffixes else ""
    if compression:
        suffixes.pop()
    kind = KINDS.get(suffixes[-1]) if suffixes else None
    if kind is None or (kind == "parquet" and compression):
        raise TextError(
            f"{path}: the end of the name does not say what kind of file this is",
            hint="Known: .jsonl, .ndjson, .csv, .tsv and .txt, each also with .gz or .zst after it, and .parquet.",
        )
    return Format(kind, compression)


def shown(name: str) -> str:
    """A name out of a file, made safe and short enough for a message."""
    short = name if len(name) <= 60 else name[:57] + "..."
    return f"`{short if short.isprintable() else ascii(short)[1:-1]}`"


def read_rows(path: Path, kind: Format, wanted: Sequence[str], report: Report) -> Iterator[Row]:
    """Every row of a file, in order. What is wrong, with a row or the whole file, goes to `report`; nothing is raised.

    Fields other than `wanted` and `label` may be left out of the rows.
    """
    wrong = wrong_with(path)
    if wrong:
        report(None, wrong)
        return
    try:
        if kind.kind == "parquet":
            yield from _parquet(path, wanted)
        else:
            yield from LINE_READERS[kind.kind](open_lines(path, kind.compression, report), report)
    except UnreadableError as error:
        report(error.line, str(error))
    except DAMAGE as error:
        report(None, unreadable(error, kind))


def wrong_with(path: Path) -> str:
    """Why there is no file that could be read; empty if there is one. A pipe is refused: files are read twice."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "there is no such file"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if stat.S_ISREG(mode):
        return ""
    return "is a directory, not a file" if stat.S_ISDIR(mode) else "is no ordinary file"


def unreadable(error: BaseException, kind: Format) -> str:
    """What an error says that came up while a file was read."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    told = (str(error).splitlines() or [type(error).__name__])[0]
    return f"is no {kind.compression or kind.kind} file, or a damaged one: {told[:200].rstrip('.')}"


def _filled(
    items: Iterator[tuple[int, Item]], is_blank: Callable[[Item], bool], report: Report
) -> Iterator[tuple[int, Item | None]]:
    """Leave out blank lines at the end; refuse the first of a run of them anywhere else."""
    blank = 0
    for line, item in items:
        if is_blank(item):
            blank = blank or line
            continue
        if blank:
            report(blank, "is empty: every line must hold a row")
            yield blank, None
            blank = 0
        yield line, item


def _is_blank(line: str) -> bool:
    return not line or line.isspace()


def _text(lines: Iterator[Line], report: Report) -> Iterator[Row]:
    for number, line in _filled(lines, _is_blank, report):
        text = None if line is None else line.removesuffix("\r")
        if text is not None and "\r" in text:
            report(number, "holds a carriage return; lines must end in LF or CRLF")
            text = None
        yield number, None if text is None else {"text": text}


def _jsonl(lines: Iterator[Line], report: Report) -> Iterator[Row]:
    decoder = json.JSONDecoder(object_pairs_hook=_distinct)
    for number, line in _filled(lines, _is_blank, report):
        fields = None
        if line is not None:
            try:
                fields = _object(decoder, line)
            except ValueError as error:
                report(number, str(error))
        yield number, fields


def _object(decoder: json.JSONDecoder, line: str) -> dict[str, Any]:
    try:
        value = decoder.decode(line)
    except json.JSONDecodeError as error:
        if line.lstrip().startswith("["):
            raise ValueError("is not one JSON object: one a line is wanted, not an array") from None
        raise ValueError(f"is not JSON: {error.msg} (column {error.colno})") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError as error:
        raise ValueError("holds a number too long to read" if "int_max_str" in str(error) else str(error)) from None
    if not isinstance(value, dict):
        raise ValueError(f"is not a JSON object but {_json_type(value)}")
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError(f"names the field {shown(_twice([name for name, _ in pairs]) or '')} twice")
    return fields


def _twice(names: Sequence[str]) -> str | None:
    return next((name for name in names if names.count(name) > 1), None)


def _json_type(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


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


def _parquet(path: Path, wanted: Sequence[str]) -> Iterator[Row]:
    with pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True) as file:
        names = file.schema_arrow.names
        twice = _twice([name for name in names if name in wanted])
        if twice is not None:
            raise UnreadableError(None, f"names the column {shown(twice)} twice")
        if not set(wanted) <= set(names):
            # No value need be read to say so.
            yield 1, dict.fromkeys(names)
            return
        columns = [name for name in names if name in (*wanted, "label")]
        number = 0
        for batch in file.iter_batches(_parquet_rows(file.metadata), columns=columns, use_threads=False):
            for cells in zip(*map(_cells, batch.columns), strict=True):
                number += 1
                yield number, dict(zip(batch.schema.names, cells, strict=True))


def _parquet_rows(metadata: Any) -> int:
    """Rows that take about PARQUET_READ_BYTES, at most PARQUET_READ_ROWS."""
    num_bytes: int = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    mean_bytes: int = max(1, num_bytes // max(1, metadata.num_rows))
    return max(1, min(PARQUET_READ_ROWS, PARQUET_READ_BYTES // mean_bytes))


def _cells(column: Any) -> list[Any]:
    """Values as Python has them; for types that no column takes (times, lists, ...) only the type, for the message."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not any(is_type(column.type) for is_type in PARQUET_TYPES):
        return [column.type] * len(column)
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return [_cell(scalar) for scalar in column]


def _cell(scalar: Any) -> Any:
    """A value; text that is not UTF-8 stays bytes, which no column takes."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return scalar.as_buffer().to_pybytes()


LINE_READERS: dict[str, Callable[[Iterator[Line], Report], Iterator[Row]]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "tsv": _tsv,
    "txt": _text,
}
