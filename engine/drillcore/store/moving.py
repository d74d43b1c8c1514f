"""Gives groups of a store other names; what a kill leaves is a store whose groups are whole, under either name."""

from __future__ import annotations

from collections.abc import Mapping

from drillcore.errors import StoreError
from drillcore.store.attributes import (
    COMPLETE,
    CONTENTS,
    FIRST_FORMAT,
    GROUPS,
    MEMBERS,
    checked_attributes,
    make_group,
    parse_document,
    put_attributes,
    read_attributes,
)
from drillcore.store.canaries import read_canaries, write_canaries
from drillcore.store.places.files import read_file
from drillcore.store.places.location import Location
from drillcore.store.writer import consolidate, move_group, refuse_other_groups


def move_groups(location: Location, moves: Mapping[str, str]) -> None:
    """Rename groups of a store, from `model/dataset` to the same; a model that is new gets what its states need.

    Raises StoreError for a store of format 1, DamageError where a group is not the one that the root records, both
    before anything is changed; CommitError where the place refuses.
    """
    store = location.open()
    root = checked_attributes(store, "")
    if root["format"] == FIRST_FORMAT:
        raise StoreError(
            f"the store {location.address} is of an older format",
            hint="`drillcore run` on its job brings it up to date.",
        )
    refuse_other_groups(store, root, ())
    finished = "consolidated_metadata" in parse_document(read_file(store, "zarr.json"))

    def named(paths: list[str]) -> list[str]:
        return [moves.get(path, path) for path in paths]

    members: list[str] = root[MEMBERS]
    root.pop(CONTENTS, None)
    lists = {name: named(root[name]) for name in (GROUPS, COMPLETE) if name in root}
    # From here on the store is one whose run has not finished, and both names are listed: any of them may be there.
    put_attributes(store, "", {**root, MEMBERS: [*members, *moves.values()]})
    for path, to in moves.items():
        before, model = path.split("/")[0], to.split("/")[0]
        if not read_attributes(store, model):
            attributes = {k: v for k, v in checked_attributes(store, before).items() if k != CONTENTS}
            canaries = read_canaries(make_group(store, before))
            put_attributes(store, model, attributes)
            if canaries is not None:
                write_canaries(make_group(store, model), canaries)
        move_group(store, path, to)
    root |= {**lists, MEMBERS: named(members)}
    put_attributes(store, "", root)
    if finished:
        consolidate(store, root)
