"""Files in the cache: mapped, released, replaced as a whole, digested."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from drillcore.system.files import map_file, release
from drillcore.tokens.sequences import Sequences


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
