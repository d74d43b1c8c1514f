"""Record batches of an Arrow IPC file, as Feather and `datasets` write them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from drillcore.texts.readers.lines import OnProblem, Row, TextFile
from drillcore.texts.readers.parquet import PARQUET_READ_ROWS, columns_of_table, rows_of_batch


def read_arrow(file: TextFile, wanted: Sequence[str], on_problem: OnProblem) -> Iterator[Row]:
    """Rows with the fields of the columns that are wanted, numbered from 1."""
    with pa.memory_map(str(file.path)) as mapped:
        batches = _opened(mapped)
        names = batches.schema.names
        columns, whole = columns_of_table(names, wanted)
        if columns is None:
            yield 1, dict.fromkeys(names)
            return
        number = 0
        for batch in _batches(batches):
            chosen = batch.select(columns)
            # A damaged file may hold offsets beyond its end.
            chosen.validate(full=True)
            for start in range(0, chosen.num_rows, PARQUET_READ_ROWS):
                for row in rows_of_batch(chosen.slice(start, PARQUET_READ_ROWS), whole):
                    number += 1
                    yield number, row


def _opened(mapped: Any) -> Any:
    """A reader of a file that can be read anywhere, or of a stream; raises pa.ArrowInvalid for anything else."""
    try:
        return pa.ipc.open_file(mapped)
    except pa.ArrowInvalid:
        mapped.seek(0)
        return pa.ipc.open_stream(mapped)


def _batches(reader: Any) -> Iterator[Any]:
    if isinstance(reader, pa.ipc.RecordBatchStreamReader):
        yield from reader
    else:
        yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
