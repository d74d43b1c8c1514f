"""The store as a folder: files that are on disk when a write returns, and refusals in plain words."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest
from zarr.storage import LocalStore

from drillcore.errors import CommitError, DamageError
from drillcore.store.places.hold import LATELY_SECONDS, Hold
from drillcore.system.files import PARTIAL, flush, replacing


def inside(root: Path, key: str) -> Path:
    """The path of a key of a store's folder; raises ValueError where the key would lead out of it.

    >>> inside(Path("runs/a.zarr"), "m/d/umap/zarr.json").as_posix()
    'runs/a.zarr/m/d/umap/zarr.json'
    """
    if key.startswith("/") or ".." in key.split("/"):
        raise ValueError(f"{key!r} leads out of the store {root}")
    return root / key


class DurableStore(LocalStore):
    """A LocalStore whose writes are on disk when they return: zarr's own renames atomically but never flushes.

    hold: the run's hold of the store; what it lost is not written to any more. Raises CommitError where the place
    refuses a write, DamageError where a file cannot be read.
    """

    def __init__(self, root: Path | str, *, read_only: bool = False, hold: Hold | None = None) -> None:
        super().__init__(root, read_only=read_only)
        self._hold = hold
        self._flushed: set[Path] = set()

    async def set(self, key: str, value: Buffer) -> None:
        """Write, flush and rename the file, then flush its folders, so that no fingerprint outlives its data."""
        await asyncio.to_thread(self.put, key, [value.as_numpy_array().tobytes()])

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write a file unless it exists; only one process creates files, so checking first is enough."""
        if not await self.exists(key):
            await self.set(key, value)

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Bytes of a file, None where there is no such file."""
        try:
            return await super().get(key, prototype, byte_range)
        except OSError as error:
            raise DamageError(
                f"{self.root / key} could not be read: {error.strerror or error}", hint="Check the disk and its rights."
            ) from error

    async def delete(self, key: str) -> None:
        """Remove a file or a folder; it is gone from the disk when this returns."""
        await asyncio.to_thread(self.remove, key)

    async def delete_dir(self, prefix: str) -> None:
        """Remove a folder, or a file in its place; it is gone from the disk when this returns."""
        await asyncio.to_thread(self.remove, prefix)

    async def _open(self, *, mode: object = None) -> None:
        try:
            if not self.read_only:
                make_durable(self.root)
            await super()._open()
        except OSError as error:
            raise _refused(self.root, error) from error

    def put(self, key: str, pieces: Iterable[bytes]) -> None:
        """Like `set` without an event loop; writes each piece as it comes."""
        self._check_writable()
        path = inside(self.root, key)
        self._check_held()
        self._refuse_if_removed(key)
        try:
            self._make_room(path)
            fresh = _make_folders(path.parent)
            _write(path, pieces, self._check_held)
            for folder in dict.fromkeys((path.parent, *fresh, *self._not_flushed(path.parent))):
                flush(folder)
                self._flushed.add(folder)
        except OSError as error:
            self._check_held()
            self._refuse_if_removed(key)
            raise _refused(path, error) from error
        self._refuse_if_removed(key)

    def remove(self, key: str) -> None:
        """Like `delete` without an event loop; does nothing where there is nothing."""
        self._check_writable()
        self._check_held()
        path = inside(self.root, key)
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            flush(path.parent)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _refused(path, error) from error

    def _make_room(self, path: Path) -> None:
        """Remove a folder that stands where a file of the store must be, or a file where a folder must be."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        for folder in path.parents:
            if folder == self.root or folder.is_dir():
                break
            # Another thread may make the folder right now.
            with suppress(IsADirectoryError, PermissionError):
                folder.unlink(missing_ok=True)

    def rename(self, folder: str, to: str) -> None:
        """Give a folder another key, on disk when this returns."""
        self._check_writable()
        self._check_held()
        old, new = inside(self.root, folder), inside(self.root, to)
        try:
            old.rename(new)
            for parent in {old.parent, new.parent}:
                flush(parent)
        except OSError as error:
            raise _refused(new, error) from error

    def _check_held(self) -> None:
        if self._hold is not None:
            self._hold.check(LATELY_SECONDS)

    def _not_flushed(self, folder: Path) -> list[Path]:
        """Folders around one up to the store's: a run killed as it created them may have left them without a flush."""
        return [f for f in folder.parents if self.root in (f, *f.parents) and f not in self._flushed]

    def _refuse_if_removed(self, key: str) -> None:
        """Do not leave a chunk without its array, or an array without its store: that would look like a store."""
        array, chunk, _ = key.rpartition("/c/")
        owner = f"{array}/zarr.json" if chunk else "zarr.json"
        if owner != key and not (self.root / owner).exists():
            with suppress(OSError):
                (self.root / key).unlink(missing_ok=True)
                for folder in (self.root / key).parents:
                    folder.rmdir()  # until one that is not empty
                    if folder == self.root:
                        break
            raise CommitError(
                f"store {self.root} was removed while the run was under way: {owner} is gone",
                hint="Remove what is left of it, then run the same command again.",
            )


def read_local(path: Path) -> bytes | None:
    """All bytes of a file; None where there is none, or something that is not a file. Raises DamageError."""
    try:
        # Reading a pipe in the place of a file would never end.
        with open(path, "rb", opener=_open_at_once) as stream:
            return stream.read() if stat.S_ISREG(os.fstat(stream.fileno()).st_mode) else None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise DamageError(
            f"{path} could not be read: {error.strerror or error}", hint="Check the disk and its rights."
        ) from error


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def sweep(root: Path) -> None:
    """Remove the partial files that a killed run left."""
    for partial in root.rglob(f"*{PARTIAL}"):
        try:
            partial.unlink(missing_ok=True)
        except OSError as error:
            raise _refused(partial, error) from error


def make_durable(folder: Path) -> None:
    """Create a folder with its parents; its entry in its parent is on disk when this returns. Raises OSError."""
    fresh = _make_folders(folder)
    for parent in fresh:
        flush(parent)
    if folder.parent not in fresh:
        # A run that was killed as it created the folder may have left it without a flush.
        with suppress(PermissionError):
            flush(folder.parent)


def _make_folders(folder: Path) -> list[Path]:
    """Create a folder with its parents; returns the folders that got a new entry."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
    return [path.parent for path in missing]


def _write(path: Path, pieces: Iterable[bytes], check: Callable[[], None]) -> None:
    """Write, flush and rename a file. check: called right before the rename, which is what another store would see."""
    scratch = path.with_name(f"{path.name}.{uuid4().hex}{PARTIAL}")
    with replacing(path, scratch), scratch.open("wb") as stream:
        stream.writelines(pieces)
        stream.flush()
        os.fsync(stream.fileno())
        check()


def _refused(path: Path, error: OSError) -> CommitError:
    return CommitError(
        f"{path} could not be written: {error.strerror or error}",
        hint="Free space or fix the folder, then run the same command again: what is committed is kept.",
    )
