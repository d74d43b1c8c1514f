"""One JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from drillcore.texts.readers.lines import (
    OnProblem,
    Row,
    TextFile,
    is_blank,
    named_twice,
    quoted,
)

# What the decoder says, in words of ours.
WORDS = {
    "Expecting value": "a value is missing",
    "Expecting property name enclosed in double quotes": "the name of a field is missing, in double quotes",
    "Expecting ',' delimiter": "a comma or a closing bracket is missing",
    "Expecting ':' delimiter": "a colon is missing",
    "Extra data": "more follows the object",
    "Unterminated string starting at": "a quote is opened and never closed",
    "Invalid control character at": "text holds a tab or another control character as it is, not as an escape",
    "Invalid \\escape": "a backslash begins no escape of JSON",
    "Invalid \\uXXXX escape": "a backslash begins no escape of JSON",
}
OTHERWISE = "it is damaged here"


def read_jsonl(file: TextFile, wanted: Sequence[str], on_problem: OnProblem) -> Iterator[Row]:
    """Rows with the fields of one JSON object a line."""
    decoder = json.JSONDecoder(object_pairs_hook=distinct)
    for number, line in file.without_blanks(file.lines(on_problem), is_blank, on_problem):
        fields = None
        if line is not None:
            try:
                fields = _object(decoder, line)
            except ValueError as error:
                on_problem(number, str(error))
        yield number, fields


def _object(decoder: json.JSONDecoder, line: str) -> dict[str, Any]:
    try:
        value = decoder.decode(line)
    except json.JSONDecodeError as error:
        if line.lstrip().startswith("["):
            raise ValueError("is not one JSON object: one a line is wanted, not an array") from None
        if line.strip() == "{":
            what = "is not one JSON object: a whole one on each line is wanted, not one over several lines"
            raise ValueError(what) from None
        raise ValueError(f"is not JSON: {WORDS.get(error.msg, OTHERWISE)} (column {error.colno})") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError as error:
        raise ValueError("holds a number too long to read" if "int_max_str" in str(error) else str(error)) from None
    if not isinstance(value, dict):
        raise ValueError(f"is not a JSON object but {json_type(value)}")
    return value


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The fields of an object; raises ValueError where one is named twice."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError(f"names the field {quoted(named_twice([name for name, _ in pairs]) or '')} twice")
    return fields


def json_type(value: object) -> str:
    """What a JSON value is, in words.

    >>> json_type([])
    'an array'
    """
    names = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")
