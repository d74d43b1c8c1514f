"""Loads what a table names, and says which extra is missing."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from drillcore.errors import JobError, MissingExtraError


def load_by_name(kind: str, name: str, table: Mapping[str, tuple[str, str]]) -> Any:
    """The class that `table` names.

    Raises JobError for an unknown name, MissingExtraError where its packages are not installed.
    """
    if name not in table:
        raise JobError(f"{kind} {name} is unknown", hint=f"One of {', '.join(table)}.")
    target, extra = table[name]
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] == "drillcore":
            raise
        raise MissingExtraError(
            f"{kind} {name} needs {error.name}, which is not installed", hint=f"pip install 'drillcore[{extra}]'"
        ) from None
