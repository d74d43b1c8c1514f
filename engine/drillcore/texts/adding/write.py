"""Writes a dataset's file with rows added at its end, beside it, and reads it back."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from drillcore.errors import TextError
from drillcore.texts.adding.convert import exactly
from drillcore.texts.adding.given import NewRow, every_row
from drillcore.texts.adding.standing import Standing, csv_line
from drillcore.texts.problems import Problems
from drillcore.texts.readers.lines import BYTE_ORDER_MARK, CHUNK_BYTES, open_file, quoted

BLANKS = b" \t\r\n"


def write_added(standing: Standing, rows: Sequence[dict[str, Any]], to: Path) -> None:
    """Write the file and the rows after what it holds. rows: as `converted` gives them. Raises OSError."""
    if standing.kind.kind == "parquet":
        _write_parquet(standing, rows, to)
    elif standing.kind.kind == "json":
        _write_array(standing, rows, to)
    else:
        shutil.copyfile(standing.path, to)
        lines = (standing.line_end if standing.is_cut else "").encode(standing.kind.encoding)
        with to.open("ab") as stream:
            stream.write(_compressed(lines + b"".join(_line(row, standing) for row in rows), standing))


def check_encoding(rows: Sequence[dict[str, Any]], given: Sequence[NewRow], standing: Standing, to: Problems) -> None:
    """Report values with characters that the encoding of the file does not have; JSON writes those as escapes."""
    encoding = standing.kind.encoding
    if standing.kind.kind not in ("csv", "tsv", "txt"):
        return
    for row, new in zip(rows, given, strict=True):
        for name, value in row.items():
            try:
                value.encode(encoding)
            except UnicodeEncodeError as error:
                sign = ascii(value[error.start])
                what = f"holds the character {sign}, which {standing.path.name} cannot hold (`encoding: {encoding}`)"
                to.add(new.source.called, new.line, f"field {quoted(name)} {what}")


def lines_added(standing: Standing, rows: Sequence[dict[str, Any]], given: Sequence[NewRow], file: Path) -> list[int]:
    """The line that each new row begins on in the file as it was written, or its number in a format without lines.

    Raises TextError, before which nothing was replaced, where a row would not come back as it is.
    """
    wrong, lines, number = list[tuple[int | None, str]](), list[int](), 0
    for line, row in every_row(file, standing.kind, lambda line, what: wrong.append((line, what))):
        if row is None and standing.kind.drops_blank:
            continue
        if row is None:
            break
        place = number - standing.num_rows
        number += 1
        if place >= len(rows) or (place >= 0 and exactly(row) != exactly(rows[place])):
            raise _not_held(given[min(place, len(rows) - 1)], standing)
        lines += [line] if place >= 0 else []
    if len(lines) == len(rows) and not wrong:
        return lines
    if wrong and not lines:
        at, what = wrong[0]
        hint = "New rows follow the last line: take out blank lines at the end of the file, or set `empty: drop`."
        raise TextError(f"{standing.path}{f':{at}' if at else ''}: {what}", hint=hint)
    raise _not_held(given[min(len(lines), len(rows) - 1)], standing)


def _not_held(new: NewRow, standing: Standing) -> TextError:
    place = new.source.called if new.line is None else f"{new.source.called}:{new.line}"
    return TextError(
        f"{place}: {standing.path.name} cannot hold this row as it is: it would be read as another one",
        hint="Look for an empty row, or for characters that the format takes for its own; nothing was written.",
    )


def _line(row: dict[str, Any], standing: Standing) -> bytes:
    kind, end = standing.kind, standing.line_end
    if kind.kind == "jsonl":
        try:
            return f"{json.dumps(row, ensure_ascii=False)}{end}".encode(kind.encoding)
        except UnicodeEncodeError:
            return f"{json.dumps(row)}{end}".encode(kind.encoding)
    cells = [row[name] for name in standing.header or ("text",)]
    if kind.kind == "csv":
        line = csv_line(cells, standing.delimiter, quotes_all=standing.quotes_all)
    else:
        line = "\t".join(cells)
    return f"{line}{end}".encode(kind.encoding)


def _compressed(data: bytes, standing: Standing) -> bytes:
    """Bytes to put behind those of the file; compressed ones follow each other as members of one stream."""
    if standing.kind.compression == "gzip":
        return gzip.compress(data, mtime=0)
    if standing.kind.compression == "zstd":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(data)
        return bytes(sink.getvalue())
    return data


def _write_array(standing: Standing, rows: Sequence[dict[str, Any]], to: Path) -> None:
    """A JSON array: the objects stand before its closing bracket, and what stood between others between them."""
    after_last, gap = _array_places(standing) if standing.num_rows else (0, b" ")
    objects = [json.dumps(row, ensure_ascii=not _is_utf8(row)).encode() for row in rows]
    with open_file(standing.path, standing.kind.compression) as stream, to.open("wb") as out:
        sink = {"gzip": _gzip, "zstd": _zstd}.get(standing.kind.compression, lambda stream: stream)(out)
        while after_last:
            chunk = stream.read(min(after_last, CHUNK_BYTES))
            if not chunk:
                raise OSError("became shorter while it was read")
            sink.write(chunk)
            after_last -= len(chunk)
        sink.write((b"," + gap if standing.num_rows else b"[") + (b"," + gap).join(objects))
        sink.write(stream.read() if standing.num_rows else b"]\n")
        if sink is not out:
            sink.close()


def _gzip(out: Any) -> Any:
    return gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0)


def _zstd(out: Any) -> Any:
    return pa.CompressedOutputStream(pa.PythonFile(out, mode="w"), "zstd")


def _is_utf8(row: dict[str, Any]) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _array_places(standing: Standing) -> tuple[int, bytes]:
    """Offset of what follows the last object of an array, and the blanks before the first one."""
    after_last = end = at = 0
    head = b""
    with open_file(standing.path, standing.kind.compression) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            head = head or chunk
            filled = chunk.rstrip(BLANKS)
            if filled:
                # The closing bracket is the last character that is no blank, and the last object ends before it.
                before = filled[:-1].rstrip(BLANKS)
                after_last = at + len(before) if before else end
                end = at + len(filled)
            at += len(chunk)
    inside = head.removeprefix(BYTE_ORDER_MARK).lstrip(BLANKS)[1:]
    gap = inside[: len(inside) - len(inside.lstrip(BLANKS))]
    return after_last, gap or b" "


def _write_parquet(standing: Standing, rows: Sequence[dict[str, Any]], to: Path) -> None:
    """A Parquet file: its row groups as they are, and one of the new rows, with the compression of the first."""
    with pq.ParquetFile(standing.path, pre_buffer=False, page_checksum_verification=True) as old:
        schema, groups = old.schema_arrow, old.metadata.num_row_groups
        codec = old.metadata.row_group(0).column(0).compression if groups and len(schema) else "SNAPPY"
        new = pa.Table.from_pylist(list(rows), schema=schema)
        with pq.ParquetWriter(to, schema, compression="NONE" if codec == "UNCOMPRESSED" else codec) as writer:
            for number in range(groups):
                writer.write_table(old.read_row_group(number))
            writer.write_table(new)
