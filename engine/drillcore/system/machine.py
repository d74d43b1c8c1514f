"""Cores, memory and NVIDIA driver of this machine, and the memory that a process took. Nothing heavy."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

# Number of glibc's mallopt(3).
ARENA_MAX = -8
CUDA_DRIVER = "libcuda.so.1"
OWN_GROUPS, CONTROL_GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


class GroupFiles(NamedTuple):
    """Where a control group says what memory it may take, and takes; pages: what of that can be given back."""

    folder: str
    limit: str
    used: str
    pages: str


# By the controller: none is named in version 2, which has one tree for all.
GROUP_FILES = {
    "": GroupFiles("", "memory.max", "memory.current", "inactive_file"),
    "memory": GroupFiles("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def cpu_model() -> str:
    """Name of the processor, as the operating system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def total_memory_bytes() -> int:
    """Memory of this machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_memory_bytes() -> int:
    """Memory in bytes that programs can get without swapping; half of the total where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    try:
        import psutil
    except ImportError:
        return total_memory_bytes() // 2
    return int(psutil.virtual_memory().available)


def allowed_memory_bytes() -> int:
    """Memory in bytes that this process may still take: what is free, and what limits on it leave.

    Limits are those of its control groups, and of its data segment and address space (ulimit -d, -v). What is free is
    divided evenly among processes that share the machine.
    """
    left = [min([free_memory_bytes(), *_left_by_control_groups()]) // _sharing.processes]
    sizes = {}
    with suppress(OSError, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        sizes = {x.split(":")[0]: int(x.split()[1]) * 1024 for x in lines if x.startswith(("VmData:", "VmSize:"))}
    for kind, name in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
        most_bytes = resource.getrlimit(kind)[0]
        if most_bytes != resource.RLIM_INFINITY and name in sizes:
            left.append(most_bytes - sizes[name])
    return max(0, min(left))


def allowed_disk_bytes(folder: Path) -> int:
    """Bytes of a folder's disk that this process may take: what is free, or its even share of that."""
    return shutil.disk_usage(folder).free // _sharing.processes


@dataclass
class _Sharing:
    """How many processes share this machine's memory and disks, this one included."""

    processes: int = 1


_sharing = _Sharing()


def share_machine(processes: int) -> None:
    """From now on this process is one of so many that share the machine's memory and disks evenly."""
    _sharing.processes = max(1, processes)


def _left_by_control_groups() -> Iterator[int]:
    """Bytes that each limit on the memory of this process's control groups, and of those around them, leaves."""
    lines = list[str]()
    with suppress(OSError):
        lines = OWN_GROUPS.read_text(encoding="ascii").splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        files = GROUP_FILES["memory" if controllers else ""]
        folder = CONTROL_GROUPS / files.folder / path.strip("/")
        for place in (folder, *folder.parents):
            with suppress(OSError, ValueError):
                most = int((place / files.limit).read_text(encoding="ascii"))
                used = int((place / files.used).read_text(encoding="ascii"))
                # Pages of files that nothing changes are given back when memory is short.
                stat = dict(x.split() for x in (place / "memory.stat").read_text(encoding="ascii").splitlines())
                yield most - used + int(stat.get(files.pages, 0))


def peak_memory_bytes() -> int:
    """Peak memory in bytes of this process, or of a child it waited for: the larger of the two.

    For the process itself this is the kernel's high-water mark of its address space: that of getrusage starts at the
    peak of the process which started this one.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                own = int(line.split()[1]) * 1024
    except OSError:
        pass
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit)


def busy_cores(seconds: float = 1.0) -> float:
    """Cores that other processes use, measured while this one sleeps; 0 where the system does not say."""
    before = _ticks()
    time.sleep(seconds)
    after = _ticks()
    total = after[0] - before[0]
    return (after[1] - before[1]) / total * (os.cpu_count() or 1) if total else 0.0


def load_average() -> float:
    """Programs of this machine that ran or waited for a core over the last minute; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _ticks() -> tuple[int, int]:
    """Ticks of all cores since the system started: total, and not idle."""
    try:
        ticks = [int(t) for t in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return 0, 0
    return sum(ticks), sum(ticks) - ticks[3] - ticks[4]


def few_arenas() -> None:
    """Limit this process and its children to one heap per core instead of eight; call before any thread starts.

    The heap of each thread keeps the most memory that was ever in use there, so that many heaps let memory grow over
    the first blocks of a long run. MALLOC_ARENA_MAX in the environment takes precedence. Only glibc has these heaps.
    """
    if platform.libc_ver()[0] != "glibc" or "MALLOC_ARENA_MAX" in os.environ:
        return
    arenas = num_cores()
    os.environ["MALLOC_ARENA_MAX"] = str(arenas)
    ctypes.CDLL(None).mallopt(ARENA_MAX, arenas)


def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA version that the driver runs, as (major, minor); None where there is no driver."""
    try:
        library = ctypes.CDLL(CUDA_DRIVER)
        version = ctypes.c_int()
        failed = library.cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return None if failed or version.value <= 0 else (version.value // 1000, version.value % 1000 // 10)
