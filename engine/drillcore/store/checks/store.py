"""All checks of a store, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import zarr

from drillcore.store.attributes import (
    COMPLETE,
    CONTENTS,
    GROUPS,
    MEMBERS,
    checked_attributes,
    is_finished,
    is_unsealed,
    parse_document,
)
from drillcore.store.checks.contents import check_models, check_root
from drillcore.store.checks.finding import Finding
from drillcore.store.checks.groups import check_group, group_paths
from drillcore.store.places.files import list_names, read_file
from drillcore.store.places.location import Location
from drillcore.store.reader import open_root
from drillcore.texts.rows import row_ids


class StoreChecks:
    """The checks of one store, opened without those of a reader. is_old: whether it is of format 1, without digests."""

    def __init__(self, root: zarr.Group) -> None:
        self.store = root.store
        self.is_old = is_unsealed(self.store)
        attributes = checked_attributes(self.store, "")
        self._root = attributes
        self._old_finished = "consolidated_metadata" in parse_document(read_file(self.store, "zarr.json"))
        self.paths: list[str] = group_paths(self.store) if self.is_old else attributes.get(MEMBERS, [])

    @property
    def is_finished(self) -> bool:
        """Whether the last run that wrote to the store came to its end."""
        return self._old_finished if self.is_old else CONTENTS in self._root

    def metadata(self) -> Iterator[Finding]:
        """What is wrong with the root and the groups of the models."""
        if not self.is_old:
            yield from check_root(self.store)
            yield from check_models(self.store, self.paths, CONTENTS in self._root)

    def group(self, path: str) -> Iterator[Finding]:
        """What is wrong with the group of one model and dataset."""
        complete = self._old_finished if self.is_old else is_finished(self._root, path)
        if path in self._root.get(COMPLETE, ()) and not list_names(self.store, path):
            yield Finding(path, "zarr.json", "is gone, and was complete before the last run, which did not finish")
            return
        yield from check_group(self.store, path, row_ids, complete, path in self._root.get(GROUPS, (path,)))


def verify(address: str) -> Iterator[Finding]:
    """Check every chunk of every array of a store, its fingerprints, values and metadata.

    Raises StoreError where it is not ours or of another format, DamageError where its root cannot be read.
    """
    checks = StoreChecks(open_root(Location(address), checked=False))
    yield from checks.metadata()
    for path in checks.paths:
        yield from checks.group(path)
