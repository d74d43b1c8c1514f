"""Cores, memory and heaps of the machine, on Linux and where the system says less."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from drillcore.system import machine
from drillcore.system.machine import (
    allowed_disk_bytes,
    allowed_memory_bytes,
    busy_cores,
    cpu_model,
    free_memory_bytes,
    num_cores,
    peak_memory_bytes,
    share_machine,
    total_memory_bytes,
)

COUNT_HEAPS = """
import ctypes, sys, threading
from drillcore.system.machine import few_arenas
if sys.argv[1] == "few":
    few_arenas()
import numpy as np
together = threading.Barrier(24)
def work():
    kept = [bytes(5000) for _ in range(50)]
    together.wait()
threads = [threading.Thread(target=work) for _ in range(24)]
[t.start() for t in threads], [t.join() for t in threads]
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
libc.fflush(None)
"""


def test_cores_and_memory_are_those_of_the_system():
    assert num_cores() == len(os.sched_getaffinity(0))
    assert total_memory_bytes() == psutil.virtual_memory().total
    assert free_memory_bytes() == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    assert cpu_model() and busy_cores(0.05) >= 0


@pytest.fixture
def like_macos(monkeypatch):
    """Neither /proc nor a set of allowed cores."""

    def refuse(path: Path, *args, **kwargs) -> str:
        raise FileNotFoundError(path)

    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(Path, "read_text", refuse)


def test_a_system_without_proc_and_affinity_gives_all_figures(like_macos):
    assert num_cores() == os.cpu_count()
    assert 0 < free_memory_bytes() < total_memory_bytes()
    assert peak_memory_bytes() > 2**20 and cpu_model() and busy_cores(0.01) == 0


def test_without_psutil_half_of_the_memory_counts_as_free(like_macos, monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert free_memory_bytes() == total_memory_bytes() // 2


GIB = 2**30
# Files of a control group's memory in versions 1 and 2, and what is written where there is no limit.
VERSIONS = {
    1: ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", str(2**63 - 4096)),
    2: ("", "memory.max", "memory.current", "inactive_file", "max"),
}


@pytest.fixture(params=VERSIONS)
def control_groups(request, monkeypatch, tmp_path):
    """Puts this process into the control group /outer/own of a version; takes the limits of groups, by their folder."""
    folder, limit, used, pages, without = VERSIONS[request.param]
    line = "7:memory,hugetlb:/outer/own" if folder else "0::/outer/own"
    (tmp_path / "own").write_text(f"8:pids:/elsewhere\n{line}\n", encoding="ascii")
    monkeypatch.setattr(machine, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(machine, "CONTROL_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(machine, "free_memory_bytes", lambda: 64 * GIB)

    def limited(**limits: int | None) -> None:
        for name, most in limits.items():
            place = tmp_path / "groups" / folder / {"root": "", "outer": "outer", "own": "outer/own"}[name]
            place.mkdir(parents=True, exist_ok=True)
            (place / limit).write_text(f"{without if most is None else most}\n", encoding="ascii")
            (place / used).write_text(f"{3 * GIB}\n", encoding="ascii")
            (place / "memory.stat").write_text(f"rss 5\n{pages} {GIB}\n", encoding="ascii")

    return limited


def test_limits_of_control_groups_count_and_pages_of_files_are_given_back(control_groups):
    assert allowed_memory_bytes() == 64 * GIB, "no folder of its groups is to be seen"
    control_groups(outer=None, own=None)
    assert allowed_memory_bytes() == 64 * GIB
    control_groups(own=10 * GIB)
    assert allowed_memory_bytes() == 8 * GIB
    control_groups(outer=6 * GIB)
    assert allowed_memory_bytes() == 4 * GIB
    control_groups(outer=GIB)
    assert allowed_memory_bytes() == 0, "used beyond its limit"


def test_processes_that_share_the_machine_count_even_shares_of_what_is_free(control_groups, tmp_path):
    control_groups(own=10 * GIB)
    disk = allowed_disk_bytes(tmp_path)
    share_machine(4)
    try:
        assert allowed_memory_bytes() == 2 * GIB
        assert allowed_disk_bytes(tmp_path) == pytest.approx(disk / 4, rel=0.1)
    finally:
        share_machine(1)
    assert allowed_memory_bytes() == 8 * GIB


def test_a_container_that_sees_its_own_group_as_the_root(control_groups):
    control_groups(root=5 * GIB)
    assert allowed_memory_bytes() == 3 * GIB


def test_importing_the_module_imports_nothing_heavy():
    code = "import sys, drillcore.system.machine; print({'torch', 'numpy', 'psutil'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_peak_memory_is_the_process_own():
    code = (
        "import sys; from drillcore.system.machine import peak_memory_bytes as peak; before = peak(); "
        "held = b'x' * int(sys.argv[1]); del held; print(before, peak())"
    )
    ballast = np.ones(400 * 2**20, np.uint8)  # this process is large; the one that it starts is not
    done = subprocess.run([sys.executable, "-c", code, str(200 * 2**20)], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert peak_memory_bytes() > ballast.nbytes
    assert before < 200 * 2**20
    assert 190 * 2**20 < after - before < 230 * 2**20


def test_one_heap_a_core():
    def heaps(how: str) -> int:
        environment = {k: v for k, v in os.environ.items() if k != "MALLOC_ARENA_MAX"}
        command = [sys.executable, "-c", COUNT_HEAPS, how]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.count("<heap nr=")

    cores = len(os.sched_getaffinity(0))
    assert heaps("few") <= max(1, cores)
    if cores < 8:
        assert heaps("as ever") > cores
