"""Texts, labels and fields as a notebook holds them: lists, and columns of pandas, pyarrow, polars or NumPy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sized
from typing import Any

from drillcore.errors import TextError
from drillcore.texts.columns import as_sentence


def list_of_texts(texts: object) -> list[str]:
    """The texts that a caller passed: one string is one text; otherwise a sequence of strings, in its order.

    Columns of pandas, pyarrow and polars and NumPy arrays of strings are sequences of strings.

    Raises:
        TypeError: something else was passed, or one item is no string; says what to pass.
        TextError: there is no text, or one is empty or cannot be stored.

    >>> list_of_texts("Hello"), list_of_texts(("a", "b"))
    (['Hello'], ['a', 'b'])
    """
    if isinstance(texts, str):
        return [_checked(texts, "the text")]
    remedy = _remedy(texts)
    if remedy:
        raise TypeError(f"texts must be a string or a sequence of strings, not {_kind(texts)}: {remedy}")
    items = _items(texts)
    for place, item in enumerate(items):
        if not isinstance(item, str):
            raise TypeError(f"texts[{place}] is {_kind(item)}, not a string: pass one string for each text")
    if not items:
        raise TextError("there is no text to extract", hint="Pass at least one string.")
    return [_checked(item, f"texts[{place}]") for place, item in enumerate(items)]


def column(name: str, values: object, count: int) -> list[Any]:
    """Values beside the texts, one for each; raises TypeError or TextError where that does not hold.

    >>> column("labels", ["a", "b"], 2)
    ['a', 'b']
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Sized) or getattr(values, "ndim", 1) != 1:
        raise TypeError(f"{name} must be a list with a value for each text, not {_kind(values)}")
    if len(values) != count:
        raise TextError(f"{name} has {len(values)} values; there are {count} texts", hint="Give one value for each.")
    return [_value(item) for item in _items(values)]


def refuse_other_index(texts: object, beside: Mapping[str, object]) -> None:
    """Raise TextError where columns of pandas have other indexes: they are taken by place, not by index."""
    own = _index(texts)
    for name, values in beside.items():
        other = _index(values)
        if own is not None and other is not None and not own.equals(other):
            raise TextError(
                f"{name} and texts are columns of pandas with different indexes",
                hint="Take both from one table, or pass lists, which belong together by their order.",
            )


def _index(values: Any) -> Any:
    """The index of a column of pandas; None for everything else."""
    index = getattr(values, "index", None)
    return index if hasattr(index, "equals") else None


def _items(values: Any) -> list[Any]:
    # Those of pyarrow are objects of its own.
    return list(values.to_pylist() if hasattr(values, "to_pylist") else values)


def _value(item: Any) -> Any:
    """A value as Python's own; None where it stands for none."""
    if isinstance(item, str):
        return str.__str__(item)
    if hasattr(item, "item") and getattr(item, "ndim", 0) == 0:
        item = item.item()
    is_none = item is None or type(item).__name__ == "NAType" or (isinstance(item, float) and math.isnan(item))
    return None if is_none else item


def _checked(text: str, where: str) -> str:
    try:
        # An enum of strings, or a string of NumPy, has a str() of its own.
        return as_sentence(str.__str__(text))
    except ValueError as error:
        raise TextError(f"{where} {error}", hint="Leave it out or replace it; nothing was computed.") from None


def _remedy(texts: object) -> str:
    """What to pass instead of what is not a sequence; empty where it may be one."""
    num_axes = getattr(texts, "ndim", 1)
    if isinstance(texts, bytes | bytearray | memoryview):
        return "decode it, for example texts.decode()"
    if num_axes != 1 or hasattr(texts, "columns"):
        return "pass one column or row of it, for example list(table['text'])"
    if isinstance(texts, Mapping):
        return "pass the strings themselves, for example list(texts.values())"
    if isinstance(texts, Iterator):
        return "it can be read only once; pass list(texts)"
    # The items of an array of characters are letters, not texts.
    if not (isinstance(texts, Sized) and hasattr(texts, "__getitem__")) or hasattr(texts, "typecode"):
        return "pass a list of strings"
    return ""


def _kind(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
