"""What a field of a job takes, in words, made from its type and bounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from drillcore.job.choices import OneOf
from drillcore.job.common import MOST

# Fields of a section that are named as examples.
EXAMPLES = 4


class Kind(NamedTuple):
    """A type, and the marks that bound its values."""

    type: Any
    marks: tuple[Any, ...] = ()

    def bound(self, name: str) -> Any:
        """A bound of the values, such as `ge` or `max_length`; None where there is none."""
        return next((getattr(mark, name) for mark in self.marks if hasattr(mark, name)), None)


def kind_of_field(field: FieldInfo) -> Kind:
    """The kind of a model's field."""
    return Kind(field.annotation, tuple(field.metadata))


def branches(kind: Kind) -> Iterator[Kind]:
    """The kinds that a value may be of, without null."""
    origin = get_origin(kind.type)
    if origin is Annotated:
        of, *marks = get_args(kind.type)
        inner = [m for mark in marks for m in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]
        yield from branches(Kind(of, (*inner, *kind.marks)))
    elif origin in (Union, UnionType):
        for member in get_args(kind.type):
            yield from branches(Kind(member))
    elif kind.type is not type(None):
        yield kind


def step(kind: Kind, part: str | int) -> Kind | None:
    """The kind of what a part of a place names within a value; None where it names nothing there."""
    for branch in branches(kind):
        origin = get_origin(branch.type)
        if isinstance(branch.type, type) and issubclass(branch.type, BaseModel):
            fields = branch.type.model_fields
            found = next((f for name, f in fields.items() if part in (f.alias or name, name)), None)
            if found is not None:
                return kind_of_field(found)
        elif origin is tuple and isinstance(part, int):
            items = get_args(branch.type)
            return Kind(items[0] if items[-1] is Ellipsis else items[min(part, len(items) - 1)])
        elif origin is dict and isinstance(part, str):
            return Kind(get_args(branch.type)[1])
    return None


def takes(kind: Kind) -> str:
    """What may stand in a field.

    >>> from drillcore.job.extract import Extract
    >>> takes(kind_of_field(Extract.model_fields["threads"]))
    'auto, or a whole number from 1 to 1,024'
    >>> takes(Kind(tuple[str, ...])), takes(Kind(Literal["a", "b", "c"]))
    ('a list of texts', 'a, b or c')
    """
    names, others = names_of(kind), [_one(branch) for branch in branches(kind) if not _names(branch)]
    if not others:
        return _either(names)
    return ", or ".join([", ".join(names), *others] if names else others)


def names_of(kind: Kind) -> list[str]:
    """The names that may stand in a field."""
    return [str(name) for branch in branches(kind) for name in _names(branch)]


def _names(kind: Kind) -> Sequence[Any]:
    table = next((mark for mark in kind.marks if isinstance(mark, OneOf)), None)
    if table is not None:
        return list(table.names)
    return get_args(kind.type) if get_origin(kind.type) is Literal else ()


def _one(kind: Kind) -> str:
    origin, items = get_origin(kind.type), get_args(kind.type)
    if isinstance(kind.type, type) and issubclass(kind.type, BaseModel):
        return str(getattr(kind.type, "TAKES", "")) or _fields(kind.type)
    if origin is tuple and items[-1] is not Ellipsis:
        return f"a list of {'two' if len(items) == 2 else len(items)} {_many(Kind(items[0]))}"
    if origin is tuple:
        return f"a list of {_many(Kind(items[0]))}"
    if origin is dict:
        return f"a mapping of names to {_many(Kind(items[1]))}"
    if kind.type is bool:
        return "true or false"
    if kind.type in (int, float):
        return f"a {'whole ' * (kind.type is int)}number{_range(kind)}"
    return f"text{_length(kind)}"


def _many(kind: Kind) -> str:
    """Several of a kind."""
    names, found = names_of(kind), list(branches(kind))
    if names:
        return f"names out of {', '.join(names)}"
    if len(found) > 1:
        types = {branch.type for branch in found}
        return "numbers and names" if types == {int, str} else "texts, numbers, true or false"
    (only,) = found
    if isinstance(only.type, type) and issubclass(only.type, BaseModel):
        return f"{only.type.__name__.lower()}s"
    if only.type in (int, float):
        return f"{'whole ' * (only.type is int)}numbers{_range(only)}"
    return "texts"


def _range(kind: Kind) -> str:
    low, high = kind.bound("ge"), kind.bound("le")
    if low is None:
        return ""
    return f" from {low:,} to {high:,}" if high not in (None, MOST) else f" of at least {low:,}"


def _length(kind: Kind) -> str:
    least, most = kind.bound("min_length"), kind.bound("max_length")
    if most is None:
        return ""
    return f" of {least} to {most:,} characters" if least else f" of at most {most:,} characters"


def _fields(kind: type[BaseModel]) -> str:
    names = [field.alias or name for name, field in kind.model_fields.items()]
    more = ", ..." if len(names) > EXAMPLES else ""
    return f"a mapping with fields such as {', '.join(names[:EXAMPLES])}{more}"


def _either(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
