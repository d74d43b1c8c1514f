"""`drillcore rm`: removes groups of a store, such as those of a dataset that left the job."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from drillcore.cli.tables import write_line
from drillcore.errors import StoreError
from drillcore.store.arrays import HEADLINES
from drillcore.store.attributes import GROUPS, MEMBERS, attributes_of, read_attributes
from drillcore.store.checks.groups import group_paths
from drillcore.store.layout import shape_of
from drillcore.store.places.location import Location
from drillcore.store.places.lock import refuse_if_held, store_lock
from drillcore.store.reader import open_root
from drillcore.store.writer import remove_groups


def removal_lines(address: str, group: str) -> Iterator[str]:
    """Remove a group, `model/dataset`, or all groups of a model; yields a line for each.

    Raises StoreError where there is no store or no such group, or a run holds the store; CommitError where the place
    refuses.
    """
    location, wanted = Location(address), group.strip("/")
    attributes, every = groups_to_change(location)
    chosen = [path for path in every if wanted in (path, path.split("/")[0])]
    if not chosen:
        raise StoreError(
            f"the store {address} has no group {wanted}",
            hint=f"It has {', '.join(every)}." if every else "It is empty.",
        )
    store = location.open(read_only=True)
    held = {path: _held(read_attributes(store, path)) for path in chosen}
    with store_lock(location, say_aside) as held_location:
        remove_groups(held_location, chosen)
    for path in chosen:
        yield f"removed {path}: {held[path]}"
    groups: Any = attributes.get(GROUPS) or []
    again = [path for path in chosen if path in groups]
    if again:
        still, them = ("is", "it") if len(again) == 1 else ("are", "them")
        yield f"{', '.join(again)} {still} still in the job: the next run computes {them} again"


def groups_to_change(location: Location) -> tuple[dict[str, Any], list[str]]:
    """Attributes of a store that no run holds, and the paths of all its groups; raises StoreError."""
    root = open_root(location, checked=False)
    refuse_if_held(location, say_aside)
    attributes = attributes_of(root)
    return attributes, sorted({*group_paths(root.store), *attributes.get(MEMBERS, [])})


def say_aside(line: str) -> None:
    """Print a line beside what the command prints."""
    write_line(line, sys.stderr)


def _held(attributes: dict[str, Any]) -> str:
    """What a group held, in words."""
    try:
        shape = shape_of(attributes)
    except (KeyError, ValueError, TypeError):
        return "its metadata were damaged"
    results = [name for name in attributes.get("results", {}) if name in HEADLINES]
    states = f"states of {shape.num_sentences:,} sentences × {len(shape.layers)} layers"
    return ", ".join([states, *results])
