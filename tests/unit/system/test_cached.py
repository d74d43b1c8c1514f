"""Entries of the cache: checked whenever they are opened, replaced as a whole; and digests of files that are kept."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from drillcore.errors import RunError
from drillcore.system import cached
from drillcore.system.cached import Entry, Opened, WrongEntry, keep_within, remembered_digest, remove, sweep
from drillcore.system.files import file_digest
from drillcore.system.progress import tell, telling, with_lines
from support.damage import damages

KEY, OTHER = "a" * 64, "b" * 64


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def content(opened: Opened) -> tuple[bytes, Any]:
    return bytes(opened.data), opened.facts


def written(folder: Path, key: str, data: bytes, facts: Any, version: int = 1) -> Entry:
    entry = Entry(folder, key, "something", version)
    with entry.writing() as draft:
        draft.write(data)
        draft.facts = facts
    return entry


def read(entry: Entry) -> tuple[Any, list[str]]:
    return with_lines(lambda e: e.read(content), entry)


@pytest.mark.parametrize("size", [0, 1, 4096, 3_000_000])
def test_an_entry_comes_back_as_it_was_written(size: int, tmp_path: Path, seed: int) -> None:
    data = random.Random(seed).randbytes(size)
    entry = written(tmp_path / "new" / "kind", KEY, data, {"é": [1, None]})
    assert read(entry) == ((data, {"é": [1, None]}), [])
    assert entry.path.parent == tmp_path / "new" / "kind" and names(entry.path.parent) == [f"{KEY}.entry"]
    assert read(Entry(tmp_path / "new" / "kind", OTHER, "something")) == (None, [])


def test_whatever_happens_to_an_entry_it_is_said_and_not_read(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    data = draw.randbytes(500)
    entry = written(tmp_path / "kind", KEY, data, "facts")
    other = written(tmp_path / "kind", OTHER, draw.randbytes(500), "facts")
    raw = entry.path.read_bytes()
    for name, damage in damages(raw, other.path.read_bytes(), draw):
        damage(entry.path)
        found, lines = read(entry)
        assert found is None and len(lines) == 1, name
        assert lines[0].startswith(f"cache: {entry.path} (something) ") and "made again" in lines[0], name
        assert read(written(tmp_path / "kind", KEY, data, "facts")) == ((data, "facts"), []), name
        assert entry.path.read_bytes() == raw, name


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ({"key": OTHER}, "is that of something else"),
        ({"folder": "others"}, "is that of something else"),
        ({"version": 2}, "is of another version"),
    ],
)
def test_an_entry_knows_what_it_is_of(place: dict[str, Any], reason: str, tmp_path: Path) -> None:
    whole = written(tmp_path / "kind", KEY, b"data", None)
    there = Entry(tmp_path / place.get("folder", "kind"), place.get("key", KEY), "something", place.get("version", 1))
    there.path.parent.mkdir(exist_ok=True)
    there.path.write_bytes(whole.path.read_bytes())
    assert read(there) == (None, [f"cache: {there.path} (something) {reason}; it is made again"])


@pytest.mark.parametrize("facts", [[], {}, None, 7, "text", {"a": "1" * 5000}, [[[]]], {"a": 10**30}])
def test_facts_of_another_shape_are_not_obeyed(facts: Any, tmp_path: Path) -> None:
    entry = written(tmp_path / "kind", KEY, b"", facts)
    found, lines = with_lines(lambda e: e.read(lambda opened: memoryview(b"")[int(opened.facts["a"])]), entry)
    assert found is None and lines == [f"cache: {entry.path} (something) holds something else; it is made again"]


def test_what_an_error_leaves_is_what_was_there(tmp_path: Path) -> None:
    entry = written(tmp_path / "kind", KEY, b"before", None)
    for error in (KeyboardInterrupt, WrongEntry):
        with pytest.raises(error), entry.writing() as draft:
            draft.write(b"half")
            raise error
    assert read(entry)[0] == (b"before", None) and names(tmp_path / "kind") == [entry.path.name]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"file/kind: cannot write something there: ") as caught:
        written(tmp_path / "file" / "kind", KEY, b"", None)
    assert "XDG_CACHE_HOME" in caught.value.hint


def test_bytes_that_do_not_come_back_are_an_error(tmp_path: Path) -> None:
    entry = written(tmp_path / "kind", KEY, b"data", None)
    entry.path.write_bytes(b"")
    with pytest.raises(RunError, match="something did not come back as they were written") as caught:
        entry.read_back(content)
    assert "Check the disk" in caught.value.hint


KILLED = """
import os, signal, sys
from pathlib import Path
from drillcore.system.cached import Entry
with Entry(Path(sys.argv[1]), "a" * 64, "something").writing() as draft:
    draft.write(bytes(100_000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_killed_runs_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    folder = tmp_path / "kind"
    done = subprocess.run([sys.executable, "-c", KILLED, folder], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = folder.iterdir()
    (folder / ".writing-of-an-earlier-version").mkdir()
    (folder / ".writing-of-an-earlier-version" / "ids.raw").write_bytes(b"half")
    (folder / "rows-abc.tmp").write_bytes(b"half")
    before = set(folder.iterdir())
    written(folder, KEY, b"", None)
    assert set(folder.iterdir()) == before | {folder / f"{KEY}.entry"}, "they may be under way"
    for path in before:
        os.utime(path, (0, time.time() - cached.STALE_SECONDS - 60))
    assert left in before
    written(folder, OTHER, b"", None)
    assert names(folder) == [f"{KEY}.entry", f"{OTHER}.entry"]


def test_what_earlier_versions_kept_under_a_key_goes_when_it_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "tokens"
    (folder / KEY).mkdir(parents=True)
    for name in (f"{KEY}/sha256", f"{KEY}.arrow", f"{KEY}.notes", f"{OTHER}.arrow"):
        (folder / name).write_bytes(b"x")
    with telling((lines := list[str]()).append):
        written(folder, KEY, b"", None)
    assert names(folder) == [f"{KEY}.entry", f"{OTHER}.arrow"]
    assert lines == [f"cache: {folder / KEY} (something) is of an earlier version; it is made again"]


def test_the_entries_that_were_written_first_make_room(tmp_path: Path) -> None:
    folder = tmp_path / "kind"
    entries = [written(folder, str(number), bytes(1000), None) for number in range(5)]
    for number, entry in enumerate(entries):
        os.utime(entry.path, (number, number))
    size = entries[0].path.stat().st_size
    keep_within(folder, 3 * size)
    assert names(folder) == ["2.entry", "3.entry", "4.entry"]
    keep_within(folder, 3 * size)
    assert len(names(folder)) == 3


def test_lines_reach_whoever_listens() -> None:
    outer, inner = list[str](), list[str]()
    tell("to nobody")
    with telling(outer.append):
        tell("one")
        with telling(inner.append):
            tell("two")
        tell("three")
    assert (outer, inner) == (["one", "three"], ["two"])


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose digest is remembered, however new it is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cached, "SETTLED_SECONDS", -3600.0)
    (tmp_path / "weights").write_bytes(b"before")
    return tmp_path / "weights"


def kept(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / "drillcore" / "digests").glob("*"))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_remembered_digest_follows_the_file(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (b"one", b"another"):
        weights.write_bytes(content)
        expected = sha256(content)
        assert file_digest(weights) == remembered_digest(weights) == remembered_digest(weights) == expected
    assert len(kept(tmp_path)) == 2
    monkeypatch.setattr(cached, "file_digest", lambda path: pytest.fail("read"))
    assert remembered_digest(weights) == sha256(b"another")


def test_a_damaged_digest_is_taken_again(weights: Path, tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    (tmp_path / "other").write_bytes(b"another file")
    remembered_digest(tmp_path / "other")
    (other,) = kept(tmp_path)
    remembered_digest(weights)
    (entry,) = {*kept(tmp_path)} - {other}
    for name, damage in damages(entry.read_bytes(), other.read_bytes(), draw):
        damage(entry)
        found, lines = with_lines(remembered_digest, weights)
        assert found == sha256(b"before") and len(lines) == 1 and "(the digest of a file)" in lines[0], name
        assert with_lines(remembered_digest, weights) == (found, []), name


def in_place(path: Path, old: os.stat_result) -> None:
    path.write_bytes(b"behind")
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))


def renamed(path: Path, old: os.stat_result) -> None:
    other = path.with_name("other")
    in_place(other, old)
    other.replace(path)


def behind_a_link(path: Path, old: os.stat_result) -> None:
    """As a hub's cache has it: the name links to a file elsewhere, which changes."""
    in_place(path.resolve(), old)


@pytest.mark.parametrize("change", [in_place, renamed, behind_a_link])
def test_weights_that_change_with_size_and_time_kept_are_noticed(change: Any, weights: Path, tmp_path: Path) -> None:
    if change is behind_a_link:
        weights.rename(tmp_path / "blob")
        weights.symlink_to("blob")
    assert remembered_digest(weights) == sha256(b"before")
    old = weights.stat()
    change(weights, old)
    assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (old.st_size, old.st_mtime_ns)
    assert remembered_digest(weights) == sha256(b"behind")


def test_a_link_that_turns_to_another_file_is_noticed(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"behind")
    link = tmp_path / "link"
    for target, data in (("weights", b"before"), ("b", b"behind")):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        assert remembered_digest(link) == sha256(data)


def test_a_file_that_changed_a_moment_ago_may_change_again_and_is_not_remembered(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached, "SETTLED_SECONDS", 3600.0)
    assert remembered_digest(weights) == sha256(b"before") and not kept(tmp_path)


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(path: Path) -> str:
        found = file_digest(path)
        path.write_bytes(b"behind")
        return found

    monkeypatch.setattr(cached, "file_digest", slow)
    remembered_digest(weights)
    assert not kept(tmp_path)


def test_a_digest_taken_afresh_does_not_believe_the_cache(weights: Path) -> None:
    remembered_digest(weights)
    state = [str(weights.resolve()), *cached._state(weights)[1:]]
    entry = Entry(cached.cache_dir() / "digests", cached.digest(state), "")
    entry.write("0" * 64)
    assert remembered_digest(weights) == "0" * 64, "as after a change that no time of change shows"
    assert remembered_digest(weights, afresh=True) == sha256(b"before") == remembered_digest(weights)


def test_removing_takes_whatever_there_is(tmp_path: Path) -> None:
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("folder")
    for name in ("link", "nothing"):
        remove(tmp_path / name)
    assert names(tmp_path) == ["folder"]
    remove(tmp_path / "folder")
    sweep(tmp_path / "folder")
    assert not names(tmp_path)
