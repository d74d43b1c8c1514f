"""Columns of a dataset: the fields they come from, what each value must be, and the types of the kept columns."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from drillcore.job.choices import did_you_mean, nearest
from drillcore.job.inputs import Dataset
from drillcore.system.nearly import fold
from drillcore.texts.conversations import conversation
from drillcore.texts.readers.lines import MAX_LINE_BYTES, OnProblem, quoted
from drillcore.texts.readers.separators import SEPARATORS, remedy_for, separator_in

# Numbers as JSON writes them. Others, such as 007 and +1, may be names: they would not be written back as they were, so
# they stay strings.
INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
FRACTION = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+([eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)")
# Any number in digits, where the job says that there is one.
NUMERAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
INT64 = range(-(1 << 63), 1 << 63)
# A name that YAML takes as it is.
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# What fields of sentences are often called.
OFTEN_SENTENCES = frozenset(
    (
        "sentence",
        "sentences",
        "texts",
        "content",
        "body",
        "review",
        "comment",
        "tweet",
        "prompt",
        "question",
        "document",
    )
)
# Where a row has the text that a Jinja template writes from its fields; no file has a field of this name.
WRITTEN = "\0written"
# What the field of a split says of a row.
SIDES = ("train", "test")
EXACT_IN_FLOAT64 = range(-(1 << 53), (1 << 53) + 1)


@dataclass(frozen=True)
class Column:
    """A column of the rows.

    field: the field of the file that it is read from. convert: turns a value of that field into one of the column;
    raises ValueError with a message that continues the field's name. type: its pyarrow type. is_required: every row
    must have the field; where it need not, `convert` gets None for a row without it. remedy: what allows a row without
    it. setting: the dataset's field that names it.
    """

    field: str
    name: str
    convert: Callable[[Any], Any]
    type: Any
    is_required: bool = True
    remedy: str = ""
    setting: str = ""

    @property
    def called(self) -> str:
        """What messages call its field."""
        return "the text that `template` writes" if self.field == WRITTEN else f"field {quoted(self.field)}"


def fields_named(dataset: Dataset) -> list[str]:
    """The fields that every row must have.

    >>> fields_named(Dataset(name="d", path="a.csv", label="city", keep=("year",)))
    ['text', 'city', 'year']
    """
    label = dataset.label_field if dataset.label_is_named else None
    named = (
        dataset.messages or (dataset.text if dataset.prompt is None else None),
        label,
        *dataset.more_labels,
        dataset.group,
        dataset.expected_next,
        dataset.split_field,
        *dataset.keep,
    )
    return [field for field in named if field is not None]


def columns_of(dataset: Dataset, label: str | None, types: dict[str, Any]) -> list[Column]:
    """The columns in their fixed order, given the field of the labels and the types of the kept columns.

    types: may hold those of labels too, by their columns; strings by default.
    """
    columns = [Column(dataset.text, "text", _sentence, pa.string(), setting="text")]
    if dataset.messages is not None:
        convert = partial(conversation, system=dataset.system)
        columns = [Column(dataset.messages, "text", convert, pa.string(), setting="messages")]
    elif dataset.prompt is not None:
        columns = [Column(WRITTEN, "text", _sentence, pa.string(), setting="template")]
    if label is not None:
        columns.append(_column_of_labels(dataset, label, "label", types))
    if dataset.group is not None:
        columns.append(Column(dataset.group, "group", _category, pa.string(), setting="group"))
    if dataset.expected_next is not None:
        columns.append(
            Column(dataset.expected_next, "expected_next", _continuation, pa.string(), setting="expected_next")
        )
    columns += [_column_of_labels(dataset, name, name, types) for name in dataset.more_labels]
    kept = [name for name in dataset.keep if name != dataset.split_field]
    columns += [Column(k, k, _kept_of(types[k], dataset.missing), types[k], setting="keep") for k in kept]
    split = dataset.split_field
    return columns if split is None else [*columns, Column(split, split, _side, pa.string(), setting="split")]


def _column_of_labels(dataset: Dataset, field: str, name: str, types: Mapping[str, Any]) -> Column:
    """The column of a label. types: may hold its type, by the column's name; a string by default."""
    is_required, setting = dataset.unlabelled == "error", "labels" if dataset.labels else "label"
    is_number = types.get(name) == pa.float64()
    label_of = _label_of(dataset, *((_number_label, math.nan) if is_number else (_category, "")))
    type_ = pa.float64() if is_number else pa.string()
    return Column(field, name, label_of, type_, is_required, _remedy(dataset), setting)


def is_missing(value: Any, named: Sequence[str]) -> bool:
    """Whether a label stands for none: null, empty or blank, or one of the values that the job names.

    >>> is_missing(None, ()), is_missing(" ", ()), is_missing("NA", ()), is_missing("NA", ("NA",))
    (True, True, False, True)
    """
    return (isinstance(value, str) and value.isspace()) or _is_none(value, named) or value == ""


def _is_none(value: Any, named: Sequence[str]) -> bool:
    if isinstance(value, float) and math.isnan(value):
        return any(name.casefold() == "nan" for name in named)
    return value is None or (isinstance(value, str) and value in named)


def kind_of(value: Any, is_typed: bool, missing: Sequence[str]) -> str:
    """What a value needs of its kept column's type.

    One of "integer", "wide integer" (float64 could not hold it exactly), "fraction", "missing" and "other".
    is_typed: the format tells numbers from strings. Where it does not, a string that is written as a number counts as
    one, and an empty string is missing.
    """
    if _is_none(value, missing) or (value == "" and not is_typed):
        return "missing"
    if isinstance(value, str) and not is_typed:
        if INTEGER.fullmatch(value):
            value = int(value)
        elif FRACTION.fullmatch(value) and math.isfinite(float(value)):
            value = float(value)
    if isinstance(value, float):
        return "fraction"
    if isinstance(value, bool) or not isinstance(value, int) or value not in INT64:
        return "other"
    return "integer" if value in EXACT_IN_FLOAT64 else "wide integer"


def type_of(kinds: set[str]) -> Any:
    """The narrowest type that holds values of all these kinds exactly; a missing number is NaN, which float64 holds.

    >>> type_of({"integer"}), type_of({"integer", "missing"}), type_of({"integer", "other"})
    (DataType(int64), DataType(double), DataType(string))
    """
    numbers = kinds - {"missing"}
    inexact = {"fraction", "missing"} & kinds
    if "other" in kinds or not numbers or ("wide integer" in kinds and inexact):
        return pa.string()
    return pa.float64() if inexact else pa.int64()


def missing(
    columns: list[Column], row: dict[str, Any], line: int | None, on_problem: OnProblem, kind: str = ""
) -> bool:
    """Whether the row lacks a field; reports which. kind: of the file, where the row stands for all of it."""
    lacking = [column for column in columns if column.is_required and column.field not in row]
    if not lacking:
        return False
    names = [name for name in row if name != WRITTEN]
    present = ", ".join(map(quoted, names[:10])) + (", ..." if len(names) > 10 else "")
    remedies = "".join(f"; {column.remedy}" for column in lacking if column.remedy and line is not None)
    has = "there is" if line is not None else "the file has"
    message = f"no field {', '.join(quoted(column.field) for column in lacking)}; {has} {present or 'none'}"
    on_problem(line, f"{message}{_meant(lacking, row, line, kind)}{remedies}")
    return True


def _meant(lacking: Sequence[Column], row: Mapping[str, Any], line: int | None, kind: str) -> str:
    """The end of a message on fields that are not there: how the job or the file could be set right."""
    sign = separator_in(list(row))
    if sign and kind in ("csv", "tsv"):
        return f"; its fields are separated by {SEPARATORS[sign]}: {remedy_for(sign, kind)}"
    for column in lacking:
        names_one = line is None and column.setting not in ("labels", "template")
        if not names_one and (near := did_you_mean(column.field, list(row))):
            return near
        found = nearest(column.field, list(row)) or (_sentence_field(row) if column.setting == "text" else "")
        if names_one and found:
            value = found if PLAIN.fullmatch(found) else json.dumps(found)
            value = f"[{value}]" if column.setting == "keep" else value
            return f": set `{column.setting}: {value}`"
    return ""


def _sentence_field(row: Mapping[str, Any]) -> str:
    """The field that the sentence may be in: one that is often called so, or the only one; else empty."""
    named = [name for name in row if fold(name) in OFTEN_SENTENCES] if len(row) > 1 else list(row)
    return named[0] if len(named) == 1 else ""


def values_of(columns: list[Column], row: dict[str, Any], line: int, on_problem: OnProblem) -> list[Any]:
    """A row's values, one for each column; incomplete where a problem was reported."""
    if missing(columns, row, line, on_problem):
        return []
    values = []
    for column in columns:
        try:
            values.append(column.convert(row.get(column.field)))
        except ValueError as error:
            on_problem(line, f"{column.called} {error}")
    return values


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"is not a string but {describe(value)}")
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


def describe(value: Any) -> str:
    """What a value is, for a message.

    >>> describe([]), describe(None), describe(0.5)
    ('a list', 'null', 'a fraction')
    """
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


def _sentence(value: Any) -> str:
    """A value as a sentence, with what to do where there is none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"is {'null' if value is None else 'empty'}; `empty: drop` leaves such rows out")
    return as_sentence(value)


def _label_of(dataset: Dataset, label: Callable[[Any], Any], none: str | float) -> Callable[[Any], Any]:
    """Turns a value into a label; into one that stands for none where there is none and the job keeps such rows."""
    remedies = [] if dataset.label_is_named else ["; `label: null` ignores the field"]
    if label is _category and dataset.label_type == "classes":
        remedies.append("; `label_type: number` takes numbers")
    if label is _number_label and dataset.labels and dataset.label_type == "number":
        remedies.append("; `label_type: auto` decides for each of `labels`")

    def convert(value: Any) -> Any:
        if is_missing(value, dataset.missing):
            if dataset.unlabelled == "error":
                raise ValueError(f"is {'null' if value is None else 'empty'}; {_remedy(dataset)}")
            return none
        try:
            return label(value)
        except ValueError as error:
            raise ValueError(f"{error}{''.join(remedies)}") from None

    return convert


def _remedy(dataset: Dataset) -> str:
    """What lets a row without a label pass."""
    ignores = "" if dataset.label_is_named else ", `label: null` ignores the field"
    return f"`unlabelled: keep` or `drop` allows rows without a label{ignores}"


def _category(value: Any) -> str:
    """A label or a group. A whole number is the same label however a table of missing values writes it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool | int):
        return _written(value)
    if not isinstance(value, str):
        raise ValueError(f"must be a string, an integer or a boolean, and is {describe(value)}")
    return as_sentence(value)


def _number_label(value: Any) -> float:
    """A label that is a number; of a string, the number that it writes."""
    number = math.nan
    if isinstance(value, int | float) or (isinstance(value, str) and NUMERAL.fullmatch(value)):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    if isinstance(value, bool) or not math.isfinite(number):
        what = quoted(value) if isinstance(value, str) else describe(value)
        remedy = " (`missing: [nan]` makes it none)" if isinstance(value, float) and math.isnan(value) else ""
        raise ValueError(f"is {what}, and labels that are numbers need a finite one{remedy}")
    return number


def _side(value: Any) -> str:
    """Which side of a split a row is on."""
    if value not in SIDES:
        what = quoted(value) if isinstance(value, str) and value else "empty" if value == "" else describe(value)
        raise ValueError(f"is {what}; a split's rows are {' or '.join(SIDES)}")
    return str(value)


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
        raise ValueError(f"must be a string or a number to be kept, and is {describe(value)}")
    return _string(value)


def _kept_of(type_: Any, missing: Sequence[str]) -> Callable[[Any], Any]:
    """Turns a value into one of a kept column; a missing number into NaN."""
    if type_ == pa.string():
        return _kept_string
    if type_ == pa.int64():
        return lambda value: int(_number(value))
    return lambda value: math.nan if _is_none(value, missing) or value == "" else float(_number(value))


def _number(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        remedy = " (`missing: [nan]` makes it a missing one)" if math.isnan(value) else ""
        raise ValueError(f"is {value} in a column of numbers{remedy}")
    return value
