"""Groups of a store that are renamed or removed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from drillcore.api.stores import AnyStore, address_of
from drillcore.errors import StoreError
from drillcore.job.common import check_name
from drillcore.store.arrays import is_headline
from drillcore.store.attributes import GROUPS, MEMBERS, attributes_of, read_attributes
from drillcore.store.checks.groups import group_paths
from drillcore.store.layout import shape_of
from drillcore.store.moving import move_groups
from drillcore.store.places.location import Location
from drillcore.store.places.lock import refuse_if_held, store_lock
from drillcore.store.reader import open_root
from drillcore.store.writer import remove_groups
from drillcore.system.progress import tell


@dataclass(frozen=True)
class Moved:
    """groups: the new path of each group that has one. job_field: what the job file has to say now, or empty."""

    groups: Mapping[str, str]
    job_field: str = ""

    def lines(self) -> Iterator[str]:
        """As the terminal shows it."""
        for path, to in self.groups.items():
            yield f"moved {path} to {to}"
        if self.job_field:
            yield f"the job file has to say the new name, {self.job_field}; otherwise its next run moves it back"

    def __repr__(self) -> str:
        return "\n".join(self.lines())


@dataclass(frozen=True)
class Removed:
    """groups: what each group held. again: those that belong to the job still, so that its next run computes them."""

    groups: Mapping[str, str]
    again: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """As the terminal shows it."""
        for path, held in self.groups.items():
            yield f"removed {path}: {held}"
        if self.again:
            still, them = ("is", "it") if len(self.again) == 1 else ("are", "them")
            yield f"{', '.join(self.again)} {still} still in the job: the next run computes {them} again"

    def __repr__(self) -> str:
        return "\n".join(self.lines())


def move(store: AnyStore, group: str, name: str) -> Moved:
    """Rename a dataset, `model/dataset`, with its positions and branches, or a model of a store; computes nothing.

    A kill leaves every group whole, under either name. Raises StoreError, before anything is changed, where there is no
    store or no such group, the name is taken or none that a group may have, or a run holds the store; CommitError where
    the place refuses.

    >>> import shutil
    >>> copied = shutil.copytree("runs/job.zarr", "runs/more.zarr")
    >>> drillcore.move("runs/more.zarr", "model/sentences", "lines")
    moved model/sentences to model/lines
    the job file has to say the new name, `name: lines` of its dataset; otherwise its next run moves it back
    """
    location, wanted = Location(address_of(store)), group.strip("/")
    attributes, every = _groups_to_change(location)
    moves = _moves(every, wanted, name, location.address)
    with store_lock(location, tell) as held_location:
        move_groups(held_location, moves)
    if not any(path in attributes.get(GROUPS, []) for path in moves):
        return Moved(moves)
    return Moved(moves, f"`name: {name}` of its dataset" if "/" in wanted else f"`as: {name}` of its model")


def remove(store: AnyStore, group: str) -> Removed:
    """Remove a group of a store, `model/dataset`, or all groups of a model.

    Raises StoreError where there is no store or no such group, or a run holds the store; CommitError where the place
    refuses.

    >>> drillcore.remove("runs/job.zarr", "model/sentences")
    removed model/sentences: states of 12 sentences × 5 layers, layer_cka, pca, separation
    model/sentences is still in the job: the next run computes it again
    """
    location, wanted = Location(address_of(store)), group.strip("/")
    attributes, every = _groups_to_change(location)
    chosen = [path for path in every if wanted in (path, path.split("/")[0])]
    if not chosen:
        raise _no_such_group(location.address, wanted, every)
    opened = location.open(read_only=True)
    held = {path: _held(read_attributes(opened, path)) for path in chosen}
    with store_lock(location, tell) as held_location:
        remove_groups(held_location, chosen)
    in_job: Any = attributes.get(GROUPS) or []
    return Removed(held, tuple(path for path in chosen if path in in_job))


def _groups_to_change(location: Location) -> tuple[dict[str, Any], list[str]]:
    """Attributes of a store that no run holds, and the paths of all its groups; raises StoreError."""
    root = open_root(location, checked=False)
    refuse_if_held(location, tell)
    attributes = attributes_of(root)
    return attributes, sorted({*group_paths(root.store), *attributes.get(MEMBERS, [])})


def _no_such_group(address: str, wanted: str, every: list[str]) -> StoreError:
    hint = f"It has {', '.join(every)}." if every else "It is empty."
    return StoreError(f"the store {address} has no group {wanted}", hint=hint)


def _held(attributes: dict[str, Any]) -> str:
    """What a group held, in words."""
    try:
        shape = shape_of(attributes)
    except (KeyError, ValueError, TypeError):
        return "its metadata were damaged"
    results = [name for name in attributes.get("results", {}) if is_headline(name)]
    states = f"states of {shape.num_sentences:,} sentences × {len(shape.layers)} layers"
    return ", ".join([states, *results])


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
        raise _no_such_group(address, wanted, every)
    if taken:
        raise StoreError(
            f"the store {address} has {', '.join(taken)} already",
            hint="Give it another name, or remove that one first with `drillcore rm`.",
        )
    return moves
