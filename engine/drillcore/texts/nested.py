"""Fields inside of fields: `messages.0.content` where a row has no field of that very name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# At the end of a name: all that is inside of the field, whatever its type.
WHOLE = "."


def heads_of(field: str) -> Iterator[tuple[str, str]]:
    """A name with dots, cut in two at each of them, the longest beginning first.

    >>> list(heads_of("a.b.c"))
    [('a.b', 'c'), ('a', 'b.c')]
    """
    parts = field.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        yield ".".join(parts[:cut]), ".".join(parts[cut:])


def value_at(value: Any, field: str) -> Any:
    """What a name with dots leads to: names of objects, numbers of lists from 0, or from -1 at their end.

    What is inside of null is null. Raises LookupError where there is no such place.

    >>> value_at({"messages": [{"content": "Hello"}]}, "messages.-1.content")
    'Hello'
    """
    if value is None:
        return None
    if isinstance(value, Mapping):
        if field in value:
            return value[field]
        for head, rest in heads_of(field):
            if head in value:
                return value_at(value[head], rest)
    if isinstance(value, list):
        number, _, rest = field.partition(".")
        if number.removeprefix("-").isdecimal() and number.isascii():
            found = value[int(number)]
            return value_at(found, rest) if rest else found
    raise LookupError(field)


def with_nested(row: dict[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """A row, and what the wanted names lead to that are no fields of it."""
    found = dict(row)
    for field in wanted:
        name = field.removesuffix(WHOLE)
        if name not in row:
            try:
                found[name] = value_at(row, name)
            except LookupError:
                continue
    return found
