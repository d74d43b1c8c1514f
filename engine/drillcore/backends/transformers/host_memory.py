"""The C library's memory: how many heaps it has, and what it keeps between the layers of a pass on a CPU."""

from __future__ import annotations

import ctypes
import os
import platform

# Numbers of glibc's mallopt(3), and the largest block that it takes for the second.
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
LARGEST_BLOCK = 32 * 2**20
KEPT = 512 * 2**20


def few_arenas() -> None:
    """Let this process and those that it starts have one heap for each core instead of eight; before any thread starts.

    Each thread's heap keeps what was once needed at the same time there, so that many of them add up to memory which
    grows over the first blocks of a long run. MALLOC_ARENA_MAX in the environment stands above it.
    """
    if platform.libc_ver()[0] != "glibc" or "MALLOC_ARENA_MAX" in os.environ:
        return
    arenas = len(os.sched_getaffinity(0))
    os.environ["MALLOC_ARENA_MAX"] = str(arenas)
    ctypes.CDLL(None).mallopt(ARENA_MAX, arenas)


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
