"""What all parts of a job share: closed models, kinds of values, names, paths."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationInfo, WithJsonSchema, field_validator
from pydantic_core import PydanticCustomError

from drillcore.job.choices import shortened
from drillcore.system.bounds import real_path

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=@-]*")
Auto = Literal["auto"]
Name = Annotated[str, Field(max_length=200)]
# What scikit-learn and UMAP take.
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
# A number of sentences or of a layer: more than there can be, and exact in JSON, the store and NumPy.
MOST = 2**53


def _layer(value: Any) -> int | str:
    """A layer's number or name; digits are a number, as the command line gives them."""
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,15}", value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and -MOST <= value <= MOST:
        return value
    if isinstance(value, str) and re.fullmatch(r"embed|block_[1-9]\d{0,14}|final_norm", value):
        return value
    given = "nothing" if value is None else shortened(value)
    raise ValueError(f"{given} is not a layer: a number (-1 is the last one), embed, block_12 or final_norm")


LAYER_SCHEMA = {
    "anyOf": [
        {"type": "integer", "minimum": -MOST, "maximum": MOST},
        {"type": "string", "pattern": "^(embed|block_[1-9][0-9]*|final_norm)$"},
    ]
}
Layer = Annotated[int | str, PlainValidator(_layer), WithJsonSchema(LAYER_SCHEMA)]


class Closed(BaseModel):
    """A part of a job: frozen, with no entries but its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false where a number may stand: YAML reads yes and on as true, Python takes that for 1."""
        if any(isinstance(item, bool) for item in (value if isinstance(value, list | tuple) else (value,))):
            types = set(_types(cls.model_fields[str(info.field_name)].annotation))
            if types & {int, float} and bool not in types:
                raise PydanticCustomError("no_number", "true and false are no numbers")
        return value

    @field_validator("*")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        """Refuse characters that YAML can write and neither a path nor a store can hold."""
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and ("\0" in text or any("\ud800" <= c <= "\udfff" for c in text)):
                raise ValueError("holds a NUL or half of a surrogate pair")
        return value


def _types(annotation: Any) -> Iterator[Any]:
    """Every type in an annotation."""
    yield annotation
    for inner in get_args(annotation):
        yield from _types(inner)


def expand(path: str) -> Path:
    """A path with ~ replaced by the home folder, where that is known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # the user does not exist
        return Path(path)


def in_place(path: Path) -> Path:
    """An absolute path that keeps its last name: a symbolic link's own name says what it is, not its target's.

    Hubs and data versioning keep files under their checksums and give the names to links.

    >>> in_place(Path("/tmp/../texts/a.jsonl")).as_posix()
    '/texts/a.jsonl'
    """
    return real_path(path) if path.name in ("", "..") else real_path(path.parent) / path.name


def check_name(value: str) -> str:
    """Return a name that can be a group of the store; raises ValueError for any other.

    >>> check_name("smollm2-135m")
    'smollm2-135m'
    """
    if not NAME.fullmatch(value):
        raise ValueError("may hold letters, digits and . _ + = @ -, and begins with a letter or digit")
    return value
