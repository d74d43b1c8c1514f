"""The rows to add, with all of their fields, and the files that they are read from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from drillcore.job.inputs import Dataset
from drillcore.system.bounds import problem_with
from drillcore.texts.formats import DAMAGE, Format, format_of, read_rows
from drillcore.texts.nested import WHOLE
from drillcore.texts.problems import Problems
from drillcore.texts.readers.csv import records_of
from drillcore.texts.readers.lines import OnProblem, Row, TextFile, UnreadableError, named_twice, open_lines, quoted
from drillcore.texts.readers.separators import SEPARATORS, separator_in

# Formats whose characters are written in the encoding that the job names.
IN_ENCODING = ("csv", "tsv", "jsonl", "txt")
# A field of no file: asking for it gives the names of all columns.
NO_FIELD = "\0"


@dataclass(frozen=True)
class Source:
    """Where rows come from. called: in messages. is_typed, has_columns: as for a `Reader`."""

    called: str
    is_typed: bool = True
    has_columns: bool = False


@dataclass(frozen=True)
class NewRow:
    """A row to add. line: that it begins on, or its number; None where its source says it all."""

    source: Source
    line: int | None
    fields: dict[str, Any]


def every_row(path: Path, kind: Format, on_problem: OnProblem) -> Iterator[Row]:
    """The rows of a file with all of their fields, whatever their types; problems go to `on_problem`."""
    yield from read_rows(path, kind, [name + WHOLE for name in columns_in(path, kind)], on_problem)


def columns_in(path: Path, kind: Format) -> list[str]:
    """The columns of a Parquet or Arrow file, and none of others; of one that cannot be read neither."""
    if kind.kind not in ("parquet", "arrow"):
        return []
    _, names = next(read_rows(path, kind, (NO_FIELD,), lambda line, what: None), (0, None))
    return list(names or ())


def read_files(
    files: Sequence[Path], dataset: Dataset, names: Collection[str] | None, problems: Problems
) -> list[NewRow]:
    """The rows of files of any format, in order. dataset: that they are added to. names: its fields, None for any.

    Raises TextError where a file's name has no known ending.
    """
    found = list[NewRow]()
    for file in files:
        kind = format_of(file)
        if problem := problem_with(file):
            problems.add(str(file), None, problem)
            continue
        source = Source(str(file), kind.reader.is_typed, kind.reader.has_columns)

        def add(line: int | None, what: str, source: Source = source) -> None:
            problems.add(source.called, line, what)

        twice = named_twice(columns_in(file, kind))
        if twice is not None:
            add(None, f"names the column {quoted(twice)} twice")
            continue
        with suppress(*DAMAGE):  # its rows say so
            kind = _as_written(file, kind, dataset, names)
        kind = replace(kind, drops_blank=dataset.empty == "drop")
        before = len(found)
        for line, row in every_row(file, kind, add):
            if row is not None:
                found.append(NewRow(source, line, row))
        if len(found) == before and not problems.count:
            add(None, "holds no row to add")
    return found


def _as_written(file: Path, kind: Format, dataset: Dataset, names: Collection[str] | None) -> Format:
    """The format of a file of new rows with its encoding and delimiter, which need not be those of the dataset."""
    if kind.kind in IN_ENCODING and dataset.encoding != "utf-8":
        kind = replace(kind, encoding=_encoding(file, kind, dataset.encoding))
    if kind.kind != "csv":
        return kind
    own = "\t" if dataset.delimiter == "tab" else dataset.delimiter or ""
    for sign in (own, "", *SEPARATORS):
        header = header_of(file, replace(kind, delimiter=sign))
        if {*header} == {*names} if names is not None else not separator_in(header):
            return replace(kind, delimiter=sign)
    return replace(kind, delimiter=own)


def _encoding(file: Path, kind: Format, encoding: str) -> str:
    """UTF-8 where the file is that and no plain ASCII; otherwise the encoding of the dataset."""
    wrong, is_plain = [], True
    try:
        for _, line in open_lines(file, kind.compression, lambda line, what: wrong.append(what)):
            is_plain = is_plain and line.isascii()
    except UnreadableError:
        return encoding
    return encoding if wrong or is_plain else "utf-8"


def header_of(file: Path, kind: Format) -> list[str]:
    """The names in the header of a CSV or TSV file, as they stand there; none where it cannot be read.

    Raises OSError, EOFError or zlib.error where the file cannot be read, or is damaged.
    """
    lines = TextFile(file, kind.compression, kind.delimiter, kind.encoding).lines(lambda line, what: None)
    try:
        if kind.kind == "tsv":
            _, line = next(lines, (0, ""))
            return line.removesuffix("\r").split("\t") if line else []
        _, record = next(records_of(lines, kind.delimiter), (0, []))
    except UnreadableError:
        return []
    return record if isinstance(record, list) else []
