"""A lease on object storage, which has no locks: a small object that its owner renews and that expires by itself.

It is taken and renewed by conditional writes only, so that one of two runs gets it, and each renewal changes it. A
killed run leaves it behind. It is free once this process has seen it unchanged for a while on its own clock, or at once
where its owner was a process of this machine that ended. No clock of a server or of another machine counts.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, NotModifiedError, PreconditionError
from obstore.store import S3Store

from drillcore.errors import CommitError, StoreError
from drillcore.store.places.s3 import WAITS_SECONDS, refused
from drillcore.system.processes import has_ended, name_of, this_machine

LEASE_SECONDS = 60.0
RENEW_SECONDS = 5.0
POLL_SECONDS = 1.0
# A conditional write that came too late.
TAKEN = (PreconditionError, AlreadyExistsError, NotModifiedError)


def _silent(line: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Held:
    """A lease as it was read.

    mark: changes with each renewal. unchanged_seconds: how long this process has seen it so, by its own clock.
    """

    note: dict[str, Any]
    e_tag: str | None
    mark: object
    unchanged_seconds: float

    @property
    def owner(self) -> object:
        """Who holds it."""
        return self.note.get("owner")

    @property
    def has_ended(self) -> bool:
        """Whether its owner was a process of this machine and has ended."""
        here = this_machine()
        return bool(here) and self.note.get("machine") == here and has_ended(self.note.get("process"))

    @property
    def is_free(self) -> bool:
        """Whether its owner has ended or stopped renewing it."""
        return self.has_ended or self.unchanged_seconds > LEASE_SECONDS

    def __str__(self) -> str:
        named = f"process {self.note.get('pid')} on {self.note.get('host')}, since {self.note.get('since')}"
        return named if self.note else "holder unknown"


@dataclass(frozen=True)
class LeaseHold:
    """A run's hold of a store by its lease. bucket, key: of the lease. owner: names the run in it."""

    bucket: S3Store = field(compare=False, repr=False)
    key: str
    address: str
    owner: str

    def check(self, within_seconds: float = 0.0) -> None:
        """Raise CommitError where the lease is another run's by now, or its owner has ended or stopped renewing it."""
        started = _clock_with_sleep()
        if started - _checked.get(self, -float("inf")) < within_seconds:
            return
        held, until = _read(self.bucket, self.key, self.address), time.monotonic() + 2 * RENEW_SECONDS
        while held is None and time.monotonic() < until:
            # Someone removed it: its owner makes it again, unless it has ended.
            time.sleep(min(POLL_SECONDS, RENEW_SECONDS / 4))
            held = _read(self.bucket, self.key, self.address)
        if held is None:
            raise self._lost("its lease was given back or removed")
        if held.owner != self.owner:
            raise self._lost(f"another run took it over, {held}")
        if held.has_ended:
            raise self._lost(f"{held}, has ended")
        if held.unchanged_seconds > 0.75 * LEASE_SECONDS:
            raise self._lost("its lease is not renewed any more")
        _checked[self] = started

    def _lost(self, why: str) -> CommitError:
        return CommitError(
            f"this run no longer holds the store {self.address}: {why}",
            hint="It writes nothing more. To go on, run the same command again: what is committed is kept.",
        )


def refuse_if_leased(
    bucket: S3Store, key: str, address: str, owner: str = "", say: Callable[[str], None] = _silent
) -> Held | None:
    """Raise StoreError, naming the holder, where another run than `owner` has the lease.

    Looks on for as long as it takes to see it renewed, at most `LEASE_SECONDS`, and says so. Returns the lease where
    `owner` has it or its holder has ended; None where there is none.
    """
    first = held = _read(bucket, key, address)
    while held is not None and held.owner != owner and not held.is_free:
        if held is first:
            say(
                f"the store {address} has the lock of another run ({held}): looking for up to {LEASE_SECONDS:.0f} s "
                "whether that run is still under way"
            )
        time.sleep(min(POLL_SECONDS, RENEW_SECONDS / 4))
        held = _read(bucket, key, address)
        if held is not None and first is not None and held.mark != first.mark and held.owner != owner:
            raise StoreError(
                f"another run holds the store {address}: {held}",
                hint="Wait for it, stop it, or give this job another store.",
            )
    return held


@contextmanager
def lease(bucket: S3Store, key: str, address: str, say: Callable[[str], None] = _silent) -> Iterator[LeaseHold]:
    """Hold the lease; raises StoreError where another run has it, CommitError where it was lost meanwhile."""
    note = {
        "owner": uuid4().hex,
        "pid": os.getpid(),
        "host": platform.node(),
        "since": time.strftime("%FT%T%z"),
        "machine": this_machine(),
        "process": name_of(os.getpid()),
        "renewal": 0,
    }
    started = _clock_with_sleep()
    keeper = _Keeper(bucket, key, note, _take(bucket, key, address, note, say), started)
    keeper.start()
    try:
        try:
            yield LeaseHold(bucket, key, address, str(note["owner"]))
        finally:
            keeper.end()
    except _LeaseLost:
        raise CommitError(
            f"another run took over the store {address}: {_read(bucket, key, address) or 'it has ended since'}",
            hint="This run could not renew its lease for too long. What is committed is kept.",
        ) from None


class _LeaseLost(BaseException):
    """Raised in the thread that holds the lease; nothing but the lease itself may catch it."""


class _Keeper(threading.Thread):
    """Renews the lease in the background; interrupts the thread that holds it where the lease is lost.

    renewed: when the lease was last known to be ours, counting the time that the machine slept.
    """

    def __init__(self, bucket: S3Store, key: str, note: dict[str, Any], e_tag: str | None, renewed: float) -> None:
        super().__init__(name="lease", daemon=True)
        self._bucket = bucket
        self._key = key
        self._note = note
        self._e_tag = e_tag
        self._renewed = renewed
        self._holder = threading.get_ident()
        self._done = threading.Event()

    def run(self) -> None:
        """Renew the lease until `end` is called."""
        while not self._done.wait(RENEW_SECONDS):
            # Unreachable: either the next write of the run fails, or the next renewal succeeds.
            with suppress(BaseError, FileNotFoundError):
                if not self._renew():
                    # Not a signal: those are the program's, and its main thread may be busy with something else.
                    holder = ctypes.c_ulong(self._holder)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(holder, ctypes.py_object(_LeaseLost))
                    return

    def _renew(self) -> bool:
        """Renew the lease; returns whether it is still ours. Raises BaseError where that cannot be told."""
        started = _clock_with_sleep()
        # Each renewal has other bytes: the e-tag of equal bytes would be the same.
        self._note["renewal"] += 1
        try:
            self._e_tag = _put(self._bucket, self._key, self._note, {"e_tag": self._e_tag})
        except (*TAKEN, FileNotFoundError):
            if not self._is_still_ours():
                return False
        self._renewed = started
        return True

    def _is_still_ours(self) -> bool:
        """Whether the lease is ours all the same: the answer to a renewal was lost, or someone removed the object."""
        with suppress(StoreError, CommitError):
            held = _read(self._bucket, self._key, "")
            if held is not None:
                if held.owner != self._note["owner"]:
                    return False
                self._e_tag = held.e_tag
                return True
            if _clock_with_sleep() - self._renewed > LEASE_SECONDS:
                return False  # another run may have taken it, and given it back since
            try:
                self._e_tag = _put(self._bucket, self._key, self._note, "create")
            except TAKEN:
                return False
        return True

    def end(self) -> None:
        """Stop renewing and release the lease."""
        self._done.set()
        self.join()
        with suppress(BaseError, FileNotFoundError):
            # Ours for another while, or another run's, which then stays.
            if self._renew():
                obstore.delete(self._bucket, self._key)


def _take(
    bucket: S3Store, key: str, address: str, note: dict[str, Any], say: Callable[[str], None] = _silent
) -> str | None:
    # obstore does not retry a conditional write whose answer was lost: reading shows whether it was made.
    for wait in (*WAITS_SECONDS, None):
        held = refuse_if_leased(bucket, key, address, note["owner"], say)
        if held is not None and held.owner == note["owner"]:
            return held.e_tag
        try:
            return _put(bucket, key, note, "create" if held is None else {"e_tag": held.e_tag})
        except TAKEN:
            continue
        except (BaseError, FileNotFoundError) as error:
            if wait is None or not isinstance(error, GenericError):
                raise refused(error, f"store {address} could not be locked", nothing_written=True) from None
            time.sleep(wait)
    raise StoreError(f"another run is taking the store {address}", hint="Run again when it is done.")


def _put(bucket: S3Store, key: str, note: dict[str, Any], mode: Any) -> str | None:
    return obstore.put(bucket, key, json.dumps(note).encode(), mode=mode).get("e_tag")


def _read(bucket: S3Store, key: str, address: str) -> Held | None:
    try:
        found = obstore.get(bucket, key)
        raw = bytes(found.bytes())
    except FileNotFoundError:
        return None
    except BaseError as error:
        raise refused(error, f"store {address} could not be reached", nothing_written=True) from None
    try:
        note = json.loads(raw)
    except (ValueError, RecursionError):
        note = {}
    note = note if isinstance(note, dict) else {}
    # Leases of older versions have the same bytes after a renewal: that they are newer shows that they are held.
    mark = (found.meta.get("e_tag"), raw, None if "renewal" in note else found.meta["last_modified"])
    place = (bucket.config.get("endpoint"), bucket.config.get("bucket"), key)
    return Held(note, found.meta.get("e_tag"), mark, _unchanged_seconds(place, mark))


# What this process has seen of leases: how each stood when it was last read, and since when; and when each hold was
# last found to be good.
_seen: dict[object, tuple[object, float]] = {}
_checked: dict[LeaseHold, float] = {}


def _unchanged_seconds(place: object, mark: object) -> float:
    """How long a lease has been as it is, as far as this process knows, leaving out when the machine slept."""
    now = time.monotonic()
    before, since = _seen.get(place, (None, now))
    if before != mark:
        since = now
    _seen[place] = (mark, since)
    return now - since


def _clock_with_sleep() -> float:
    """Seconds on a clock that runs on while the machine sleeps, as the clocks of others do."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
