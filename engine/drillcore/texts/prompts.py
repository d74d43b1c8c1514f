"""Texts that a Jinja template writes from the fields of a row."""

from __future__ import annotations

import math
import re
import traceback
from pathlib import Path
from typing import Any

import pyarrow as pa

from drillcore.errors import TextError
from drillcore.job.inputs import Dataset
from drillcore.job.prompts import BYTES, ROW, SECONDS, Null, NullError, prompt_of
from drillcore.system.bounds import BeyondBounds, bounded
from drillcore.texts.columns import WRITTEN, Column, describe, missing
from drillcore.texts.readers.lines import OnProblem, quoted

RULES = 1
"""Increase this whenever the same row and template would give another text."""
# How Python shows an object that has no text of its own; the place in memory is another one each time.
ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")


class Writer:
    """Writes the text of each row of a dataset that has a Jinja template.

    >>> writer = Writer(Dataset(name="d", path="a.csv", template="{{ question }} {{ answer or '(none)' }}"))
    >>> writer.fill({"question": "Who went?", "answer": None}, Path("a.csv"), 2, print)[WRITTEN]
    'Who went? (none)'
    """

    def __init__(self, dataset: Dataset) -> None:
        self._prompt, self._drops = prompt_of(dataset.prompt or ""), dataset.empty == "drop"
        self._called = {field: _called(field) for field in self._prompt.fields}
        name = dataset.name.partition("~")[2]
        self._name = f"templates.{name}" if name else "template"

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that the template names."""
        return self._prompt.fields

    def lacks(self, row: dict[str, Any], on_problem: OnProblem, kind: str) -> bool:
        """Whether a file of columns, given its first row, lacks a field of the template; reports which."""
        return missing([_column(field) for field in self._prompt.fields], row, None, on_problem, kind)

    def fill(self, row: dict[str, Any], file: Path, line: int, on_problem: OnProblem) -> dict[str, Any] | None:
        """The row with the text that the template writes, null where a value of it is and such rows are left out.

        None where a value is null or absent: that was reported. Raises TextError where the template itself fails, or
        takes too much.
        """
        from jinja2 import UndefinedError

        name = self._name
        try:
            values = {field: _value(row[field], called) for field, called in self._called.items() if field in row}
            with bounded(SECONDS, BYTES):
                text = self._prompt.template.render({**values, ROW: values})
            self._refuse_addresses(text, row)
            return {**row, WRITTEN: text}
        except BeyondBounds as beyond:
            hint = "Look for a loop that does not end, or for a text that grows."
            raise TextError(f"{file}:{line}: {name}: {beyond} to be filled", hint=hint) from None
        except NullError as error:
            if self._drops:
                return {**row, WRITTEN: None}
            on_problem(line, f"{name}: {_null(error)}; `empty: drop` leaves such rows out")
        except UndefinedError as error:
            meant = [
                f for f in self._prompt.fields if f"'{f}' is undefined" in str(error) or f"no `{f}` in" in str(error)
            ]
            absent = [_column(field) for field in meant if field not in row]
            if not (absent and missing(absent, row, line, on_problem)):
                on_problem(line, f"{name}{_line(self._prompt.source, error)}: {error}")
        except Exception as error:  # whatever the template raises or stumbles over
            what = str(error).rstrip(".") or type(error).__name__
            raise TextError(f"{file}:{line}: {name}{_line(self._prompt.source, error)}: {what}", hint=HINT) from None
        return None

    def _refuse_addresses(self, text: str, row: dict[str, Any]) -> None:
        """Raise ValueError for the place of an object in memory, which a `~` or a filter has made text of."""
        found = ADDRESS.findall(text)
        known = str(row) if found else ""
        for address in found:
            if address not in known:
                shown = quoted(address.partition(" at 0x")[0].removeprefix("<"))
                raise ValueError(f"writes the {shown}, which is no text: `| list` or ( ) give what it stands for")


HINT = "A template reads the fields of its row and writes text; docs/texts.md says what it can do."


def _column(field: str) -> Column:
    """A field of a template, as the columns that a row must have."""
    remedy = f"`{{{{ {_called(field)} | default('') }}}}` allows rows without it"
    return Column(field, field, str, pa.string(), remedy=remedy, setting="template")


def _called(field: str) -> str:
    """A field as a template names it."""
    return field if field.isidentifier() else f"{ROW}[{field!r}]"


def _value(value: Any, path: str) -> Any:
    """A value as the template sees it: null and NaN cannot be written by mistake."""
    if isinstance(value, str):
        return value
    if value is None:
        return Null(path, "null")
    if isinstance(value, float) and math.isnan(value):
        return Null(path, "NaN")
    if isinstance(value, list):
        return [_value(item, f"{path}[{number}]") for number, item in enumerate(value)]
    if isinstance(value, dict):
        return {name: _value(item, _inside(path, name)) for name, item in value.items()}
    if isinstance(value, bytes | pa.DataType):
        raise ValueError(f"the field {quoted(path)} is {describe(value)}")
    return value


def _inside(path: str, name: str) -> str:
    return f"{path}.{name}" if name.isidentifier() else f"{path}[{name!r}]"


def _null(error: NullError) -> str:
    if not error.path:
        return f"a value that it writes is {error.what}"
    return f"the field {quoted(error.path)} is {error.what}; `{{{{ {error.path} or '' }}}}` writes nothing there"


def _line(source: str, error: BaseException) -> str:
    """Where a template fails, if it has several lines."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename in ("<template>", "<unknown>")]
    return f", line {lines[-1]}" if lines and "\n" in source.strip() else ""
