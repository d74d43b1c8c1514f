"""Entries of the cache's folder: each is one file with a digest of all its bytes, which is checked when it is opened.

An entry is its data, a note in JSON (versions, folder, key, size, facts), the length of the note, and the XXH3-128 of
all bytes before. It is written under another name, flushed to disk and renamed, so that nobody reads half of one, and
its key stands inside, so that it is not taken for another. One that is wrong is never obeyed: that is said in one line
(`progress.tell`), and whoever asked for it makes it again. The check reads the file once, at several GB/s.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import xxhash

from drillcore.errors import RunError
from drillcore.system.files import cache_dir, canonical, digest, file_digest, flush
from drillcore.system.progress import tell

Value = TypeVar("Value")

# Increase this where older entries could not be read any more.
FORMAT = 1
DIGEST_BYTES, LENGTH_BYTES = 16, 8
READ_AT_A_TIME = 2**20
# Names that are not finished entries yet begin like this; earlier versions called theirs otherwise.
SCRATCH = ".writing-"
SCRATCHES = (f"{SCRATCH}*", ".converting-*", "rows-*.tmp")
STALE_SECONDS = 24 * 3600
# A file that changed so little time ago may change once more without another time of change.
SETTLED_SECONDS = 2.0
# What reading JSON of another shape than the expected one raises.
FOREIGN = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError)


class WrongEntry(Exception):
    """An entry must not be used; the text says why, as the end of a sentence about it."""


@dataclass(frozen=True)
class Opened:
    """An entry whose bytes are as they were written.

    facts: JSON. data: its bytes, memory-mapped. mapped: the whole file, to be given to `files.release`.
    """

    facts: Any
    data: memoryview
    mapped: mmap.mmap


class Draft(io.RawIOBase):
    """An entry that is being written. facts: JSON, to be set before the end."""

    def __init__(self, stream: io.BufferedWriter, refused: Callable[[OSError], RunError]) -> None:
        self._stream, self._refused = stream, refused
        self._found, self.num_bytes = xxhash.xxh3_128(), 0
        self.facts: Any = None

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Any, /) -> int:
        """Add bytes, or any buffer of them; raises RunError."""
        count = memoryview(data).nbytes
        self._found.update(data)
        try:
            self._stream.write(data)
        except OSError as error:
            raise self._refused(error) from error
        self.num_bytes += count
        return count

    def seal(self) -> None:
        """Add the digest, and flush the file to disk."""
        self.write(self._found.digest())
        self._stream.flush()
        os.fsync(self._stream.fileno())


@dataclass(frozen=True)
class Entry:
    """The place of an entry, whether or not it is there.

    folder: of all entries of its kind; its name is bound too. key: digest of all that decides what the entry holds, in
    ASCII. what: what it is, for messages. version: of what its kind keeps; another one is made again.
    """

    folder: Path
    key: str
    what: str
    version: int = 1

    @property
    def path(self) -> Path:
        """Its file."""
        return self.folder / f"{self.key}.entry"

    def read(self, parse: Callable[[Opened], Value]) -> Value | None:
        """What `parse` makes of the entry; None where there is none, or a wrong one, which is said.

        parse: raises WrongEntry with the reason, or ValueError and the like for something else than it expects.
        """
        try:
            return parse(self.open())
        except FileNotFoundError:
            return None
        except WrongEntry as wrong:
            tell(f"cache: {self.path} ({self.what}) {wrong}; it is made again")
        except FOREIGN:
            tell(f"cache: {self.path} ({self.what}) holds something else; it is made again")
        return None

    def read_back(self, parse: Callable[[Opened], Value]) -> Value:
        """What `parse` makes of an entry that was just written; raises RunError where that is not what was written."""
        found = self.read(parse)
        if found is None:
            hint = "Check the disk, or name another folder in XDG_CACHE_HOME."
            raise RunError(f"{self.path}: {self.what} did not come back as they were written", hint=hint)
        return found

    def open(self) -> Opened:
        """Check the entry and map it; raises FileNotFoundError, and WrongEntry for one that must not be used."""
        try:
            with io.FileIO(self.path, opener=_without_waiting) as stream:
                return self._opened(stream)
        except FileNotFoundError:
            if self.path.is_symlink():
                raise WrongEntry("is a broken link") from None
            raise
        except OSError as error:
            raise WrongEntry(f"cannot be read ({error.strerror})") from error

    def _opened(self, stream: io.FileIO) -> Opened:
        state = os.fstat(stream.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise WrongEntry("is not a file")
        note_end = state.st_size - DIGEST_BYTES - LENGTH_BYTES
        if note_end < 0:
            raise WrongEntry("is cut off")
        hexadecimal = _hash(stream, state.st_size - DIGEST_BYTES)
        # The pages that were just hashed are the ones that are mapped.
        mapped = mmap.mmap(stream.fileno(), state.st_size, access=mmap.ACCESS_READ)
        if hexadecimal != mapped[-DIGEST_BYTES:].hex():
            raise WrongEntry("is damaged")
        length = int.from_bytes(mapped[note_end : note_end + LENGTH_BYTES], "little")
        if length > note_end:
            raise WrongEntry("is damaged")
        return Opened(self._facts(mapped[note_end - length : note_end], note_end - length), *_data(mapped, length))

    def _facts(self, raw: bytes, num_bytes: int) -> Any:
        try:
            note = json.loads(raw)
            facts, versions, place = note["facts"], note["versions"], (note["folder"], note["key"])
        except (ValueError, TypeError, KeyError):
            raise WrongEntry("is damaged") from None
        if versions != [FORMAT, self.version]:
            raise WrongEntry("is of another version")
        if place != (self.folder.name, self.key) or note.get("bytes") != num_bytes:
            raise WrongEntry("is that of something else")
        return facts

    @contextmanager
    def writing(self) -> Iterator[Draft]:
        """Yield the entry to write; when the block ends it takes the place of whatever has its name.

        After an error nothing has changed. Raises RunError where the cache cannot be written.
        """
        scratch = self.folder / f"{SCRATCH}{uuid4().hex}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._tidy()
            stream = scratch.open("xb")
        except OSError as error:
            raise self._refused(error) from error
        try:
            draft = Draft(stream, self._refused)
            yield draft
            note = {"versions": [FORMAT, self.version], "folder": self.folder.name, "key": self.key}
            raw = canonical({**note, "bytes": draft.num_bytes, "facts": draft.facts})
            draft.write(raw + len(raw).to_bytes(LENGTH_BYTES, "little"))
            self._finish(draft, scratch)
        finally:
            with suppress(OSError):  # of a full disk, which was an error of ours before
                stream.close()
            remove(scratch)

    def write(self, facts: Any) -> None:
        """Write an entry that is facts alone; raises RunError."""
        with self.writing() as draft:
            draft.facts = facts

    def remove(self) -> None:
        """Remove the entry, if it is there."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _finish(self, draft: Draft, scratch: Path) -> None:
        try:
            draft.seal()
            if self.path.is_dir() and not self.path.is_symlink():
                shutil.rmtree(self.path)
            scratch.replace(self.path)
            flush(self.folder)
        except OSError as error:
            raise self._refused(error) from error

    def _tidy(self) -> None:
        """Remove what killed runs left half-written, and what earlier versions kept under this key."""
        sweep(self.folder)
        found = [self.folder / self.key, *sorted(self.folder.glob(f"{self.key}.*"))]
        earlier = [path for path in found if path != self.path and os.path.lexists(path)]
        if earlier:
            tell(f"cache: {earlier[0]} ({self.what}) is of an earlier version; it is made again")
        for path in earlier:
            remove(path)

    def _refused(self, error: OSError) -> RunError:
        hint = "Free some space, or name another folder in XDG_CACHE_HOME."
        return RunError(f"{self.folder}: cannot write {self.what} there: {error.strerror or error}", hint=hint)


def sweep(folder: Path) -> None:
    """Remove scratch files and folders that were not written to for a day: killed runs left them."""
    for scratch in (found for pattern in SCRATCHES for found in folder.glob(pattern)):
        with suppress(OSError):
            if scratch.lstat().st_mtime < time.time() - STALE_SECONDS:
                remove(scratch)


def remove(path: Path) -> None:
    """Remove a file or a folder as far as that can be done; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def keep_within(folder: Path, num_bytes: int) -> None:
    """Remove the entries of a folder that were written first until the others take at most `num_bytes`."""
    found = []
    for path in folder.glob("*.entry"):
        with suppress(OSError):
            state = path.stat()
            found.append((state.st_mtime_ns, state.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= num_bytes:
            return
        remove(path)
        total -= size


def remembered_digest(path: Path, *, afresh: bool = False) -> str:
    """`file_digest`, kept in the cache by the file's path, device, inode, size and times of change. Raises OSError.

    The time of change that `os.utime`, `cp -p` and rsync set is not enough: the system's own (ctime) counts too. What
    the system does not note there, such as a bit that flips on the disk, shows only where the file is read again.
    afresh: read it whatever is kept. Raises RunError where the cache cannot be written.
    """
    state = _state(path)
    entry = Entry(cache_dir() / "digests", digest(state), "the digest of a file")
    found = None if afresh else entry.read(_sha256)
    if found is not None:
        return found
    hexadecimal = file_digest(path)
    if _state(path) == state and time.time() - path.stat().st_ctime > SETTLED_SECONDS:
        entry.write(hexadecimal)
    return hexadecimal


def _state(path: Path) -> list[str | int]:
    state = path.stat()
    times = (state.st_mtime_ns, state.st_ctime_ns)
    return [str(path.resolve()), state.st_dev, state.st_ino, state.st_size, *times]


def _sha256(opened: Opened) -> str:
    if not isinstance(opened.facts, str) or not re.fullmatch("[0-9a-f]{64}", opened.facts):
        raise ValueError
    return opened.facts


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a named pipe in its place would else wait for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _hash(stream: io.FileIO, num_bytes: int) -> str:
    """XXH3-128 of the first bytes of a file, as hex."""
    found, piece, left = xxhash.xxh3_128(), memoryview(bytearray(READ_AT_A_TIME)), num_bytes
    while left:
        count = stream.readinto(piece[: min(left, READ_AT_A_TIME)])
        if not count:
            break
        found.update(piece[:count])
        left -= count
    return found.hexdigest()


def _data(mapped: mmap.mmap, note_bytes: int) -> tuple[memoryview, mmap.mmap]:
    stop = len(mapped) - DIGEST_BYTES - LENGTH_BYTES - note_bytes
    return memoryview(mapped)[:stop], mapped
