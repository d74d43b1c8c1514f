"""Slices of Parquet row groups."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from drillcore.system.nearly import looks_like
from drillcore.texts.nested import heads_of
from drillcore.texts.readers.lines import (
    OnProblem,
    Row,
    TextFile,
    UnreadableError,
    named_twice,
    quoted,
)

PARQUET_READ_BYTES = 16 << 20
PARQUET_READ_ROWS = 8192
PARQUET_TYPES: tuple[Callable[[Any], bool], ...] = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary),
    *(pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null),
    # Conversations, and the tools of one.
    lambda of: (pa.types.is_list(of) or pa.types.is_large_list(of)) and pa.types.is_struct(of.value_type),
)


def read_parquet(file: TextFile, wanted: Sequence[str], on_problem: OnProblem) -> Iterator[Row]:
    """Rows with the fields of the columns that are wanted, numbered from 1."""
    with pq.ParquetFile(file.path, pre_buffer=False, page_checksum_verification=True) as table:
        names = table.schema_arrow.names
        columns, whole = columns_of_table(names, wanted)
        if columns is None:
            yield 1, dict.fromkeys(names)
            return
        number = 0
        for batch in table.iter_batches(_parquet_rows(table.metadata), columns=columns, use_threads=False):
            for row in rows_of_batch(batch, whole):
                number += 1
                yield number, row


def columns_of_table(names: Sequence[str], wanted: Sequence[str]) -> tuple[list[str] | None, set[str]]:
    """The columns to read, and those in which a name with dots leads on.

    No columns where some that are wanted are missing: saying which needs no values.

    Raises UnreadableError where one is named twice.
    """
    twice = named_twice([name for name in names if name in (*wanted, "label")])
    if twice is not None:
        raise UnreadableError(None, f"names the column {quoted(twice)} twice")
    inside = {next((head for head, _ in heads_of(f) if head in names), "") for f in wanted if f not in names}
    if "" in inside:
        return None, inside
    every = {*wanted, *inside, "label", "tools"}
    return [name for name in names if name in every or looks_like(name, "label")], inside


def rows_of_batch(batch: pa.RecordBatch, whole: Collection[str]) -> Iterator[dict[str, Any]]:
    """The rows of a batch, with values as Python objects. whole: columns to take whatever their type is."""
    columns = zip(batch.schema.names, batch.columns, strict=True)
    for cells in zip(*(_cells(column, name in whole) for name, column in columns), strict=True):
        yield dict(zip(batch.schema.names, cells, strict=True))


def _parquet_rows(metadata: Any) -> int:
    """Rows that take about PARQUET_READ_BYTES, at most PARQUET_READ_ROWS."""
    num_bytes: int = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    mean_bytes: int = max(1, num_bytes // max(1, metadata.num_rows))
    return max(1, min(PARQUET_READ_ROWS, PARQUET_READ_BYTES // mean_bytes))


def _cells(column: Any, is_whole: bool) -> list[Any]:
    """Values as Python objects; for types that no column takes (times, lists, ...) the type itself, for the message."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not is_whole and not any(is_type(column.type) for is_type in PARQUET_TYPES):
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
