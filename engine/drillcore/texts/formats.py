"""The table of text formats: which suffix names which reader, and what the reader knows of types.

Rows are streamed: one line, one CSV record or one slice of a Parquet row group is held at a time. What a row must hold
is checked in `columns`.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from drillcore.errors import TextError
from drillcore.system.bounds import problem_with
from drillcore.texts.others import line_for
from drillcore.texts.readers.lines import OnProblem, Row, TextFile, UnreadableError

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
DAMAGE = (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError)


@dataclass(frozen=True)
class Reader:
    """A row of the table.

    suffixes: endings of file names. function: `module:function`, called as function(file, wanted, on_problem) with a
    `TextFile`, the fields that are needed, and where problems go; yields `Row`s. is_typed: the format tells numbers
    from strings. has_columns: all rows have the same fields, so that a missing one is reported once, not for each row.
    is_compressible: .gz or .zst may follow the suffix. rules: part of the key under which rows are cached; increase it
    where the reader gives other rows for the same file.
    """

    suffixes: tuple[str, ...]
    function: str
    is_typed: bool
    has_columns: bool
    is_compressible: bool = True
    rules: int = 1


_HERE = "drillcore.texts.readers"
READERS = {
    "jsonl": Reader((".jsonl", ".ndjson"), f"{_HERE}.jsonl:read_jsonl", is_typed=True, has_columns=False),
    "csv": Reader((".csv",), f"{_HERE}.csv:read_csv", is_typed=False, has_columns=True),
    "tsv": Reader((".tsv",), f"{_HERE}.tsv:read_tsv", is_typed=False, has_columns=True, rules=2),
    "txt": Reader((".txt",), f"{_HERE}.plain:read_plain", is_typed=False, has_columns=True),
    "parquet": Reader(
        (".parquet",), f"{_HERE}.parquet:read_parquet", is_typed=True, has_columns=True, is_compressible=False
    ),
    "json": Reader((".json",), f"{_HERE}.json_array:read_json", is_typed=True, has_columns=False),
    "arrow": Reader(
        (".arrow", ".feather"), f"{_HERE}.arrow:read_arrow", is_typed=True, has_columns=True, is_compressible=False
    ),
}


@dataclass(frozen=True)
class Format:
    """How a file is written.

    kind: names a row of READERS. compression: a value of COMPRESSIONS, or empty. delimiter: what is between the fields
    where the job says so, or empty. encoding: of its characters. drops_blank: blank lines are rows to leave out.
    """

    kind: str
    compression: str = ""
    delimiter: str = field(default="", repr=False)
    encoding: str = field(default="utf-8", repr=False)
    drops_blank: bool = field(default=False, repr=False)

    @property
    def reader(self) -> Reader:
        """The row of the table."""
        return READERS[self.kind]


def format_of(path: Path) -> Format:
    """The format that a file's name asks for.

    Raises:
        TextError: the name has no known ending.

    >>> format_of(Path("reviews.jsonl.gz"))
    Format(kind='jsonl', compression='gzip')
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = COMPRESSIONS.get(suffixes[-1], "") if suffixes else ""
    if compression:
        suffixes.pop()
    for kind, reader in READERS.items():
        if suffixes and suffixes[-1] in reader.suffixes and (reader.is_compressible or not compression):
            return Format(kind, compression)
    if line := line_for(path):
        raise TextError(f"{path}: files of this kind are not read", hint=f"Convert it in Python: {line}")
    raise TextError(f"{path}: the end of the name does not say what kind of file this is", hint=_known_endings())


def _known_endings() -> str:
    def listed(readers: Iterator[Reader]) -> str:
        *others, last = [suffix for reader in readers for suffix in reader.suffixes]
        return f"{', '.join(others)} and {last}" if others else last

    compressible = listed(r for r in READERS.values() if r.is_compressible)
    plain = listed(r for r in READERS.values() if not r.is_compressible)
    return f"Known are {compressible}, each also with .gz or .zst after it, and {plain}; save a spreadsheet as .csv."


def read_rows(path: Path, kind: Format, wanted: Sequence[str], on_problem: OnProblem) -> Iterator[Row]:
    """Every row of a file, in order. Problems with a row or the whole file go to `on_problem`; nothing is raised.

    Fields other than `wanted`, `label` and what looks like it may be left out of the rows.
    """
    problem = problem_with(path)
    if problem:
        on_problem(None, problem)
        return
    try:
        file = TextFile(path, kind.compression, kind.delimiter, kind.encoding, kind.drops_blank)
        yield from _load(kind.reader)(file, wanted, on_problem)
    except UnreadableError as error:
        on_problem(error.line, str(error))
    except DAMAGE as error:
        on_problem(None, explain_damage(error, kind))


def _load(reader: Reader) -> Callable[[TextFile, Sequence[str], OnProblem], Iterator[Row]]:
    module, _, function = reader.function.partition(":")
    read: Callable[[TextFile, Sequence[str], OnProblem], Iterator[Row]]
    read = getattr(importlib.import_module(module), function)
    return read


def explain_damage(error: BaseException, kind: Format) -> str:
    """The message for an error that was raised while a file was read."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"is not a {kind.compression or kind.kind} file, or is damaged; make it again, or end its name in what it is"
