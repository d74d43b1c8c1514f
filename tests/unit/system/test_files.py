"""Files in the cache: mapped, released, replaced as a whole, digested."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from drillcore.system.cached import Entry
from drillcore.system.files import release, replacing, write_atomic
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


def test_pages_of_an_entry_go_back_and_come_again(tmp_path, seed):
    entry, whole = Entry(tmp_path, "0" * 64, "bytes"), np.random.default_rng(seed).bytes(20_000_000)
    with entry.writing() as draft:
        draft.write(whole)
    opened = entry.open()
    ids_T = np.frombuffer(opened.data[4:], np.int32)
    assert resident_bytes(entry.path) < 1_000_000, "checking an entry does not load it"
    for owner in (ids_T[5:], opened.data, opened.mapped):
        assert ids_T[100:].tobytes() == whole[404:] and resident_bytes(entry.path) > 10_000_000
        release(owner)
        assert resident_bytes(entry.path) < 100_000


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("old", encoding="utf-8")
    with replacing(path) as scratch:
        scratch.write_text("new", encoding="utf-8")
        assert scratch.name == "note.txt.partial" and path.read_text(encoding="utf-8") == "old"
    assert path.read_text(encoding="utf-8") == "new"
    with pytest.raises(KeyboardInterrupt), replacing(path, tmp_path / "other") as scratch:
        scratch.write_text("half", encoding="utf-8")
        raise KeyboardInterrupt
    assert path.read_text(encoding="utf-8") == "new" and [p.name for p in tmp_path.iterdir()] == ["note.txt"]


def test_a_scratch_file_that_was_never_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "note.txt"):
        pass


def test_write_atomic_makes_the_folder_and_a_file_with_the_usual_rights(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "folder" / "note", b"bytes")
    finally:
        os.umask(before)
    note = tmp_path / "folder" / "note"
    assert note.read_bytes() == b"bytes" and note.stat().st_mode & 0o777 == 0o640
    assert list(note.parent.iterdir()) == [note]
