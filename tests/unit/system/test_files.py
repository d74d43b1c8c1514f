"""Files in the cache: mapped, released, replaced as a whole, digested."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pytest

from drillcore.system.files import file_digest, map_file, release, remembered_digest, replacing, write_atomic
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


def test_a_remembered_digest_follows_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "weights"
    for content in (b"one", b"another"):
        path.write_bytes(content)
        expected = hashlib.sha256(content).hexdigest()
        assert file_digest(path) == remembered_digest(path) == remembered_digest(path) == expected
    assert len(list((tmp_path / "cache" / "drillcore" / "digests").iterdir())) == 2


def test_a_remembered_digest_is_not_that_of_other_bytes_with_the_same_size_and_time(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "weights"
    path.write_bytes(b"before")
    state = path.stat()
    assert remembered_digest(path) == hashlib.sha256(b"before").hexdigest()
    path.write_bytes(b"behind")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_mtime_ns == state.st_mtime_ns and path.stat().st_ino == state.st_ino
    assert remembered_digest(path) == hashlib.sha256(b"behind").hexdigest()
