"""The C library's memory between the layers of a pass on a CPU."""

from __future__ import annotations

import ctypes
import platform

# Numbers of glibc's mallopt(3), and the largest block that it takes for the first.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST_BLOCK = 32 * 2**20
KEPT = 512 * 2**20


def keep_freed_memory() -> None:
    """Let freed blocks of up to 32 MiB serve again at once, with 512 MiB at most kept back.

    glibc gives each layer's intermediate values back to the system and asks for them again: every page is then faulted
    in and zeroed anew, which costs a small model a fifth of its time. Elsewhere than on glibc nothing is done.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    library.mallopt(MMAP_THRESHOLD, LARGEST_BLOCK)
    library.mallopt(TRIM_THRESHOLD, KEPT)
