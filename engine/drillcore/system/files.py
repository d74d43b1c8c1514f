"""Where re-creatable things are kept: converted models, read rows, token ids, file digests."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/drillcore`, by default `~/.cache/drillcore`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "drillcore"


def canonical(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(value: Any) -> str:
    """SHA-256 of canonical JSON, as hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, remembered by its path, size and time of change."""
    state = path.stat()
    key = digest([str(path.resolve()), state.st_size, state.st_mtime_ns, state.st_ino])
    note = cache_dir() / "digests" / key
    if note.exists():
        return note.read_text(encoding="ascii")
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    write_atomic(note, found.encode())
    return found


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that readers see all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(scratch).chmod(0o666 & ~mask)  # a scratch file is private, what is kept is not
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def map_file(path: Path) -> mmap.mmap:
    """A whole file, for reading. Raises OSError, and ValueError where it is empty."""
    with path.open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def release(mapped: mmap.mmap | NDArray[Any]) -> None:
    """Let the pages of a file that is mapped for reading go; what is used again is read again.

    Without effect on an array that is in no file.
    """
    owner: object = mapped
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)
