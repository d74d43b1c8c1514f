"""Files mapped into memory, and how their pages go back: those that were read count as the process's own."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
