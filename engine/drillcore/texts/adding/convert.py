"""Puts new rows as the format of the dataset's file holds them, and says which cannot be put so."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from drillcore.job.choices import did_you_mean
from drillcore.texts.adding.given import NewRow
from drillcore.texts.adding.standing import Standing, kind_of_value
from drillcore.texts.columns import EXACT_IN_FLOAT64, FRACTION, INTEGER, describe
from drillcore.texts.problems import Problems
from drillcore.texts.readers.lines import quoted

# What a field of a format without quotes cannot hold.
BARRED = {"tsv": "\t\r\n", "txt": "\r\n"}


def converted(rows: Sequence[NewRow], standing: Standing, problems: Problems) -> list[dict[str, Any]]:
    """The rows as the reader of the dataset's file would give them; what cannot be written goes to `problems`."""
    refused, found, before = set[str](), list[dict[str, Any]](), problems.count
    of_text, of_value = _converters(standing)
    for row in rows:
        if row.source.called in refused:
            continue
        wrong = _other_fields(row, standing)
        if wrong:
            by_columns = row.source.has_columns
            refused |= {row.source.called} if by_columns else set()
            problems.add(row.source.called, None if by_columns else row.line, wrong)
            continue
        fields = {}
        for name in _in_order(row.fields, standing):
            try:
                fields[name] = (of_value if row.source.is_typed else of_text)(name, row.fields[name])
            except ValueError as error:
                problems.add(row.source.called, row.line, f"field {quoted(name)} {error}")
        found.append(fields)
    if problems.count == before and standing.schema is not None:
        return _as_columns(found, rows, standing, problems)
    return found


def exactly(value: Any) -> str:
    """A text that is equal for equal values of equal types, whatever the order of fields.

    >>> exactly({"a": 1, "b": None}) == exactly({"b": None, "a": 1}), exactly(1) == exactly(1.0)
    (True, False)
    """
    return json.dumps(value, sort_keys=True, default=repr)


def _other_fields(row: NewRow, standing: Standing) -> str:
    """What is wrong with the names of a row's fields; empty where they are those of the file."""
    if standing.names is None:
        return ""
    known, name = standing.names, standing.path.name
    if extra := [field for field in row.fields if field not in known]:
        near = did_you_mean(extra[0], [field for field in known if field not in row.fields])
        return f"has {_listed(extra)}, which {name} has not: leave {'it' if len(extra) == 1 else 'them'} out{near}"
    lacking = [field for field in known if field not in row.fields] if standing.kind.reader.has_columns else []
    return f"has no {_listed(lacking)}, which {name} has" if lacking else ""


def _listed(fields: Sequence[str]) -> str:
    named = ", ".join(quoted(field) for field in fields[:10])
    return f"{'field' if len(fields) == 1 else 'fields'} {named}{', ...' if len(fields) > 10 else ''}"


def _in_order(fields: Mapping[str, Any], standing: Standing) -> list[str]:
    known = [name for name in standing.names or () if name in fields]
    return known + [name for name in fields if name not in known]


_Convert = Callable[[str, Any], Any]


def _converters(standing: Standing) -> tuple[_Convert, _Convert]:
    """What turns a cell of a format without types, and a value of one with types, into a value for the file."""
    kind = standing.kind.kind
    if not standing.kind.reader.is_typed:
        barred = BARRED.get(kind, "")
        return (lambda name, cell: _cell(cell, kind, barred)), (lambda name, value: _cell(value, kind, barred))
    wanted = {name: _kind_of_column(name, standing) for name in standing.names or ()}

    def of_text(name: str, cell: Any) -> Any:
        return _parsed(cell, wanted.get(name, "text"))

    if standing.schema is not None:
        return of_text, lambda name, value: value
    return of_text, lambda name, value: _json_value(value)


def _kind_of_column(name: str, standing: Standing) -> str:
    """What the values of a field are, where they are all of one kind; otherwise text."""
    if standing.schema is None:
        kinds = standing.kinds.get(name, set()) - {"none"}
        return kinds.pop() if len(kinds) == 1 else "text"
    of = standing.schema.field(name).type
    if pa.types.is_boolean(of):
        return "boolean"
    return "number" if pa.types.is_integer(of) or pa.types.is_floating(of) else "text"


def _parsed(cell: str, kind: str) -> Any:
    """A cell of a file without types, as a value of a field of one with types."""
    if kind in ("number", "boolean") and not cell:
        return None
    if kind == "number":
        if INTEGER.fullmatch(cell):
            return int(cell)
        if FRACTION.fullmatch(cell):
            return float(cell)
        raise ValueError(f"is {quoted(cell)}, and the dataset's file holds numbers there")
    if kind == "boolean":
        if cell.lower() in ("true", "false"):
            return cell.lower() == "true"
        raise ValueError(f"is {quoted(cell)}, and the dataset's file holds true or false there")
    return cell


def _cell(value: Any, kind: str, barred: str) -> str:
    """A value as a file without types holds it: numbers as JSON writes them, nothing for null."""
    of, ending = kind_of_value(value), kind.upper() if kind != "txt" else "text"
    if of == "other" or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"is {describe(value)}, which a {ending} file cannot hold")
    if of == "text":
        if any(sign in value for sign in barred):
            signs = "a tab or a line end" if "\t" in barred else "a line end"
            raise ValueError(f"holds {signs}, which a {ending} file cannot hold")
        return str(value)
    if isinstance(value, float) and value.is_integer() and int(value) in EXACT_IN_FLOAT64:
        value = int(value)  # as it is a label, and as an integer among fractions is read
    return "" if value is None else json.dumps(value)


def _json_value(value: Any) -> Any:
    """A value that JSON has; raises ValueError for others."""
    if isinstance(value, Mapping):
        return {str(name): _json_value(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(inner) for inner in value]
    if kind_of_value(value) == "other":
        raise ValueError(f"is {describe(value)}, which a JSON file cannot hold")
    return value


def _as_columns(
    found: Sequence[dict[str, Any]], rows: Sequence[NewRow], standing: Standing, problems: Problems
) -> list[dict[str, Any]]:
    """Rows as the columns of a Parquet file give them back."""
    for row, fields in zip(rows, found, strict=True):
        for name, value in fields.items():
            of = standing.schema.field(name)
            try:
                held = pa.array([value], of.type).to_pylist()[0]
                if not _is_same(value, held) or (value is None and not of.nullable):
                    raise ValueError
            except (pa.ArrowException, ValueError, TypeError, OverflowError, NotImplementedError):
                shown = quoted(value) if isinstance(value, str) else describe(value)
                what = f"is {shown}, which a column of the type {of.type} cannot hold"
                problems.add(row.source.called, row.line, f"field {quoted(name)} {what}")
                continue
            fields[name] = held
    return list(found)


def _is_same(given: Any, held: Any) -> bool:
    """Whether a column gives back what it was given: a number may change its type, and an object gain nulls."""
    if isinstance(given, Mapping) and isinstance(held, Mapping):
        return all(_is_same(given.get(name), held.get(name)) for name in {*given, *held})
    if isinstance(given, list | tuple) and isinstance(held, list | tuple):
        return len(given) == len(held) and all(map(_is_same, given, held))
    if isinstance(given, float) and math.isnan(given):
        return isinstance(held, float) and math.isnan(held)
    return isinstance(given, bool) == isinstance(held, bool) and bool(given == held)
