"""Places that a row names in its own text: two offsets, or another text that stands in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from drillcore.job.choices import shortened
from drillcore.job.groups import Reading, column_of
from drillcore.job.inputs import Dataset
from drillcore.texts.columns import INTEGER, Column
from drillcore.texts.readers.lines import quoted


def places_wrong(dataset: Dataset, columns: Sequence[Column], values: Sequence[Any]) -> Iterator[str]:
    """What is wrong with the places that a row names in its text, if positions take any."""
    if not isinstance(dataset, Reading):
        return
    row = {column.name: value for column, value in zip(columns, values, strict=True)}
    for fields in dataset.spans:
        try:
            span_of(row[column_of(dataset, fields[0])], row[column_of(dataset, fields[1])], len(row["text"]))
        except ValueError as error:
            yield f"fields {quoted(fields[0])} and {quoted(fields[1])}: {error}"
    for field, number in dataset.found:
        try:
            occurrence_of(row[column_of(dataset, field)], number, row["text"])
        except ValueError as error:
            yield f"field {quoted(field)} {error}"


def span_of(start: Any, stop: Any, length: int) -> tuple[int, int]:
    """Two values as the first character and the one after the last, of a text; raises ValueError for any others.

    >>> span_of(0, 3.0, 5), span_of("1", "2", 5)
    ((0, 3), (1, 2))
    """
    first, last = _whole(start), _whole(stop)
    if not 0 <= first < last <= length:
        what = "beyond the text" if last > length else "before the text" if first < 0 else "empty"
        raise ValueError(f"{first} to {last} is {what}, which has {length:,} characters (the end is not included)")
    return first, last


def _whole(value: Any) -> int:
    if isinstance(value, str) and INTEGER.fullmatch(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{shortened(value)} is no offset: a whole number of characters is wanted")
    return value


def occurrence_of(wanted: Any, number: int, text: str) -> tuple[int, int]:
    """Where a text stands in another one: its occurrence of a number from 1, or the last for 0.

    Raises ValueError, with a message that goes on after a name, where it does not stand there.

    >>> occurrence_of("is", 2, "This is it"), occurrence_of("i", 0, "This is it")
    ((5, 7), (8, 9))
    """
    if not isinstance(wanted, str) or not wanted.strip():
        raise ValueError("holds no text to look for")
    places = [found.start() for found in re.finditer(re.escape(wanted), text)] if number else [text.rfind(wanted)]
    if not places or places[0] < 0:
        raise ValueError(f"holds {shortened(wanted)}, which does not stand in the text")
    if number > len(places):
        raise ValueError(f"holds {shortened(wanted)}, which stands in the text {len(places)} times, not {number}")
    start = places[max(number - 1, 0)]
    return start, start + len(wanted)
