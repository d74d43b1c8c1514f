"""A store opened for a run of one job: its root, its groups, and what holds for all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.errors import GroupNotFoundError

from drillcore.errors import DamageError, StoreError
from drillcore.store.attributes import (
    COMPLETE,
    CONTENTS,
    FIRST_FORMAT,
    FORMAT,
    FORMATS,
    GROUPS,
    MEMBERS,
    MOVED_FROM,
    MOVED_TO,
    SEAL,
    UNREADABLE,
    check_seal,
    checked_attributes,
    document_key,
    is_unsealed,
    make_group,
    parse_document,
    put_attributes,
    read_attributes,
)
from drillcore.store.checks.groups import group_paths
from drillcore.store.contents import Digests, fast_digest
from drillcore.store.finished import checked_documents, finished_root
from drillcore.store.group import GroupWriter
from drillcore.store.layout import KIND, check_ours
from drillcore.store.places.files import list_names, move_folder, read_file, remove_folder, write_file
from drillcore.store.places.local import sweep
from drillcore.store.places.location import Location
from drillcore.store.upgrade import bring_up_to_date, is_ours
from drillcore.system.files import PARTIAL

__all__ = ["GroupWriter", "StoreWriter"]


def refuse_foreign(location: Location, job_name: str) -> None:
    """Raise StoreError where the store's place holds something else, or the store of another job; writes nothing.

    Raises DamageError where damage hides whose store it is.
    """
    if not location.is_s3 and not location.path.exists():
        return
    store = location.open(read_only=True)
    raw = read_file(store, "zarr.json")
    if raw is None:
        if any(not name.endswith(PARTIAL) for name in list_names(store, "")):
            raise _not_ours(location)
        return
    try:
        document = parse_document(raw)
        attributes = document.get("attributes", {})
        if SEAL in attributes and attributes.get("format") in FORMATS:
            check_seal(attributes, "")
    except ValueError:
        _refuse_unless_ours_in_ruins(location, raw, job_name)
    else:
        if document.get("node_type") != "group":
            raise _not_ours(location)
        check_ours(attributes, location.address, job_name)


def _not_ours(location: Location) -> StoreError:
    return StoreError(
        f"store {location.address} exists and is not a drillcore store",
        hint="Name a folder that does not exist yet. If these are the remains of a store, remove them first.",
    )


def _refuse_unless_ours_in_ruins(location: Location, raw: bytes, job_name: str) -> None:
    """Accept damaged root metadata, to be written again, only where their readable part names this job."""
    ours = (f'"kind": "{KIND}"', '"format": ', f'"job": {json.dumps(job_name)}')
    if not all(text.encode() in raw for text in ours):
        raise DamageError(
            f"{location.address}/zarr.json is damaged and does not say which job the store belongs to",
            hint="Restore it from a copy, or move the store away.",
        )


class StoreWriter:
    """A store opened for a run of one job, to which it belongs.

    say: takes lines on what was done to a store of an older format, or whose root is damaged. begin: whether to call
    `begin` at once. mend: whether a damaged root is written again. Raises StoreError where the store is not ours or of
    another job, DamageError where its root is damaged and stays so, CommitError where the place refuses a write.
    """

    def __init__(
        self,
        location: Location,
        job_name: str,
        version: str,
        say: Callable[[str], None] = lambda _: None,
        *,
        begin: bool = True,
        mend: bool = True,
    ) -> None:
        self.location, self._store = location, location.open()
        refuse_foreign(location, job_name)
        if is_unsealed(self._store):
            bring_up_to_date(self._store, say)
        attributes = read_attributes(self._store, "")
        if not attributes:
            if read_file(self._store, "zarr.json") is not None:
                if not mend:
                    raise DamageError(
                        f"{location.address}/zarr.json is damaged",
                        hint="`drillcore run` on the job makes it again; `drillcore verify` names all that is damaged.",
                    )
                say(f"{location.address}/zarr.json was damaged and is written again")
            members = list(filter(partial(is_ours, self._store), group_paths(self._store)))
            attributes = {"kind": KIND, "format": FORMAT, "job": job_name, "drillcore": version, MEMBERS: members}
            put_attributes(self._store, "", attributes)
        # What the root of a finished store recorded of its groups.
        self.recorded: dict[str, Digests] = attributes.get(CONTENTS, {})
        # Groups that were complete when a run last finished, also where one has begun since and did not finish.
        self.complete = frozenset(attributes.get(COMPLETE, ())) | {path for path in self.recorded if "/" in path}
        self._members: list[str] = attributes[MEMBERS]
        self._made: set[str] = set()
        self.root = zarr.open_group(self._store, mode="r+", zarr_format=3, use_consolidated=False)
        if begin:
            self.begin()

    def begin(self) -> None:
        """Let the run begin, once what there was has been checked: the root no longer says that a run finished."""
        attributes = self.attributes
        attributes.pop(CONTENTS, None)
        there = sorted(self.complete & set(self._members))
        put_attributes(self._store, "", {**attributes, **({COMPLETE: there} if there else {})})
        if not self.location.is_s3:
            sweep(self.location.path)

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the root as they are now."""
        return checked_attributes(self._store, "")

    def _set_members(self, paths: Iterable[str], **facts: Any) -> None:
        self._members = list(dict.fromkeys(paths))
        attributes = self.attributes
        if COMPLETE in attributes:
            attributes[COMPLETE] = [path for path in attributes[COMPLETE] if path in self._members]
        put_attributes(self._store, "", {**attributes, **facts, MEMBERS: self._members})

    @property
    def members(self) -> tuple[str, ...]:
        """Paths, `model/dataset`, of all groups that the store has, or may have by now."""
        return tuple(self._members)

    def set_groups(self, paths: list[str]) -> None:
        """Record which groups, `model/dataset`, belong to the job now; others have left it."""
        self._set_members([*self._members, *paths], **{GROUPS: paths})

    def forget(self, paths: Sequence[str]) -> None:
        """Remove groups, `model/dataset`, from the list of those that the store has, and a model that has none left."""
        self._set_members(path for path in self._members if path not in paths)
        for model in {path.split("/")[0] for path in paths} - {path.split("/")[0] for path in self._members}:
            _remove_empty_model(self._store, model)

    def move(self, path: str, to: str) -> None:
        """Give a group, `model/dataset`, another path, with all that is in it; what is at that path is replaced."""
        self.model(to.split("/")[0])
        move_group(self._store, path, to)
        self.forget([path])

    def model(self, name: str) -> zarr.Group:
        """The group of a model, whose attributes hold its numerics."""
        return make_group(self._store, name)

    def dataset(self, model: str, dataset: str) -> GroupWriter:
        """The group of a model and dataset."""
        if f"{model}/{dataset}" not in self._members:
            self._set_members([*self._members, f"{model}/{dataset}"])
        self.model(model)
        self._made.add(f"{model}/{dataset}")
        return GroupWriter(make_group(self._store, f"{model}/{dataset}"))

    def finish(self) -> None:
        """Record every group in the root, and write consolidated metadata: the run is complete.

        Groups of the job that nothing has begun yet, such as one that was removed before a stage of the others, are no
        longer listed. Raises DamageError where one is gone that was there.
        """
        never = [p for p in self._members if p not in self.complete | self._made and not list_names(self._store, p)]
        if never:
            self.forget(never)
        try:
            consolidate(self._store, self.attributes)
        except (GroupNotFoundError, FileNotFoundError, DamageError, *UNREADABLE) as error:
            raise DamageError(
                f"store {self.location.address} was removed or damaged while the run was under way: {error}",
                hint="Run the same command again.",
            ) from None


def move_group(store: Store, path: str, to: str) -> None:
    """Give a group another path, with all that is in it; its former model goes with its last group."""
    remove_folder(store, to)
    attributes = checked_attributes(store, path)
    put_attributes(store, path, {**attributes, MOVED_FROM: path, MOVED_TO: to})
    move_folder(store, path, to)
    put_attributes(store, to, attributes)
    _remove_empty_model(store, path.split("/")[0])


def remove_groups(location: Location, paths: list[str]) -> None:
    """Remove groups, `model/dataset`, of a store; the group of a model goes with its last dataset.

    Fingerprints go first: none may stand for missing data. Raises CommitError where the place refuses, DamageError,
    before anything is removed, where the root is damaged or another group is not the one that it records.
    """
    store = location.open()
    attributes = checked_attributes(store, "")
    refuse_other_groups(store, attributes, paths)
    finished = "consolidated_metadata" in parse_document(read_file(store, "zarr.json"))
    if attributes["format"] == FIRST_FORMAT:
        drop_consolidated(store)
    else:
        attributes.pop(CONTENTS, None)
        put_attributes(store, "", attributes)
    for path in paths:
        remove_folder(store, f"{path}/shard_fingerprint")
        remove_folder(store, path)
        _remove_empty_model(store, path.split("/")[0])
    attributes[MEMBERS] = [path for path in attributes.get(MEMBERS, []) if path not in paths]
    if COMPLETE in attributes:
        attributes[COMPLETE] = [path for path in attributes[COMPLETE] if path not in paths]
    if attributes["format"] != FIRST_FORMAT:
        put_attributes(store, "", attributes)
        if finished:
            consolidate(store, attributes)


def refuse_other_groups(store: Store, attributes: dict[str, Any], removed: Sequence[str]) -> None:
    """Raise DamageError where a group that stays is missing, or not the one that the root of a finished store records.

    What is written afterwards would record it as it is.
    """
    staying = [path for path in attributes.get(MEMBERS, []) if path not in removed]
    models = {path.split("/")[0] for path in staying}
    for path, recorded in attributes.get(CONTENTS, {}).items():
        if path in models or path in staying:
            raw = read_file(store, document_key(path))
            if raw is None or fast_digest(raw) != recorded["zarr.json"]:
                raise DamageError(
                    f"{path} is missing, or not the one that the store records; nothing was changed",
                    hint="`drillcore run` on the job makes it again, or remove that group first.",
                )


def _remove_empty_model(store: Store, model: str) -> None:
    if not any(path.split("/")[0] == model for path in group_paths(store)):
        remove_folder(store, model)


def drop_consolidated(store: Store) -> None:
    """Remove the consolidated metadata of a store of format 1, so that readers look at the hierarchy itself."""
    document = parse_document(read_file(store, "zarr.json"))
    if document.pop("consolidated_metadata", None) is not None:
        write_file(store, "zarr.json", json.dumps(document, indent=2).encode())


def consolidate(store: Store, attributes: dict[str, Any]) -> None:
    """Write the root of a finished store: a digest of each group's zarr.json, and consolidated metadata.

    attributes: of the root. Only documents that their groups record are taken. Raises DamageError for any other.
    """
    documents = checked_documents(store, attributes[MEMBERS])
    attributes = {name: value for name, value in attributes.items() if name != COMPLETE}
    groups = {path: {"zarr.json": fast_digest(raw)} for path, raw in documents.items() if len(path.split("/")) <= 2}
    write_file(store, "zarr.json", finished_root({**attributes, CONTENTS: groups}, documents))
