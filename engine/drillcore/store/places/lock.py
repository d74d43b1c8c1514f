"""Keeps a second run out of a store: a lock on its folder, which the system releases when its owner dies, or a lease.

What a run writes, it writes through the location that the lock yields: that one refuses to once the lock is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from drillcore.store.places.folder_lock import folder_lock, refuse_if_locked
from drillcore.store.places.location import Location, read_only_place
from drillcore.system.bounds import real_path

if TYPE_CHECKING:
    from obstore.store import S3Store


def _silent(line: str) -> None:
    """Say nothing."""


def refuse_if_held(location: Location, say: Callable[[str], None] = _silent) -> None:
    """Raise StoreError, naming the holder, where another run has the store; writes nothing.

    On S3 it takes up to a minute to tell a run that is under way from one that was killed on another machine; a line
    says so.
    """
    _refuse_hub(location)
    if location.is_s3:
        from drillcore.store.places.lease import refuse_if_leased

        refuse_if_leased(*_lease_place(location), location.address, say=say)
    else:
        refuse_if_locked(*_folder_place(location), location.address)


@contextmanager
def store_lock(location: Location, say: Callable[[str], None] = _silent) -> Iterator[Location]:
    """Hold the lock of a store; yields its location, which writes only while the lock is held.

    Raises StoreError, naming the holder, where another run has it; CommitError where no lock can be created, or it was
    lost meanwhile.
    """
    _refuse_hub(location)
    if location.is_s3:
        from drillcore.store.places.lease import lease

        with lease(*_lease_place(location), location.address, say) as leased:
            yield replace(location, hold=leased)
    else:
        with folder_lock(*_folder_place(location), location.address) as locked:
            yield replace(location, hold=locked)


def _refuse_hub(location: Location) -> None:
    if location.is_hub:
        raise read_only_place(location.address)


def _folder_place(location: Location) -> tuple[Path, Path]:
    """The store's folder, and the note of who holds it, which lies beside it."""
    return real_path(location.path), location.bookkeeping / "lock"


def _lease_place(location: Location) -> tuple[S3Store, str]:
    """Bucket and key of the lease: beside the store, never in it."""
    from drillcore.store.places.s3 import open_bucket

    bucket, key = location.bucket_and_key
    return open_bucket(bucket, ""), f"{key}.lock"
