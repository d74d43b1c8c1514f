"""What all parts of a job are made of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=@-]*")
Auto = Literal["auto"]
Name = Annotated[str, Field(max_length=200)]


class Closed(BaseModel):
    """A part of a job: frozen, and nothing in it that is not a field."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, use_attribute_docstrings=True)

    @field_validator("*")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        """YAML's escapes can write what neither a path nor a store takes."""
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and ("\0" in text or any("\ud800" <= c <= "\udfff" for c in text)):
                raise ValueError("holds a NUL or half of a surrogate pair")
        return value


def expand(path: str) -> Path:
    """A path with ~ for the home folder, as far as that is known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # of a user whom nobody knows
        return Path(path)


def check_name(value: str) -> str:
    """A name that stands for a group in the store; raises ValueError where it holds what it may not."""
    if not NAME.fullmatch(value):
        raise ValueError("may hold letters, digits and . _ + = @ -, and begins with a letter or digit")
    return value
