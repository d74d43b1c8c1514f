"""Texts, labels and fields as a notebook holds them: lists, and columns of pandas, pyarrow, polars or NumPy."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

from drillcore.errors import TextError
from drillcore.job.common import expand
from drillcore.job.inputs import without_compression
from drillcore.system.bounds import problem_with
from drillcore.system.tables import SUFFIXES
from drillcore.texts.columns import as_sentence


def list_of_texts(texts: object) -> list[str]:
    """The texts that a caller passed: one string is one text; otherwise a sequence of strings, in its order.

    Columns of pandas, pyarrow and polars and NumPy arrays of strings are sequences of strings.

    Raises:
        TypeError: something else was passed, or one item is no string; says what to pass.
        TextError: there is no text, one is empty or cannot be stored, or every one is the name of a file of texts.

    >>> list_of_texts("Hello"), list_of_texts(("a", "b"))
    (['Hello'], ['a', 'b'])
    """
    if isinstance(texts, str):
        _refuse_files([texts])
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
    _refuse_files(items)
    return [_checked(item, f"texts[{place}]") for place, item in enumerate(items)]


def are_files(items: Sequence[object], base: Path = Path()) -> bool:
    """Whether each item names a file of texts that is there, so that it is hardly meant as a text.

    base: what relative names are relative to.

    >>> are_files(["sentences.jsonl"]), are_files(["Hello"])
    (True, False)
    """

    def is_file(item: object) -> bool:
        if not isinstance(item, str | os.PathLike):
            return False
        name = str(os.fspath(item))
        named_so = without_compression(name).lower().endswith(tuple(SUFFIXES))
        return named_so and not problem_with(base / expand(name))

    return bool(items) and all(map(is_file, items))


def _refuse_files(texts: Sequence[str]) -> None:
    if are_files(texts):
        what = f"{texts[0]} is a file" if len(texts) == 1 else f"{texts[0]}, {texts[1]}, ... are files"
        path = f'"{texts[0]}"' if len(texts) == 1 else f'["{texts[0]}", "{texts[1]}", ...]'
        raise TextError(
            f"{what}, and their names would be taken as the texts",
            hint=f'Texts in files are those of a job: drillcore.run with datasets={{"d": {{"path": {path}}}}}.',
        )


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
