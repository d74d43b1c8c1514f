"""What may stand between the fields of a table, and how a job says so."""

from __future__ import annotations

from collections.abc import Sequence

SEPARATORS = {";": "semicolons", ",": "commas", "\t": "tabs", "|": "vertical bars"}


def separator_in(header: Sequence[str]) -> str:
    """What separates the names in a header that was read as one field; empty where nothing does.

    >>> separator_in(["text;label"]), separator_in(["text"]), separator_in(["text", "a;b"])
    (';', '', '')
    """
    return next((sign for sign in SEPARATORS if len(header) == 1 and sign in header[0]), "")


def remedy_for(sign: str, kind: str) -> str:
    """What to do with a table of this kind whose fields another sign separates.

    >>> remedy_for(";", "csv"), remedy_for("\\t", "csv"), remedy_for(",", "tsv")
    ("set `delimiter: ';'`", 'set `delimiter: tab`', 'end its name in .csv')
    """
    named = "tab" if sign == "\t" else f"'{sign}'"
    if kind == "csv":
        return f"set `delimiter: {named}`"
    return "end its name in .csv" + ("" if sign == "," else f" and set `delimiter: {named}`")
