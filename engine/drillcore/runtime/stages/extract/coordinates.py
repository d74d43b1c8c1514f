"""The coordinates of a dataset's sentences: text, label, token facts and kept columns, written piece by piece."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.errors import DamageError
from drillcore.runtime.continuing import around_of
from drillcore.runtime.preflight import Input
from drillcore.store.layout import COLUMN_CHUNK, read_array
from drillcore.store.writer import GroupWriter
from drillcore.system.files import digest
from drillcore.texts.conversations import messages_of
from drillcore.texts.rows import row_ids
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.tokenizer import Tokenizer

TOKEN_COLUMNS = [("n_tokens", "int32"), ("last_token_id", "int32"), ("row_id", "string")]


def column_types(pair: Input) -> list[tuple[str, str]]:
    """Names and dtypes of all coordinates, in a fixed order."""
    schema = pair.rows.slice(0, 0).schema
    columns = [(f.name, _dtype(str(f.type))) for f in schema]
    columns += [("rendered", "string")] if pair.dataset.messages is not None else []
    if pair.placed is None:
        return [*columns, *TOKEN_COLUMNS]
    several = pair.placed.position.is_ragged
    numbers = [("row_size", "int64")] if several else []
    roles = [("role", "string")] if pair.dataset.position.turns is not None else []
    return [*columns, *TOKEN_COLUMNS, *numbers, *pair.placed.column_types(), *roles]


def _dtype(arrow: str) -> str:
    return {"double": "float64", "float64": "float64", "int64": "int64"}.get(arrow, "string")


def write_columns(writer: GroupWriter, pair: Input, tokenizer: Tokenizer) -> None:
    """Write the coordinates unless the rows and tokens have not changed. tokenizer: of the pair's model."""
    # Older versions left out the tokens themselves: their columns stay where they hold what they must.
    if writer.columns_made_from() != former_made_from(pair) or not _holds(writer, _token_facts(pair.tokens)):
        writer.write_columns(made_from(pair), _pieces(pair, tokenizer), pair.dataset.more_labels)


def made_from(pair: Input) -> str:
    """Digest of what the coordinates are made from: rows, and the length and last token of each sentence."""
    facts = _token_facts(pair.tokens).values()
    placed = [] if pair.placed is None else [pair.placed.digest()]
    return digest(
        [pair.rows.digest, *placed, [hashlib.sha256(values.astype("<i8").tobytes()).hexdigest() for values in facts]]
    )


def former_made_from(pair: Input) -> str:
    """The digest of older versions, which held the token policy and the number of tokens instead of the tokens."""
    policy = pair.policy
    tokens = [policy.tokenizer, policy.template, policy.special_tokens, len(pair.tokens.ids_T)]
    return digest([pair.rows.digest, *tokens])


def _token_facts(tokens: Sequences) -> dict[str, NDArray[np.integer[Any]]]:
    """The columns that the tokens decide, each [N]; no sentence is without a token."""
    last_N = np.asarray(tokens.ids_T[tokens.offsets_N1[1:] - 1])
    lengths_N = tokens.lengths_N
    tokens.release()
    return {"n_tokens": lengths_N, "last_token_id": last_N}


def _holds(writer: GroupWriter, facts: dict[str, NDArray[np.integer[Any]]]) -> bool:
    """Whether the stored columns have these values."""
    try:
        return all(np.array_equal(read_array(writer.group, name), values) for name, values in facts.items())
    except DamageError:
        return False


def _pieces(pair: Input, tokenizer: Tokenizer) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (first sentence, columns) of one piece after the other, each as large as a chunk of the store.

    Of groups whose sentences have any number of rows, the columns of rows come as (first row, columns) between them.
    """
    num_rows, placed, first_row = pair.rows.num_rows, pair.placed, 0
    several = placed is not None and placed.position.is_ragged
    for start in range(0, num_rows, COLUMN_CHUNK):
        stop = min(start + COLUMN_CHUNK, num_rows)
        table = pair.rows.slice(start, stop)
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        facts: dict[str, Any] = {**_token_facts(pair.tokens.slice(start, stop))}
        found: dict[str, Any] = {} if placed is None else {**placed.columns(start, stop)}
        if placed is not None and several:
            size_N = placed.counts(start, stop)
            rows = np.arange(first_row, first_row + size_N.sum())
            if len(rows):
                sentence = {"sentence": np.repeat(np.arange(start, stop), size_N)}
                if pair.dataset.position.turns is not None:
                    found["role"] = _roles(columns["text"], sentence["sentence"] - start, found["message"])
                yield first_row, {"row": rows, **sentence, **found}
            first_row += len(rows)
            facts["row_size"], found = size_N, {}
        else:
            facts["sentence"] = np.arange(start, stop)
        if pair.dataset.messages is not None:
            facts["rendered"] = list(tokenizer.rendered(columns["text"], around_of(pair.dataset)))
        pair.rows.release()
        yield (
            start,
            {
                **columns,
                **facts,
                "row_id": row_ids(columns["text"]),
                **found,
            },
        )


def _roles(texts: list[str], sentence_R: NDArray[np.int64], message_R: NDArray[np.int64]) -> list[str]:
    """The role of each turn of some conversations."""
    roles = [[str(message["role"]) for message in messages_of(text)[0]] for text in texts]
    return [roles[n][m] for n, m in zip(sentence_R.tolist(), message_R.tolist(), strict=True)]
