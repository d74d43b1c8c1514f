"""Reads the sentences, labels and kept columns of a dataset's file as record batches, never the whole file at once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from drillcore.job.fields import Dataset
from drillcore.texts.columns import Column, columns_of, fields_named, kept_types, missing, values_of
from drillcore.texts.formats import Format, format_of, read_rows
from drillcore.texts.problems import Problems

BATCH_ROWS = 8192
BATCH_CHARACTERS = 4 << 20


def read_batches(path: Path, dataset: Dataset, problems: Problems) -> Iterator[pa.RecordBatch]:
    """The rows of a dataset, in order, in batches of at most 8,192 rows and about 4 million characters.

    Columns: `text` (string), then `label`, `group` and `expected_next` (string) where the dataset has them, then the
    kept ones (int64, float64 or string, decided over all rows that are read). Whatever is wrong with the file or a row
    is added to `problems`, and from then on no batch is yielded: check `problems` before using the batches.

    Raises:
        TextError: the file's name has no known ending.
    """
    kind = format_of(path)
    return _batches(path, kind, dataset, problems)


def _batches(path: Path, kind: Format, dataset: Dataset, problems: Problems) -> Iterator[pa.RecordBatch]:
    on_problem = partial(problems.add, str(path))
    before = problems.count
    types = _kept_types(path, kind, dataset)
    columns: list[Column] = []
    rows: list[list[Any]] = []
    num_characters = 0
    for line, row in islice(read_rows(path, kind, fields_named(dataset), on_problem), dataset.limit):
        if row is None:
            continue
        if not columns:
            columns = columns_of(dataset, row, types)
            if kind.reader.has_columns and missing(columns, row, None, on_problem):
                return
        values = values_of(columns, row, line, on_problem)
        if problems.count > before:
            continue
        rows.append(values)
        num_characters += sum(len(value) for value in values if isinstance(value, str))
        if len(rows) == BATCH_ROWS or num_characters >= BATCH_CHARACTERS:
            yield _record_batch(columns, rows)
            rows, num_characters = [], 0
    if problems.count == before and rows:
        yield _record_batch(columns, rows)
    elif problems.count == before and not columns:
        on_problem(None, "holds no sentence")


def _kept_types(path: Path, kind: Format, dataset: Dataset) -> dict[str, pa.DataType]:
    """Read the whole file once if columns are kept; problems are reported when it is read again."""
    if not dataset.keep:
        return {}
    rows = read_rows(path, kind, fields_named(dataset), lambda line, message: None)
    return kept_types(islice(rows, dataset.limit), dataset.keep, kind.reader.is_typed)


def _record_batch(columns: list[Column], rows: list[list[Any]]) -> pa.RecordBatch:
    arrays = [pa.array(values, column.type) for column, values in zip(columns, zip(*rows, strict=True), strict=True)]
    return pa.record_batch(arrays, names=[column.name for column in columns])
