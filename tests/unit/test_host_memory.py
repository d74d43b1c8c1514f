"""Memory goes back: of mapped files once they were read, and of the C library's heaps, which stay few."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from drillcore.runtime.work.pipeline import LOOP_BYTES, _put
from drillcore.system.files import map_file, release
from drillcore.tokens.sequences import Sequences

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


def resident_bytes(path: Path) -> int:
    """Of a mapped file, in this process."""
    found = re.findall(rf"{re.escape(str(path))}\n(?:.*\n)*?Rss: +(\d+) kB", Path("/proc/self/smaps").read_text())
    return 1024 * sum(map(int, found))


def test_pages_of_mapped_tokens_go_back_and_come_again(tmp_path, seed):
    ids = np.random.default_rng(seed).integers(0, 1000, 4_000_000, dtype=np.int32)
    np.save(tmp_path / "ids.npy", ids)
    whole = Sequences(np.load(tmp_path / "ids.npy", mmap_mode="r"), np.arange(0, len(ids) + 1, 8))
    part = whole.slice(1000, 400_000)
    assert int(part.ids_T.sum()) == int(ids[8000:3_200_000].sum())
    assert resident_bytes(tmp_path / "ids.npy") > 10_000_000
    part.release()
    assert resident_bytes(tmp_path / "ids.npy") < 100_000
    assert np.array_equal(part.ids_T, ids[8000:3_200_000]) and np.array_equal(whole.ids_T, ids)


def test_what_is_in_no_file_stays():
    tokens = Sequences.of([[1, 2], [3]])
    tokens.release()
    assert tokens.ids_T.tolist() == [1, 2, 3]


def test_a_mapped_file_is_whole_and_an_empty_one_is_refused(tmp_path):
    (tmp_path / "some").write_bytes(b"0123456789" * 1000)
    mapped = map_file(tmp_path / "some")
    assert mapped[:20] == b"01234567890123456789"
    release(mapped)
    assert bytes(mapped) == b"0123456789" * 1000
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError):
        map_file(tmp_path / "empty")


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


@pytest.mark.parametrize("stored", [np.float32, np.float16])
@pytest.mark.parametrize("hidden", [1, LOOP_BYTES // 8 - 1, LOOP_BYTES // 8, LOOP_BYTES])
def test_states_are_put_in_their_places(hidden, stored, seed):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((5, 2, hidden)).astype(np.float32)
    sentence, row = rng.permutation(20)[:9], rng.integers(0, 5, 9)
    states = np.full((20, 2, hidden), 7, stored)
    _put(states, sentence, values, row)
    want = np.full((20, 2, hidden), 7, stored)
    want[sentence] = values[row]
    assert np.array_equal(states, want)
