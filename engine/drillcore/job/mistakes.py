"""What is wrong with a job, in the words of someone who writes one: a place, what it takes, what was given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from drillcore.job.choices import did_you_mean, shortened
from drillcore.job.document import QUOTE_IT
from drillcore.job.fields import Job
from drillcore.job.synonyms import meaning
from drillcore.job.words import Kind, branches, names_of, step, takes

Place = tuple[str | int, ...]
# Mistakes that are told, and how many are looked at for them: each branch of a field reports one.
MOST, MOST_LOOKED_AT = 50, 500
# What other tools call values of ours.
VALUES = {
    "fp16": "float16",
    "half": "float16",
    "bf16": "bfloat16",
    "fp32": "float32",
    "float": "float32",
    "full": "float32",
}


@dataclass(frozen=True)
class Mistake:
    """One mistake. place: of the field in the job, `("extract", "dtype")`; message: what goes on after its name."""

    place: Place
    message: str


def mistakes_of(error: ValidationError) -> list[Mistake]:
    """Every mistake once, in the order of the job's fields; one more than `MOST` where there are more."""
    found: dict[Place, ErrorDetails] = {}
    for each in error.errors(include_url=False)[:MOST_LOOKED_AT]:
        place = _place(each)
        if place not in found or each["type"] == "value_error":
            found[place] = each
    # A list's length is reported beside its items, and a union beside its branches: the deepest is where it is.
    outer = {place[:depth] for place in found for depth in range(len(place))}
    deepest = [(place, each) for place, each in found.items() if place not in outer]
    return [_at_its_field(Mistake(place, _message(place, each))) for place, each in deepest[: MOST + 1]]


def _place(mistake: ErrorDetails) -> Place:
    """The fields and items of pydantic's location, without the names of the branches that it looked into."""
    kind, place = Kind(Job), list[str | int]()
    parts = mistake["loc"]
    for number, part in enumerate(parts):
        inner = step(kind, part)
        if inner is not None:
            kind = inner
            place.append(part)
        elif mistake["type"] == "extra_forbidden" and number == len(parts) - 1:
            place.append(part)
    return tuple(place)


def _at_its_field(mistake: Mistake) -> Mistake:
    """A mistake of a whole part that begins with the name of a field of it, as one of that field."""
    name, colon, message = mistake.message.partition(": ")
    if not colon or name not in fields_at(mistake.place):
        return mistake
    return Mistake((*mistake.place, name), message)


def _kind(place: Place) -> Kind:
    """The kind of what stands at a place of the job."""
    kind = Kind(Job)
    for part in place:
        kind = step(kind, part) or kind
    return kind


def _message(place: Place, mistake: ErrorDetails) -> str:
    given, kind = mistake["input"], _kind(place)
    match mistake["type"]:
        case "value_error":
            return mistake["msg"].removeprefix("Value error, ")
        case "missing":
            return f"is required: {takes(kind)}"
        case "extra_forbidden":
            return f"unknown field{_meant(place)}"
    if mistake["loc"] and mistake["loc"][-1] == "[key]":
        return f"{shortened(mistake['loc'][-2])} is too long for a name, or none"
    if mistake["type"] == "too_short" and not given:
        return "is empty: name at least one"
    what = "nothing" if given is None else shortened(given)
    return f"must be {takes(kind)} (given: {what}){_nearest(kind, given)}"


def _nearest(kind: Kind, given: Any) -> str:
    """The end of a message: the nearest right value, or how text is written that YAML read as something else."""
    names = names_of(kind)
    meant = VALUES.get(given.casefold(), "") if isinstance(given, str) else ""
    if meant in names:
        return f"; did you mean `{meant}`?"
    near = did_you_mean(given, names)
    if near:
        return near
    is_text = any(branch.type is str for branch in branches(kind))
    if any(get_origin(branch.type) is tuple for branch in branches(kind)) and given is not None:
        return f"; a list is written {shortened([given])}" if isinstance(given, str | int) else _itemised(given)
    if given is None:
        return "; what follows ` #` is a comment: put text that holds it in quotes" if is_text and not names else ""
    if isinstance(given, bool) and (is_text or names):
        return "; YAML reads yes, no, on and off as true and false: put them in quotes where they are text"
    if is_text and not isinstance(given, str | list):
        return f"; {QUOTE_IT}"
    return ""


def _itemised(given: Any) -> str:
    return "; each item of a list begins with `- `" if isinstance(given, dict) else ""


def _meant(place: Place) -> str:
    """The end of a message on an unknown field: what it is called here, or where it belongs."""
    *parents, last = place
    name = str(last)
    fields = fields_at(parents)
    if near := did_you_mean(name, fields, cutoff=0.85):
        return near
    if said := meaning(name):
        return f"; {said}"
    if near := did_you_mean(name, fields, cutoff=0.7):
        return near
    elsewhere = [path for path in _paths() if path.rpartition(".")[2] == name]
    if elsewhere:
        return f"; it is a field elsewhere: {' or '.join(f'`{path}`' for path in elsewhere)}"
    near = did_you_mean(name, fields)
    return near or (f"; the fields here are {', '.join(fields)}" if fields else "")


def fields_at(place: Sequence[str | int]) -> list[str]:
    """Names of the fields that may stand at a place of the job; empty where it has none.

    >>> fields_at(["run"])
    ['executor', 'address', 'retries', 'audit']
    """
    return [name for model in _models(_kind(tuple(place))) for name in _names(model)]


def _models(kind: Kind) -> Iterable[type[BaseModel]]:
    return (b.type for b in branches(kind) if isinstance(b.type, type) and issubclass(b.type, BaseModel))


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _paths() -> list[str]:
    """Every field of the job and of its sections, models and datasets, as a message names it."""
    found = _names(Job)
    for section in _names(Job):
        inner = fields_at([section]) or fields_at([section, 0])
        found += [f"{section}.{name}" for name in inner]
    return found
