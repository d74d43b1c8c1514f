"""`drillcore mv`: gives a model or a dataset of a store another name."""

from __future__ import annotations

from collections.abc import Iterator

from drillcore.cli.remove import groups_to_change, say_aside
from drillcore.errors import StoreError
from drillcore.job.common import check_name
from drillcore.store.attributes import GROUPS
from drillcore.store.moving import move_groups
from drillcore.store.places.location import Location
from drillcore.store.places.lock import store_lock


def rename_lines(address: str, group: str, name: str) -> Iterator[str]:
    """Rename a dataset, `model/dataset`, with its positions and branches, or a model; yields a line for each group.

    Raises StoreError, before anything is changed, where there is no store or no such group, the name is taken or none
    that a group may have, or a run holds the store; CommitError where the place refuses.
    """
    location, wanted = Location(address), group.strip("/")
    attributes, every = groups_to_change(location)
    moves = _moves(every, wanted, name, address)
    with store_lock(location, say_aside) as held_location:
        move_groups(held_location, moves)
    for path, to in moves.items():
        yield f"moved {path} to {to}"
    if any(path in attributes.get(GROUPS, []) for path in moves):
        field = f"`name: {name}` of its dataset" if "/" in wanted else f"`as: {name}` of its model"
        yield f"the job file has to say the new name, {field}; otherwise its next run moves it back"


def _moves(every: list[str], wanted: str, name: str, address: str) -> dict[str, str]:
    """The new path of each group that gets one; raises StoreError."""
    try:
        check_name(name)
    except ValueError as error:
        raise StoreError(f"{name!r} is no name of a group: it {error}", hint="Give it another name.") from None
    model, _, dataset = wanted.partition("/")
    if "~" in dataset:
        raise StoreError(
            f"{wanted} is a position or branch of {wanted.partition('~')[0]}, and is named in the job",
            hint=f"Rename {wanted.partition('~')[0]}: its positions and branches go with it.",
        )
    if dataset:
        moves = {p: f"{model}/{name}{p.removeprefix(wanted)}" for p in every if p.split("~")[0] == wanted}
        taken = [p for p in every if p.split("~")[0] == f"{model}/{name}"]
    else:
        moves = {p: f"{name}/{p.partition('/')[2]}" for p in every if p.split("/")[0] == model}
        taken = [p for p in every if p.split("/")[0] == name]
    if not moves:
        raise StoreError(
            f"the store {address} has no group {wanted}",
            hint=f"It has {', '.join(every)}." if every else "It is empty.",
        )
    if taken:
        raise StoreError(
            f"the store {address} has {', '.join(taken)} already",
            hint="Give it another name, or remove that one first with `drillcore rm`.",
        )
    return moves
