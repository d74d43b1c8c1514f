"""The lock of a store in a folder: a file lock on the folder itself, which the system releases when its owner dies.

No other name of the folder leads around it, and neither does the removal of what lies beside it. A note beside the
store says who holds it. The note is locked too: it keeps out versions of drillcore that lock nothing else, and runs on
other hosts where a network file system knows of locks on files and not of those on folders.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from drillcore.errors import CommitError, StoreError
from drillcore.store.places.local import make_durable
from drillcore.system.processes import has_ended, name_of, this_machine

# Whoever asks whether a store is held has it for an instant.
TRIES, TRY_SECONDS = 10, 0.02
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class FolderHold:
    """A run's hold of a folder.

    path: of the store, as the run names it. note: path of the note. device, inode: of the folder. run: names the run in
    the note. machine, process: of the run, by `system.processes`.
    """

    path: str
    note: str
    device: int
    inode: int
    run: str
    machine: str
    process: str

    def check(self, within_seconds: float = 0.0) -> None:
        """Raise CommitError where the folder is another one by now, or the run that locked it does not hold it.

        A worker on another machine goes by the note alone: what it sees of inodes and locks there proves nothing.
        """
        holder = _read_note(Path(self.note)).get("run")
        if self.machine != this_machine():
            if holder != self.run:
                raise self._lost("another run holds it, or the note of who holds it was removed")
            return
        try:
            found = Path(self.path).stat()
        except OSError:
            raise self._lost("its folder is gone") from None
        if (found.st_dev, found.st_ino) != (self.device, self.inode):
            raise self._lost("another folder is in its place")
        if has_ended(self.process):
            raise self._lost(f"process {self.process.partition(' ')[0]}, which held it, has ended")
        if not _is_locked(Path(self.path)):
            raise self._lost("the run that held it has ended")
        if holder not in (None, self.run):
            raise self._lost("another run holds it")

    def _lost(self, why: str) -> CommitError:
        return CommitError(
            f"this run no longer holds the store {self.path}: {why}",
            hint="It writes nothing more. To go on, run the same command again: what is committed is kept.",
        )


def refuse_if_locked(root: Path, note: Path, address: str) -> None:
    """Raise StoreError, naming the holder, where another run has the store, or the note cannot be one; only reads."""
    _refuse_other_kind(note)
    with ExitStack() as closing, suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        for path in (root, note):
            if path.exists():
                _lock(_open(path, os.O_RDONLY, closing), fcntl.LOCK_SH, path, note, address)


@contextmanager
def folder_lock(root: Path, note: Path, address: str) -> Iterator[FolderHold]:
    """Hold a store's folder, which is created where it does not exist.

    root: of the store, links resolved. note: file of the note, beside the store. Raises StoreError, naming the holder,
    where another run has it, or where the system cannot lock it; CommitError where it cannot be created.
    """
    refuse_if_locked(root, note, address)
    with ExitStack() as closing:
        held = _hold_folder(root, note, address, closing)
        file = _open_note(note, closing)
        if file is not None:
            _lock(file, fcntl.LOCK_EX, note, note, address)
        found, run = os.fstat(held), uuid4().hex
        facts = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%FT%T%z"), "run": run}
        _write_note(file, json.dumps(facts).encode())
        try:
            place = (str(Path(address).absolute()), str(note.absolute()))
            yield FolderHold(*place, found.st_dev, found.st_ino, run, this_machine(), name_of(os.getpid()))
        finally:
            # Workers on other machines see by the note that nobody waits for them any more.
            _write_note(file, b"")


def _hold_folder(root: Path, note: Path, address: str, closing: ExitStack) -> int:
    """Descriptor of the locked folder, which is the one at its path."""
    for _ in range(TRIES):
        is_new = not root.exists()
        _create(root)
        with ExitStack() as opened, suppress(FileNotFoundError):
            descriptor = _open(root, os.O_RDONLY | os.O_DIRECTORY, opened)
            try:
                _lock(descriptor, fcntl.LOCK_EX, root, note, address)
            except _CannotLock:
                if is_new:
                    root.rmdir()
                raise
            if os.path.samestat(os.fstat(descriptor), root.stat()):
                closing.enter_context(opened.pop_all())
                return descriptor
        # Another run, which was refused, removed the folder that it had created.
    raise StoreError(f"store {address} is being removed", hint="Run the same command again.")


def _create(root: Path) -> None:
    try:
        make_durable(root)
        if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise CommitError(
            f"store {root} could not be created or written: {error.strerror or error}",
            hint="Free space or fix the folder, then run the same command again.",
        ) from error


class _CannotLock(StoreError):
    """The file system knows of no locks."""


def locked(descriptor: int, how: int) -> bool:
    """Whether a lock of the system (`fcntl.LOCK_EX`, ...) was got; raises OSError where there are none."""
    for left in reversed(range(TRIES)):
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if left:
                time.sleep(TRY_SECONDS)
    return False


def _lock(descriptor: int, how: int, path: Path, note: Path, address: str) -> None:
    try:
        if locked(descriptor, how):
            return
    except OSError as error:
        raise _CannotLock(
            f"{path} cannot be locked: {error.strerror or error}; two runs could write to it at once",
            hint="Put the store on a file system with locks, such as a local disk, or on s3://.",
        ) from None
    raise StoreError(
        f"another run holds the store {address}: {_holder(_read_note(note))}",
        hint="Wait for it, stop it, or give this job another store.",
    )


def _is_locked(path: Path) -> bool:
    """Whether someone holds a folder."""
    with ExitStack() as closing:
        try:
            fcntl.flock(_open(path, os.O_RDONLY, closing), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True  # or it cannot be told: too many files are open
    return False


def _open(path: Path, flags: int, closing: ExitStack) -> int:
    # Without waiting: a pipe would wait for its other end.
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    closing.callback(os.close, descriptor)
    return descriptor


def _open_note(note: Path, closing: ExitStack) -> int | None:
    """Open the note, which is created where it does not exist; None where the disk is too full for one.

    The folder itself is locked: a run that makes room, such as `drillcore rm`, needs no note.
    """
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        return _open(note, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, closing)
    except OSError as error:
        if error.errno in FULL:
            return None
        raise CommitError(
            f"{note} could not be written: {error.strerror or error}", hint="Fix the folder or its permissions."
        ) from error


def _refuse_other_kind(note: Path) -> None:
    """Raise StoreError where something else than a plain file, or than a folder for it, is in the note's place."""
    standing = next(p for p in (note, *note.absolute().parents) if os.path.lexists(p))
    if standing == note and not (note.is_file() and not note.is_symlink()):
        what = f"{note} is not a plain file, and would hold the note of who holds the store"
    elif standing != note and not standing.is_dir():
        what = f"{note.parent} cannot be a folder: {standing} is a file"
    else:
        return
    raise StoreError(what, hint="Move it away, or give this job another store.")


def _write_note(file: int | None, text: bytes) -> None:
    """Replace the note's text; on a full disk it is left empty, so that it never names an earlier run."""
    if file is not None:
        with suppress(OSError):
            os.ftruncate(file, 0)
            os.pwrite(file, text, 0)


def _read_note(note: Path) -> dict[str, Any]:
    """The note; empty where there is none that can be read."""
    try:
        if not stat.S_ISREG(note.stat().st_mode):
            return {}
        facts = json.loads(note.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _holder(facts: dict[str, Any]) -> str:
    try:
        return f"process {facts['pid']} on {facts['host']}, since {facts['since']}"
    except KeyError:
        return "holder unknown"
