"""Reads the sentences, labels and kept columns of a dataset's file as record batches, never the whole file at once."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from drillcore.job.inputs import Dataset
from drillcore.texts.columns import SIDES, Column, columns_of, fields_named, missing, values_of
from drillcore.texts.conversations import with_tools
from drillcore.texts.files import FileRows
from drillcore.texts.notes import Notes
from drillcore.texts.problems import Problems
from drillcore.texts.readers.lines import quoted
from drillcore.texts.spans import places_wrong
from drillcore.texts.survey import Labels, Survey, survey, taken

BATCH_ROWS = 8192
BATCH_CHARACTERS = 4 << 20


def read_batches(
    paths: Path | Sequence[Path], dataset: Dataset, problems: Problems, notes: Notes | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of a dataset's files, in order, in batches of at most 8,192 rows and about 4 million characters.

    Columns: `text` (string), then `label`, `group` and `expected_next` (string) where the dataset has them, then the
    kept ones (int64, float64 or string, decided over all rows that are read). A row without a label, where the dataset
    keeps it, has an empty one. Whatever is wrong with the file or a row is added to `problems`, and from then on no
    batch is yielded: check `problems` before using the batches. What is nearly right is added to `notes`.

    Raises:
        TextError: a file's name has no known ending.
    """
    files = FileRows([paths] if isinstance(paths, Path) else paths, dataset, problems)
    return _batches(files, dataset, Notes(dataset, files.kinds[0].kind) if notes is None else notes)


def lines_of(paths: Sequence[Path], dataset: Dataset, wanted: Collection[int]) -> dict[int, tuple[Path, int]]:
    """The files and lines that some rows stand in, given by their numbers."""
    files, found, number = FileRows(paths, dataset, Problems()), dict[int, tuple[Path, int]](), 0
    for line, row in taken(files.rows(fields_named(dataset)), dataset, Labels(dataset)):
        if row is not None:
            if number in wanted:
                found[number] = files.file, line
            number += 1
    return found


def digest_of_places(paths: Sequence[Path], dataset: Dataset) -> str:
    """SHA-256 (hex) of the files and lines of the rows that a dataset takes: equal where it takes the same rows."""
    files, places = FileRows(paths, dataset, Problems()), hashlib.sha256()
    for line, row in taken(files.rows(fields_named(dataset)), dataset, Labels(dataset)):
        if row is not None:
            places.update(f"{files.file}:{line}\n".encode())
    return places.hexdigest()


def _batches(files: FileRows, dataset: Dataset, notes: Notes) -> Iterator[pa.RecordBatch]:
    problems, on_problem = files.problems, files.add
    before = problems.count
    found = _survey(files, dataset)
    columns = columns_of(dataset, found.label, found.types)
    if found.first is not None and _lacks(columns, found.first, files, dataset, found):
        return
    if found.absent:
        on_problem(None, found.absent)
        return
    labels = Labels(dataset)
    at_first: Path | None = files.paths[0]
    rows: list[list[Any]] = []
    num_rows = num_characters = 0
    split, sides = dataset.split_field, set[str]()
    for line, row in taken(files.rows(fields_named(dataset)), dataset, labels):
        if row is None:
            continue
        if files.file != at_first:
            at_first = files.file
            if _lacks(columns, row, files, dataset, found):
                files.skips = True
                continue
        num_rows += 1
        if dataset.messages is not None:
            row = with_tools(row, dataset.messages)
        if split is not None:
            sides.add(str(row.get(split)))
        values = values_of(columns, row, line, on_problem)
        if len(values) == len(columns):
            for problem in places_wrong(dataset, columns, values):
                on_problem(line, problem)
        if problems.count > before:
            continue
        rows.append(values)
        num_characters += sum(len(value) for value in values if isinstance(value, str))
        if len(rows) == BATCH_ROWS or num_characters >= BATCH_CHARACTERS:
            yield _record_batch(columns, rows, notes)
            rows, num_characters = [], 0
    if problems.count == before and rows:
        yield _record_batch(columns, rows, notes)
    elif problems.count == before and not num_rows:
        dropped = ", in which no row has all of its labels (`unlabelled: drop`)"
        on_problem(None, f"holds no sentence{dropped if labels.more and labels.num_rows else ''}")
    if num_rows:
        notes.add(f"{path.name} holds no row" for path in files.empty)
    if problems.count == before and split is not None and (gone := [s for s in SIDES if s not in sides]):
        on_problem(None, f"no row is {gone[0]} in the field {quoted(split)}: a split needs rows of both kinds")
    notes.add([*labels.notes(), *found.notes])


def _survey(files: FileRows, dataset: Dataset) -> Survey:
    """What a first reading of the files tells; problems are reported when they are read again."""
    rows, reader = FileRows(files.paths, dataset, Problems()).rows(fields_named(dataset)), files.kinds[0].reader
    return survey(rows, dataset, reader.is_typed, reader.has_columns)


def _lacks(columns: list[Column], first: dict[str, Any], files: FileRows, dataset: Dataset, found: Survey) -> bool:
    """Whether a file, given its first row, lacks a field that all its rows must have; reports which."""
    kind = files.kinds[0]
    if not kind.reader.has_columns:
        return False
    if missing(columns, first, None, files.add, kind.kind):
        return True
    name = dataset.label_field
    if name is None or dataset.label_is_named or found.first is None or (name in first) == (name in found.first):
        return False
    has, other = ("has a", "has none") if name in first else ("has no", "has one")
    remedy = f"`label: {name}` names it and `label: null` ignores it"
    files.add(None, f"{has} field {quoted(name)}, and {files.paths[0].name} {other}: {remedy}")
    return True


def _record_batch(columns: list[Column], rows: list[list[Any]], notes: Notes) -> pa.RecordBatch:
    arrays = [pa.array(values, column.type) for column, values in zip(columns, zip(*rows, strict=True), strict=True)]
    batch = pa.record_batch(arrays, names=[column.name for column in columns])
    notes.see(batch)
    return batch
