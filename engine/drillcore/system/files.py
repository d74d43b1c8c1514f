"""The cache's folder, digests, files that are replaced as a whole, and files that are mapped."""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

# Ends the name of a file that is being written; what a killed process left under it is removed or written over.
PARTIAL = ".partial"


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/drillcore`, by default `~/.cache/drillcore`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "drillcore"


def canonical(value: Any) -> bytes:
    """Canonical JSON of a JSON-ready value: sorted keys, no spaces, UTF-8. Equal values give equal bytes.

    >>> canonical({"b": 1, "a": [True, "é"]}).decode()
    '{"a":[true,"é"],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def without_nan(value: Any) -> Any:
    """A JSON-ready value with null for NaN and infinity, which JSON does not have and other programs refuse.

    >>> without_nan({"share": (1.0, float("nan"))})
    {'share': [1.0, None]}
    """
    if isinstance(value, dict):
        return {name: without_nan(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def digest(value: Any) -> str:
    """SHA-256 of canonical JSON, as 64 hex digits.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    >>> digest([])[:16]
    '4f53cda18c2baa0c'
    """
    return hashlib.sha256(canonical(value)).hexdigest()


class ValuesDigest:
    """SHA-256 of values as text, given in pieces.

    >>> whole, parts = ValuesDigest(), ValuesDigest()
    >>> whole.add(["a", "b"]), parts.add(["a"]), parts.add(["b"])
    (None, None, None)
    >>> whole.hexadecimal == parts.hexadecimal
    True
    """

    def __init__(self) -> None:
        self._found, self.num_values = hashlib.sha256(), 0

    def add(self, values: Iterable[object]) -> None:
        """Add values, each as Python prints it."""
        for value in values:
            text = str(value).encode()
            self._found.update(len(text).to_bytes(8, "little") + text)
            self.num_values += 1

    @property
    def hexadecimal(self) -> str:
        """The digest of what was added, as 64 hex digits."""
        return self._found.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex; reads all of it. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def replacing(path: Path, scratch: Path | None = None) -> Iterator[Path]:
    """Yield a scratch path to write; when the block ends, that file takes the place of `path` in one step.

    Readers see the old file or the whole new one. After an error the scratch file is removed and `path` is as before.
    scratch: a path in the same folder, by default the name of `path` with `.partial` after it; processes that may write
    the same file at the same moment need one each. Raises OSError; whoever needs the bytes on disk flushes them inside.
    """
    scratch = scratch or path.with_name(path.name + PARTIAL)
    try:
        yield scratch
        scratch.replace(path)
    except BaseException:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that readers see all of it or none, and flush it to disk; makes the folder. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, path.with_name(f".writing-{uuid4().hex}")) as scratch, scratch.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def release(mapped: mmap.mmap | memoryview | NDArray[Any]) -> None:
    """Give back the memory of a file that is mapped for reading; what is used again is read again.

    Does nothing for an array that is not in a mapped file.
    """
    owner: object = mapped
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)


def flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
