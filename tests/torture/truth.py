"""Compares a store with the right one, file for file."""

from __future__ import annotations

import json
from pathlib import Path

# Attributes that say what happened to a group, not what it holds.
OF_HISTORY = ("withdrawn", "audit")


def differences(store: Path, right: Path) -> list[str]:
    """Paths, relative to the store, of all files that differ, or that only one of them has."""
    files = {str(p.relative_to(top)) for top in (store, right) for p in top.rglob("*") if p.is_file()}
    return sorted(f for f in files if not _same(store / f, right / f))


def _same(one: Path, other: Path) -> bool:
    if not one.is_file() or not other.is_file():
        return False
    a, b = one.read_bytes(), other.read_bytes()
    if a == b:
        return True
    if one.name != "zarr.json":
        return False
    try:
        return _meaning(json.loads(a)) == _meaning(json.loads(b))
    except ValueError:
        return False


def _meaning(document: object) -> object:
    """A document without what only tells the history of a group."""
    if isinstance(document, dict):
        return {k: _meaning(v) for k, v in document.items() if k not in OF_HISTORY}
    return document


def same_folder(one: Path, other: Path) -> bool:
    """Whether two folders hold the same names with the same bytes."""
    names = {str(p.relative_to(one)) for p in one.rglob("*")}
    if names != {str(p.relative_to(other)) for p in other.rglob("*")}:
        return False
    for name in names:
        a, b = one / name, other / name
        if a.is_file() != b.is_file() or (a.is_file() and a.read_bytes() != b.read_bytes()):
            return False
    return True
