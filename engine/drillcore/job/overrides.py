"""Overrides of a job's fields from the command line or Python: `extract.dtype=float32`, the value being YAML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from drillcore.errors import JobError
from drillcore.job.choices import did_you_mean, shortened
from drillcore.job.document import parse

Place = tuple[str | int, ...]
# Parts of a job whose items may be text alone, and the field that this is.
SHORT_FORMS: dict[str | int, str] = {"models": "id", "datasets": "path"}


@dataclass(frozen=True)
class Override:
    """One override. shown: as a message names it. place: what it set. made: the outermost part that it made."""

    shown: str
    place: Place
    made: Place


def override(value: dict[str, Any], overrides: Sequence[str]) -> list[Override]:
    """Put overrides into a job's value, in their order.

    Raises JobError where one is no `field=value`, names what is not there, or sets what an earlier one sets otherwise.

    >>> job = {"models": [{"id": "a"}]}
    >>> override(job, ["models.0.id=b", "extract.dtype=float32"])[1].made, job
    (('extract',), {'models': [{'id': 'b'}], 'extract': {'dtype': 'float32'}})
    """
    found = [_put(value, text) for text in overrides]
    for number, one in enumerate(found):
        for other in found[number + 1 :]:
            if one.place == other.place and one.shown != other.shown:
                name = ".".join(map(str, one.place))
                raise JobError(
                    f"{name} is set twice: {one.shown} and {other.shown}", hint="Leave out the one that is not meant."
                )
    return found


def blamed(overrides: Iterable[Override], place: Place) -> Override | None:
    """The override that set what stands at a place, the last one where there are several; None for the job file."""
    return next((o for o in reversed([*overrides]) if o.made == place[: len(o.made)]), None)


def within(overrides: Iterable[Override], place: Place) -> list[Override]:
    """Overrides of something within a place: a mistake there may be theirs or the job file's."""
    return [o for o in overrides if o.place[: len(place)] == place and o.place != place]


def _put(value: dict[str, Any], text: str) -> Override:
    """Put one override into the job's value."""
    name, equals, given = text.partition("=")
    shown = f"--set {shortened(text)[1:-1]}"
    name = name.strip()
    if not equals or not name:
        raise JobError(f"{shown}: a field, = and its value are wanted", hint="For example --set extract.dtype=float32.")
    parts = name.split(".")
    _, parsed = parse(given, shown, "Quote the value where it is text; otherwise fix its YAML.")
    place = list[str | int]()
    inner: Any = value
    made: Place = ()
    for number, part in enumerate(parts):
        key = _key(inner, part)
        if key is None:
            raise JobError(f"{shown}: {_absent(place, inner, part)}", hint="Check the field's name.")
        place.append(key)
        is_there = isinstance(inner, list) or (key in inner and inner[key] is not None)
        if number == len(parts) - 1:
            inner[key] = parsed
        elif not is_there:
            inner[key] = {}
        elif isinstance(inner[key], str) and len(place) == 2 and place[0] in SHORT_FORMS:
            inner[key] = {SHORT_FORMS[place[0]]: inner[key]}
        made = made or (() if is_there else tuple(place))
        inner = inner[key]
    return Override(shown, tuple(place), made or tuple(place))


def _key(inner: Any, part: str) -> str | int | None:
    """What a part of an override names: a field, or an item of a list by its number or name; None for nothing."""
    number = int(part) if part.isdecimal() and len(part) < 10 else None
    if isinstance(inner, list):
        if number is not None:
            return number if number < len(inner) else None
        return next((i for i, item in enumerate(inner) if isinstance(item, dict) and _is_called(item, part)), None)
    if not isinstance(inner, dict):
        return None
    return part


def _is_called(item: dict[str, Any], name: str) -> bool:
    return name in (item.get("name"), item.get("as"), item.get("id"))


def _absent(place: Sequence[str | int], inner: Any, part: str) -> str:
    where = ".".join(map(str, place)) or "the job"
    if isinstance(inner, list):
        names = [str(item.get("name") or item.get("as") or "") for item in inner if isinstance(item, dict)]
        near = did_you_mean(part, [name for name in names if name])
        items = f"{len(inner)} items, from 0 to {len(inner) - 1}" if len(inner) > 1 else f"{len(inner)} item, 0"
        return f"there is no item {shortened(part)[1:-1]} of {where}, which has {items}{near}"
    return f"there is no {shortened(part)[1:-1]} in {where}, which is {shortened(inner)}"
