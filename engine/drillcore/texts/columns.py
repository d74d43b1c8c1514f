"""Columns of a dataset: the fields they come from, what each value must be, and the types of the kept columns."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from drillcore.job.fields import Dataset
from drillcore.texts.readers.lines import MAX_LINE_BYTES, OnProblem, Row, quoted

# Numbers as JSON writes them. Others, such as 007 and +1, may be names: they would not be written back as they were, so
# they stay strings.
INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
FRACTION = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+([eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)")
INT64 = range(-(1 << 63), 1 << 63)
EXACT_IN_FLOAT64 = range(-(1 << 53), (1 << 53) + 1)


@dataclass(frozen=True)
class Column:
    """A column of the rows.

    field: the field of the file that it is read from. convert: turns a value of that field into one of the column;
    raises ValueError with a message that continues the field's name. type: its pyarrow type.
    """

    field: str
    name: str
    convert: Callable[[Any], Any]
    type: Any


def fields_named(dataset: Dataset) -> list[str]:
    """The fields that every row must have.

    >>> fields_named(Dataset(name="d", path="a.csv", label="city", keep=("year",)))
    ['text', 'city', 'year']
    """
    named = (dataset.text, dataset.label, dataset.group, dataset.expected_next, *dataset.keep)
    return [field for field in named if field is not None]


def columns_of(dataset: Dataset, first: dict[str, Any], types: dict[str, Any]) -> list[Column]:
    """The columns in their fixed order, given the first row and the types of the kept ones."""
    label = dataset.label
    if label is None and "label" in first and dataset.text != "label":
        label = "label"
    columns = [Column(dataset.text, "text", as_sentence, pa.string())]
    if label is not None:
        columns.append(Column(label, "label", _category, pa.string()))
    if dataset.group is not None:
        columns.append(Column(dataset.group, "group", _category, pa.string()))
    if dataset.expected_next is not None:
        columns.append(Column(dataset.expected_next, "expected_next", _continuation, pa.string()))
    return columns + [Column(name, name, KEPT[types[name]], types[name]) for name in dataset.keep]


def kept_types(rows: Iterable[Row], names: Iterable[str], is_typed: bool) -> dict[str, Any]:
    """Types of kept columns over all rows: int64 where all are integers, float64 where all are numbers, else string.

    is_typed: the format tells numbers from strings. Where it does not, a string that is written as a number counts as
    one, and an empty string has no say. Integers that float64 could not hold exactly make the column one of strings.

    >>> rows = [(1, {"year": "1999", "size": "2"}), (2, {"year": "2000", "size": "2.5"})]
    >>> kept_types(rows, ["year", "size"], is_typed=False)
    {'year': DataType(int64), 'size': DataType(double)}
    """
    kinds: dict[str, set[str]] = {name: set() for name in names}
    for _, row in rows:
        for name, kinds_of_column in kinds.items():
            if row is not None and name in row:
                kinds_of_column.add(_kind(row[name], is_typed))
    return {name: _type(kinds_of_column) for name, kinds_of_column in kinds.items()}


def _kind(value: Any, is_typed: bool) -> str:
    """What a value needs of its column's type: "integer", "wide integer", "fraction", "other", or empty for nothing."""
    if isinstance(value, str) and not is_typed:
        if not value:
            return ""
        if INTEGER.fullmatch(value):
            value = int(value)
        elif FRACTION.fullmatch(value) and math.isfinite(float(value)):
            value = float(value)
    if isinstance(value, float):
        return "fraction"
    if isinstance(value, bool) or not isinstance(value, int) or value not in INT64:
        return "other"
    return "integer" if value in EXACT_IN_FLOAT64 else "wide integer"


def _type(kinds: set[str]) -> Any:
    """The narrowest type that holds values of all these kinds exactly."""
    kinds = kinds - {""}
    if "other" in kinds or not kinds or kinds >= {"fraction", "wide integer"}:
        return pa.string()
    return pa.float64() if "fraction" in kinds else pa.int64()


def missing(columns: list[Column], row: dict[str, Any], line: int | None, on_problem: OnProblem) -> bool:
    """Whether the row lacks a field; reports which."""
    absent = [column.field for column in columns if column.field not in row]
    if absent:
        present = ", ".join(map(quoted, list(row)[:10])) + (", ..." if len(row) > 10 else "")
        on_problem(line, f"no field {', '.join(map(quoted, absent))}; there is {present or 'none'}")
    return bool(absent)


def values_of(columns: list[Column], row: dict[str, Any], line: int, on_problem: OnProblem) -> list[Any]:
    """A row's values, one for each column; incomplete where a problem was reported."""
    if "label" in row and all(column.field != "label" and column.name != "label" for column in columns):
        # The columns follow the first row: labels that begin later would be dropped silently.
        on_problem(line, "has a field `label`, and the first row has none: label every row or none")
    if missing(columns, row, line, on_problem):
        return []
    values = []
    for column in columns:
        try:
            values.append(column.convert(row[column.field]))
        except ValueError as error:
            on_problem(line, f"field {quoted(column.field)} {error}")
    return values


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"is not a string but {_described(value)}")
    if "\0" in value:
        raise ValueError("holds a NUL character")
    if len(value) > MAX_LINE_BYTES:
        raise ValueError(f"is longer than {MAX_LINE_BYTES:,} characters")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"holds half a surrogate pair, \\u{ord(value[error.start]):04x}; it cannot be written as UTF-8"
            ) from None
    return value


def _described(value: Any) -> str:
    if isinstance(value, float):
        return "a fraction" if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return "bytes (binary, or not UTF-8)"
    if isinstance(value, pa.DataType):
        return f"of the type {value}"
    names = {type(None): "null", bool: "true or false", int: "an integer", list: "a list", dict: "an object"}
    return names.get(type(value), f"a {type(value).__name__}")


def as_sentence(value: Any) -> str:
    """A value as a sentence; raises ValueError, with a message that goes on after a name, where it cannot be one.

    >>> as_sentence("Hello")
    'Hello'
    """
    text = _string(value)
    if not text or text.isspace():
        raise ValueError("is empty")
    return text


def _category(value: Any) -> str:
    """A label or a group."""
    if isinstance(value, bool | int):
        return _written(value)
    if not isinstance(value, str):
        raise ValueError(f"must be a string, an integer or a boolean, and is {_described(value)}")
    return as_sentence(value)


def _continuation(value: Any) -> str:
    text = _string(value)
    if not text:
        raise ValueError("is empty")
    return text


def _written(value: bool | int | float) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _kept_string(value: Any) -> str:
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return _written(value)
    if not isinstance(value, str):
        raise ValueError(f"must be a string or a number to be kept, and is {_described(value)}")
    return _string(value)


def _kept_integer(value: Any) -> int:
    return int(_number(value))


def _kept_float(value: Any) -> float:
    return float(_number(value))


def _number(value: Any) -> Any:
    if value == "" or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"is {value or 'empty'} in a column of numbers")
    return value


KEPT: dict[Any, Callable[[Any], Any]] = {
    pa.int64(): _kept_integer,
    pa.float64(): _kept_float,
    pa.string(): _kept_string,
}
