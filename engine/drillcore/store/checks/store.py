"""All checks of a store, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

from drillcore.store.checks.finding import Finding
from drillcore.store.checks.groups import check_group, check_metadata, group_paths
from drillcore.store.places.location import Location
from drillcore.store.reader import open_root
from drillcore.texts.rows import row_ids


def verify(address: str) -> Iterator[Finding]:
    """Check every chunk of every array of a store, its fingerprints, values and metadata.

    Raises StoreError where it is not ours or of another format, DamageError where its root cannot be read.
    """
    location = Location(address)
    root = open_root(location)
    yield from check_metadata(root.store)
    for path in group_paths(root.store):
        yield from check_group(root.store, path, row_ids)
