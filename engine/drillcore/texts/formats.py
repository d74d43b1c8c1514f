"""Rows of a dataset's file: JSONL, CSV, TSV, plain text and Parquet, each row with the line it begins on.

Rows are streamed: one line, one CSV record or one slice of a Parquet row group is held at a time. What a row must
hold is the concern of `texts`.
"""

from __future__ import annotations

import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from drillcore.errors import TextError
from drillcore.texts.readers.csv import _csv, _tsv
from drillcore.texts.readers.jsonl import _jsonl
from drillcore.texts.readers.lines import (
    Line,
    Report,
    Row,
    UnreadableError,
    open_lines,
)
from drillcore.texts.readers.parquet import _parquet
from drillcore.texts.readers.plain import _text

KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".txt": "txt", ".parquet": "parquet"}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
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


LINE_READERS: dict[str, Callable[[Iterator[Line], Report], Iterator[Row]]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "tsv": _tsv,
    "txt": _text,
}
