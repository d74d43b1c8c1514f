"""A lease on object storage, which has no locks: a small object that its owner renews and that expires by itself.

It is taken and renewed by conditional writes only, so that one of two runs gets it. A killed run leaves it behind: it
is free once it has not been renewed for a while, or at once where its owner was a process of this machine that ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, NotModifiedError, PreconditionError
from obstore.store import S3Store

from drillcore.errors import CommitError, StoreError
from drillcore.store.places.s3 import WAITS_SECONDS, refused

LEASE_SECONDS = 60.0
RENEW_SECONDS = 15.0


@dataclass(frozen=True)
class Held:
    """A lease as it was read. age_seconds: time since it was last renewed, by this machine's clock."""

    note: dict[str, Any]
    e_tag: str | None
    age_seconds: float

    @property
    def is_free(self) -> bool:
        """Whether its owner has ended or stopped renewing it."""
        return self.age_seconds > LEASE_SECONDS or (
            self.note.get("machine") == _machine() and not _runs(self.note.get("process"))
        )

    def __str__(self) -> str:
        named = f"process {self.note.get('pid')} on {self.note.get('host')}, since {self.note.get('since')}"
        return named if self.note else "holder unknown"


def refuse_if_leased(bucket: S3Store, key: str, address: str, owner: str = "") -> Held | None:
    """Raise StoreError, naming the holder, where another run than `owner` has the lease.

    Returns the lease where `owner` has it or its holder has ended; None where there is none.
    """
    held = _read(bucket, key, address)
    if held is not None and not held.is_free and held.note.get("owner") != owner:
        raise StoreError(
            f"another run holds the store {address}: {held}",
            hint=f"Wait for it or stop it. If it died on another machine, its lease ends within {LEASE_SECONDS:.0f} s.",
        )
    return held


@contextmanager
def lease(bucket: S3Store, key: str, address: str) -> Iterator[None]:
    """Hold the lease; raises StoreError where another run has it, CommitError where it was lost meanwhile."""
    note = {
        "owner": uuid4().hex,
        "pid": os.getpid(),
        "host": platform.node(),
        "since": time.strftime("%FT%T%z"),
        "machine": _machine(),
        "process": _process(os.getpid()),
    }
    keeper = _Keeper(bucket, key, note, _take(bucket, key, address, note))
    keeper.start()
    try:
        try:
            yield
        finally:
            keeper.end()
    except _LeaseLost:
        raise CommitError(
            f"another run took over the store {address}: {_read(bucket, key, address)}",
            hint="This run could not renew its lease for too long. What is committed is kept.",
        ) from None


class _LeaseLost(BaseException):
    """Raised in the thread that holds the lease; nothing but the lease itself may catch it."""


class _Keeper(threading.Thread):
    """Renews the lease in the background; interrupts the thread that holds it where the lease is lost."""

    def __init__(self, bucket: S3Store, key: str, note: dict[str, Any], e_tag: str | None) -> None:
        super().__init__(name="lease", daemon=True)
        self._bucket = bucket
        self._key = key
        self._note = note
        self._e_tag = e_tag
        self._holder = threading.get_ident()
        self._done = threading.Event()

    def run(self) -> None:
        """Renew the lease until `end` is called."""
        while not self._done.wait(RENEW_SECONDS):
            try:
                self._e_tag = _put(self._bucket, self._key, self._note, {"e_tag": self._e_tag})
            except (PreconditionError, AlreadyExistsError, NotModifiedError, FileNotFoundError):
                if not self._is_still_ours():
                    # Not a signal: those are the program's, and its main thread may be busy with something else.
                    holder = ctypes.c_ulong(self._holder)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(holder, ctypes.py_object(_LeaseLost))
                    return
            except BaseError:
                continue  # unreachable: either the next write of the run fails, or the next renewal succeeds

    def _is_still_ours(self) -> bool:
        """Whether the lease is ours all the same: the answer to a renewal was lost, or someone removed the object."""
        with suppress(BaseError, StoreError, CommitError):
            held = _read(self._bucket, self._key, "")
            if held is None:
                self._e_tag = _put(self._bucket, self._key, self._note, "create")
                return True
            self._e_tag = held.e_tag
            return bool(held.note.get("owner") == self._note["owner"])
        return True

    def end(self) -> None:
        """Stop renewing and release the lease."""
        self._done.set()
        self.join()
        with suppress(BaseError, FileNotFoundError, StoreError, CommitError):
            held = _read(self._bucket, self._key, "")
            if held is not None and held.note.get("owner") == self._note["owner"]:
                obstore.delete(self._bucket, self._key)


def _take(bucket: S3Store, key: str, address: str, note: dict[str, Any]) -> str | None:
    # obstore does not retry a conditional write whose answer was lost: reading shows whether it was made.
    for wait in (*WAITS_SECONDS, None):
        held = refuse_if_leased(bucket, key, address, note["owner"])
        if held is not None and held.note.get("owner") == note["owner"]:
            return held.e_tag
        try:
            return _put(bucket, key, note, "create" if held is None else {"e_tag": held.e_tag})
        except (PreconditionError, AlreadyExistsError, NotModifiedError):
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
    except ValueError:
        note = {}
    age = time.time() - found.meta["last_modified"].timestamp()
    return Held(note if isinstance(note, dict) else {}, found.meta.get("e_tag"), age)


def _machine() -> str:
    """Names this boot and space of process numbers; empty where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _process(pid: int) -> str:
    """Names a process beyond the reuse of its number; empty where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The state and the start time follow the name, which stands in brackets and may hold anything.
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else f"{pid} {fields[19]}"


def _runs(process: Any) -> bool:
    if not isinstance(process, str) or not process or not _machine():
        return True
    pid = process.partition(" ")[0]
    return pid.isdigit() and _process(int(pid)) == process
