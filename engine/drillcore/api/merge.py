"""Finished stores that become one: what must agree between them, and the new store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import zarr

from drillcore.api.progress import listener
from drillcore.api.stores import AnyStore, address_of
from drillcore.errors import DamageError, StoreError
from drillcore.runtime.stages.extract.recipes import LATER_PARTS, Recipe, essence, recorded
from drillcore.store.arrays import PLACE_COLUMNS
from drillcore.store.attributes import CONTENTS, FIRST_FORMAT, GROUPS, MEMBERS, attributes_of
from drillcore.store.checks.store import verify
from drillcore.store.layout import read_array
from drillcore.store.merging import Source, merge_stores, refuse_what_is_there
from drillcore.store.places.location import Location, read_only_place
from drillcore.store.places.lock import store_lock
from drillcore.store.reader import open_root
from drillcore.system.progress import ProgressListener, tell

# Coordinates that a tokenizer decides; all others come from the rows.
OF_TOKENS = frozenset(("n_tokens", "last_token_id", *PLACE_COLUMNS))
RENAME = "Rename one of them with `drillcore mv`, and merge again."


@dataclass(frozen=True)
class Merged:
    """A new store. job: the name of the job that it belongs to. groups: the store that each group was copied from."""

    store: str
    job: str
    groups: dict[str, str]

    def lines(self) -> Iterator[str]:
        """As the terminal shows it."""
        for path, store in self.groups.items():
            yield f"copied {path} from {store}"
        yield f"{self.store}: a job with `name: {self.job}` that lists these models and datasets goes on with it"

    def __repr__(self) -> str:
        return "\n".join(self.lines())


@dataclass(frozen=True)
class _Part:
    """A group of a store. recipe: that its states were made by."""

    store: str
    group: zarr.Group
    recipe: Recipe

    @property
    def model(self) -> str:
        return self.group.path.split("/")[0]

    @property
    def dataset(self) -> str:
        return self.group.path.split("/")[1]


def merge(
    stores: Sequence[AnyStore],
    into: AnyStore,
    *,
    job: str | None = None,
    progress: bool | ProgressListener | None = None,
) -> Merged:
    """Make one store of several finished ones, whose models or datasets are others; copies bytes, computes nothing.

    into: the new store; the others stay as they are. job: the name of the job that it belongs to, by default the new
    store's own without .zarr. progress: as for `drillcore.run`. All are verified first. A kill leaves no store at
    `into`; the same call then begins anew.

    Raises StoreError, before anything is written, where a store is not there, not finished, damaged, of an older format
    or held by a run, where two have the same group, or no one job could have both: other settings of the extraction,
    another model of the same name, other rows or another template of a dataset of the same name. CommitError where the
    place refuses.

    >>> import shutil
    >>> copied = shutil.copytree("runs/job.zarr", "runs/more.zarr")
    >>> moved = drillcore.move("runs/more.zarr", "model/sentences", "lines")
    >>> drillcore.merge(["runs/job.zarr", "runs/more.zarr"], "runs/both.zarr")
    copied model/sentences from runs/job.zarr
    copied model/lines from runs/more.zarr
    runs/both.zarr: a job with `name: both` that lists these models and datasets goes on with it
    """
    places, target = [Location(address_of(store)) for store in stores], Location(address_of(into))
    _refuse_places(places, target)
    name = job or PurePosixPath(target.address.rstrip("/")).name.removesuffix(".zarr")
    heard = listener(progress)
    for place in places:
        open_root(place, checked=False)
    with ExitStack() as locks:
        for place in places:
            locks.enter_context(store_lock(place, tell))
        try:
            roots = {place.address: open_root(place) for place in places}
            attributes = {address: _finished(address, root) for address, root in roots.items()}
            _refuse_disagreement([part for address, root in roots.items() for part in _parts(address, root)])
        except DamageError as error:
            raise StoreError(f"a store is damaged: {error}", hint=error.hint) from None
        for address in roots:
            heard.say(f"verifying {address}")
            _refuse_damage(address)
        held_target = locks.enter_context(store_lock(target, tell))
        heard.say(f"copying into {target.address}")
        sources = [Source(place.open(read_only=True), attributes[place.address]) for place in places]
        merge_stores(sources, held_target, name)
    groups = {path: place.address for place in places for path in attributes[place.address][MEMBERS]}
    return Merged(target.address, name, groups)


def _refuse_places(places: Sequence[Location], target: Location) -> None:
    """Raise StoreError where stores are not several, or the new one cannot be where it is to be."""
    if len(places) < 2:
        raise StoreError("one store alone cannot be merged", hint="Name two stores or more.")
    for place in (*places, target):
        if place.is_hub:
            raise read_only_place(place.address)
    identities = [place.identity.rstrip("/") for place in places]
    twice = next((p.address for n, p in enumerate(places) if identities[n] in identities[:n]), None)
    if twice is not None:
        raise StoreError(f"the store {twice} is named twice", hint="Name each store once.")
    new = target.identity.rstrip("/")
    for place, identity in zip(places, identities, strict=True):
        if f"{new}/".startswith(f"{identity}/") or f"{identity}/".startswith(f"{new}/"):
            raise StoreError(
                f"{target.address} is, or lies in, or holds the store {place.address}",
                hint="A merge makes a new store: name another place.",
            )
    refuse_what_is_there(target)


def _finished(address: str, root: zarr.Group) -> dict[str, Any]:
    """Attributes of the root of a finished store; raises StoreError for any other."""
    attributes = attributes_of(root)
    if attributes["format"] == FIRST_FORMAT:
        raise StoreError(
            f"the store {address} is of an older format", hint="`drillcore run` on its job brings it up to date."
        )
    if CONTENTS not in attributes:
        raise StoreError(f"the last run of the store {address} did not finish", hint="`drillcore run` on its job does.")
    return attributes


def _refuse_damage(address: str) -> None:
    try:
        found = next(verify(address), None)
    except DamageError as error:
        raise StoreError(f"the store {address} is damaged: {error}", hint=error.hint) from None
    if found is not None:
        raise StoreError(
            f"the store {address} is damaged: {found}",
            hint=f"`drillcore verify {address}` names all of it, and `drillcore run` on its job mends it.",
        )


def _parts(address: str, root: zarr.Group) -> Iterator[_Part]:
    """The groups of a store that belong to its job; raises StoreError where one does not say how it was made."""
    attributes = attributes_of(root)
    for path in attributes[MEMBERS]:
        group = root[path]
        assert isinstance(group, zarr.Group)
        recipes = recorded(attributes_of(group))
        if not recipes and path in attributes.get(GROUPS, [path]):
            raise StoreError(
                f"{path} of the store {address} does not record what its states were made from",
                hint="`drillcore run` on its job, which records it, then merge again.",
            )
        if path not in attributes.get(GROUPS, [path]):
            # It left its job, so that nothing need agree but its name.
            recipes = []
        yield _Part(address, group, recipes[-1] if recipes else Recipe({}, {}, {}))


def _refuse_disagreement(parts: Sequence[_Part]) -> None:
    """Raise StoreError where two groups of different stores cannot be in one store, or not belong to one job."""
    for number, part in enumerate(parts):
        for other in parts[:number]:
            if part.store == other.store:
                continue
            if part.group.path == other.group.path:
                raise StoreError(f"{other.store} and {part.store} both have {part.group.path}", hint=RENAME)
            if part.recipe.request and other.recipe.request:
                _compare(other, part)
    firsts: dict[str, _Part] = {}
    for part in parts:
        name = part.dataset.split("~")[0]
        other = firsts.setdefault(name, part)
        if other.store != part.store and part.recipe.request and other.recipe.request:
            different = _other_rows(other.group, part.group)
            if different:
                raise StoreError(f"{other.store} and {part.store}: {name}: {different}", hint=RENAME)


def _compare(one: _Part, other: _Part) -> None:
    """Raise StoreError where no one job could have both of two groups."""
    here, there = essence(one.recipe.request), essence(other.recipe.request)
    stores, policies = f"{one.store} and {other.store}", (one.recipe.policy, other.recipe.policy)
    both = list(zip((here, there), policies, strict=True))
    settings = [{**request["extract"], "special_tokens": policy.get("special_tokens")} for request, policy in both]
    if different := _different(*settings):
        raise StoreError(
            f"{stores}: no one job could have both: {_said('extract', different, *settings)}",
            hint="Run one of the jobs again with the settings of the other.",
        )
    if one.model == other.model:
        facts = [
            {
                **{k: v for k, v in request.items() if k not in ("extract", "model")},
                "tokenizer": policy.get("tokenizer"),
            }
            for request, policy in both
        ]
        models = [request["model"] for request in (here, there)]
        shared = [{k: v for k, v in m.items() if k not in LATER_PARTS or all(k in o for o in models)} for m in models]
        if different := [*_different(*shared), *_different(*facts)]:
            raise StoreError(
                f"{stores} have different models of the name {one.model}: another {', '.join(different)}", hint=RENAME
            )
    if one.dataset == other.dataset:
        ways = [{k: v for k, v in policy.items() if k != "tokenizer"} for policy in policies]
        if different := _different(*ways):
            raise StoreError(
                f"{stores} have different datasets of the name {one.dataset}: another {', '.join(different)}",
                hint=RENAME,
            )


def _different(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of the entries that are not the same."""
    return [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]


def _said(section: str, names: Sequence[str], one: dict[str, Any], other: dict[str, Any]) -> str:
    return ", ".join(f"{section}.{n} is {json.dumps(one.get(n))} and {json.dumps(other.get(n))}" for n in names)


def _other_rows(one: zarr.Group, other: zarr.Group) -> str:
    """How the rows of two groups of one dataset differ; empty where they do not."""
    names = [[n for n, _ in attributes_of(group).get("columns", []) if n not in OF_TOKENS] for group in (one, other)]
    if alone := sorted({*names[0]} ^ {*names[1]}):
        return f"only one has the column {alone[0]}"
    for name in names[0]:
        these, those = read_array(one, name), read_array(other, name)
        if not np.array_equal(these, those, equal_nan=these.dtype.kind == those.dtype.kind == "f"):
            return f"its rows differ (column {'text' if name == 'row_id' else name})"
    return ""
