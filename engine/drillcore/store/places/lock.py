"""Keeps a second run out of a store: a file lock, which the system releases when its owner dies, or a lease on S3."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from drillcore.errors import CommitError, StoreError
from drillcore.store.places.location import Location, make_folder


def refuse_if_held(location: Location) -> None:
    """Raise StoreError, naming the holder, where another run has the store; writes nothing."""
    if location.is_s3:
        from drillcore.store.places.lease import refuse_if_leased

        refuse_if_leased(*_lease_place(location), location.address)
        return
    lock = location.bookkeeping / "lock"
    with suppress(FileNotFoundError, NotADirectoryError), lock.open("r", encoding="utf-8") as stream:
        _hold(stream, location, fcntl.LOCK_SH)


@contextmanager
def store_lock(location: Location) -> Iterator[None]:
    """Hold the lock of a store.

    Raises StoreError, naming the holder, where another run has it; CommitError where no lock can be created.
    """
    if location.is_s3:
        from drillcore.store.places.lease import lease

        with lease(*_lease_place(location), location.address):
            yield
        return
    make_folder(location.bookkeeping)
    with _locked(location):
        yield


@contextmanager
def _locked(location: Location) -> Iterator[None]:
    lock = location.bookkeeping / "lock"
    try:
        stream = lock.open("a+", encoding="utf-8")
    except OSError as error:
        what = f"{lock} could not be written: {error.strerror}"
        raise CommitError(what, hint="Fix the folder or its permissions.") from error
    with stream:
        _hold(stream, location, fcntl.LOCK_EX)
        # A note for the run that comes second; a full disk must not keep out the first one.
        with suppress(OSError):
            stream.truncate(0)
            stream.write(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%FT%T%z")}))
            stream.flush()
        yield


def _hold(stream: TextIOWrapper, location: Location, how: int) -> None:
    try:
        fcntl.flock(stream, how | fcntl.LOCK_NB)
    except OSError:
        raise StoreError(
            f"another run holds the store {location.address}: {_holder(location.bookkeeping / 'lock')}",
            hint="Wait for it, stop it, or give this job another store.",
        ) from None


def _holder(path: Path) -> str:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        return f"process {note['pid']} on {note['host']}, since {note['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "holder unknown"


def _lease_place(location: Location) -> tuple[Any, str]:
    """Bucket and key of the lease: beside the store, never in it."""
    from drillcore.store.places.s3 import open_bucket

    bucket, key = location.bucket_and_key
    return open_bucket(bucket, ""), f"{key}.lock"
