"""The coordinates of a dataset's sentences: text, label, token facts and kept columns, written piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from drillcore.runtime.preflight import Input
from drillcore.store.layout import COLUMN_CHUNK
from drillcore.store.writer import GroupWriter
from drillcore.system.files import digest
from drillcore.texts.rows import row_ids

TOKEN_COLUMNS = [("n_tokens", "int32"), ("last_token_id", "int32"), ("row_id", "string")]


def column_types(pair: Input) -> list[tuple[str, str]]:
    """Names and dtypes of all coordinates, in a fixed order."""
    schema = pair.rows.slice(0, 0).schema
    columns = [(f.name, _dtype(str(f.type))) for f in schema]
    return [*columns, *TOKEN_COLUMNS]


def _dtype(arrow: str) -> str:
    return {"double": "float64", "float64": "float64", "int64": "int64"}.get(arrow, "string")


def write_columns(writer: GroupWriter, pair: Input) -> None:
    """Write the coordinates unless the rows and tokens have not changed."""
    writer.write_columns(made_from(pair), _pieces(pair))


def made_from(pair: Input) -> str:
    """Digest of what the coordinates are made from: rows and tokens."""
    policy = pair.policy
    tokens = [policy.tokenizer, policy.template, policy.special_tokens, len(pair.tokens.ids_T)]
    return digest([pair.rows.digest, *tokens])


def _pieces(pair: Input) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (first sentence, columns) of one piece after the other, each as large as a chunk of the store."""
    num_rows = pair.rows.num_rows
    for start in range(0, num_rows, COLUMN_CHUNK):
        stop = min(start + COLUMN_CHUNK, num_rows)
        table = pair.rows.slice(start, stop)
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        tokens = pair.tokens.slice(start, stop)
        last = np.asarray(tokens.ids_T[tokens.offsets_N1[1:] - 1])
        pair.rows.release()
        tokens.release()
        yield (
            start,
            {
                "sentence": np.arange(start, stop),
                **columns,
                "n_tokens": tokens.lengths_N,
                "last_token_id": last,
                "row_id": row_ids(columns["text"]),
            },
        )
