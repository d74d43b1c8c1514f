"""Reads the sentences, labels and kept columns of a dataset's file as record batches, never the whole file at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from drillcore.job.inputs import Dataset
from drillcore.texts.columns import Column, columns_of, fields_named, missing, values_of
from drillcore.texts.conversations import with_tools
from drillcore.texts.formats import Format, format_for, read_rows
from drillcore.texts.notes import Notes
from drillcore.texts.problems import Problems
from drillcore.texts.spans import places_wrong
from drillcore.texts.survey import Labels, Survey, survey, taken

BATCH_ROWS = 8192
BATCH_CHARACTERS = 4 << 20


def read_batches(
    path: Path, dataset: Dataset, problems: Problems, notes: Notes | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of a dataset, in order, in batches of at most 8,192 rows and about 4 million characters.

    Columns: `text` (string), then `label`, `group` and `expected_next` (string) where the dataset has them, then the
    kept ones (int64, float64 or string, decided over all rows that are read). A row without a label, where the dataset
    keeps it, has an empty one. Whatever is wrong with the file or a row is added to `problems`, and from then on no
    batch is yielded: check `problems` before using the batches. What is nearly right is added to `notes`.

    Raises:
        TextError: the file's name has no known ending.
    """
    kind = format_for(dataset, path)
    return _batches(path, kind, dataset, problems, Notes(dataset, kind.kind) if notes is None else notes)


def lines_of(path: Path, dataset: Dataset, wanted: Collection[int]) -> dict[int, int]:
    """The lines of the file that some rows stand in, given by their numbers."""
    kind, found, number = format_for(dataset, path), dict[int, int](), 0
    for line, row in taken(
        read_rows(path, kind, fields_named(dataset), lambda line, message: None), dataset, Labels(dataset)
    ):
        if row is not None:
            if number in wanted:
                found[number] = line
            number += 1
    return found


def _batches(path: Path, kind: Format, dataset: Dataset, problems: Problems, notes: Notes) -> Iterator[pa.RecordBatch]:
    on_problem = partial(problems.add, str(path))
    before = problems.count
    found = _survey(path, kind, dataset)
    columns = columns_of(dataset, found.label, found.types)
    first = found.first if kind.reader.has_columns else None
    if first is not None and missing(columns, first, None, on_problem, kind.kind):
        return
    if found.absent:
        on_problem(None, found.absent)
        return
    labels = Labels(dataset)
    rows: list[list[Any]] = []
    num_rows = num_characters = 0
    for line, row in taken(read_rows(path, kind, fields_named(dataset), on_problem), dataset, labels):
        if row is None:
            continue
        num_rows += 1
        if dataset.messages is not None:
            row = with_tools(row, dataset.messages)
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
        on_problem(None, "holds no sentence")
    notes.add([*labels.notes(), *found.notes])


def _survey(path: Path, kind: Format, dataset: Dataset) -> Survey:
    """What a first reading of the file tells; problems are reported when it is read again."""
    rows = read_rows(path, kind, fields_named(dataset), lambda line, message: None)
    return survey(rows, dataset, kind.reader.is_typed, kind.reader.has_columns)


def _record_batch(columns: list[Column], rows: list[list[Any]], notes: Notes) -> pa.RecordBatch:
    arrays = [pa.array(values, column.type) for column, values in zip(columns, zip(*rows, strict=True), strict=True)]
    batch = pa.record_batch(arrays, names=[column.name for column in columns])
    notes.see(batch)
    return batch
