"""Fields that hold one name of a table, and what a message says of a wrong name or value."""

from __future__ import annotations

import datetime
import difflib
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from drillcore.system.nearly import fold, shown

# Characters of a name that may be another one misspelt.
LONGEST = 200


# Marks a field whose names include on and off, which YAML reads as true and false unless they are quoted.
ON_OFF = BeforeValidator(lambda value: ("off", "on")[value] if isinstance(value, bool) else value)


@dataclass(frozen=True, eq=False)
class OneOf:
    """Marks a field that holds one name of a table in `system.tables`; editors get the names from the schema.

    The table is read when a value is checked, so a row that is added later counts.

    >>> from typing import Annotated
    >>> from pydantic import TypeAdapter
    >>> TypeAdapter(Annotated[str, OneOf(["local", "ray"])]).validate_python("ray")
    'ray'
    """

    names: Sequence[str]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.names)}

    def _check(self, name: object) -> str:
        if isinstance(name, str) and name in self.names:
            return name
        near = did_you_mean(name, self.names)
        raise ValueError(f"{shortened(name)} is not one of {', '.join(self.names)}{near}")


def did_you_mean(name: object, names: Sequence[str], *, cutoff: float = 0.5) -> str:
    """The end of a message that names the nearest right name; empty where none is near.

    cutoff: how like another name has to be, from 0 to 1.

    >>> did_you_mean("purty", ["probe", "purity"])
    '; did you mean `purity`?'
    """
    near = nearest(name, names, cutoff=cutoff)
    return f"; did you mean {shown(near)}?" if near else ""


def nearest(name: object, names: Sequence[str], *, cutoff: float = 0.5) -> str:
    """The name that another one is nearest to; empty where none is near.

    >>> nearest("Labels", ["text", "label"])
    'label'
    """
    if not isinstance(name, str) or len(name) > LONGEST:
        return ""
    folded = {fold(known): known for known in names}
    near = difflib.get_close_matches(fold(name), folded, n=1, cutoff=cutoff)
    return folded[near[0]] if near else ""


def shortened(value: object) -> str:
    """The beginning of a value, as it might stand in a job file: with aliases a few lines can describe a huge one.

    >>> shortened(["a", ["b", ["c", ["d"]]]]), shortened(None), shortened({"no": False})
    ("['a', ['b', [...]]]", 'null', "{'no': false}")
    """
    try:
        return _AS_WRITTEN.repr(value)
    except ValueError:  # Python does not print a number of more than 4,300 digits
        return "a very long number"


class _AsWritten(reprlib.Repr):
    """Values in the words of YAML where Python has others."""

    def repr_NoneType(self, value: None, level: int) -> str:
        return "null"

    def repr_bool(self, value: bool, level: int) -> str:
        return "true" if value else "false"

    def repr_date(self, value: datetime.date, level: int) -> str:
        return value.isoformat()

    def repr_tuple(self, value: tuple[Any, ...], level: int) -> str:
        return self.repr_list(list(value), level)

    repr_datetime = repr_date


_AS_WRITTEN = _AsWritten()
_AS_WRITTEN.maxlevel = 2
_AS_WRITTEN.maxstring = 60
_AS_WRITTEN.maxother = 60
