"""The lock of a store in a folder: ways around it, what stands in its note's place, what a worker makes of it."""

from __future__ import annotations

import errno
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from drillcore.errors import CommitError, StoreError
from drillcore.store.places import folder_lock
from drillcore.store.places.files import read_file, remove_folder, write_file
from drillcore.store.places.local import DurableStore
from drillcore.store.places.location import Location
from drillcore.store.places.lock import refuse_if_held, store_lock
from support.crashes import can_mount, mounted


@pytest.fixture
def location(tmp_path):
    return Location(str(tmp_path / "x.zarr"))


def check_refused(location: Location) -> None:
    for attempt in (lambda: refuse_if_held(location), lambda: store_lock(location).__enter__()):
        with pytest.raises(StoreError, match="another run holds the store"):
            attempt()


def test_a_new_store_is_a_locked_folder_without_anything_in_it(location):
    with store_lock(location) as held:
        assert list(location.path.iterdir()) == [] and held == location and held.hold is not None
        held.hold.check()
        note = json.loads((location.bookkeeping / "lock").read_text())
        assert note["pid"] == os.getpid() and note["run"] == held.hold.run
    assert (location.bookkeeping / "lock").read_bytes() == b"", "a note names nobody once the store is free"


def removed(path: Path) -> None:
    path.unlink() if path.is_file() else path.rmdir()


AROUND = {
    "the note removed": lambda at: removed(at.bookkeeping / "lock"),
    "the folder beside removed": lambda at: (removed(at.bookkeeping / "lock"), removed(at.bookkeeping)),
    "another note in its place": lambda at: (at.bookkeeping / "lock").rename(at.bookkeeping / "old"),
    "the store under another name": lambda at: at.path.rename(at.path.with_name("y.zarr")),
}


@contextmanager
def bound(folder: Path, mount: Path):
    """The folder mounted in a second place."""
    mount.mkdir()
    subprocess.run(["mount", "--bind", folder, mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


@pytest.mark.parametrize("way", AROUND)
def test_no_way_around_the_lock(location, way, tmp_path, monkeypatch):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "z.zarr").symlink_to(location.path)
    monkeypatch.chdir(tmp_path)
    with store_lock(location):
        AROUND[way](location)
        names = [tmp_path / "y.zarr"] if way == "the store under another name" else [location.path]
        if location.path.exists():
            names += [tmp_path / "links" / "z.zarr", Path("x.zarr"), tmp_path / "links" / ".." / "x.zarr"]
        for name in names:
            check_refused(Location(str(name)))
        if can_mount():
            with bound(names[0], tmp_path / "bound.zarr") as mount:
                check_refused(Location(str(mount)))
    refuse_if_held(location)


def test_a_version_that_locked_the_note_alone_is_kept_out_and_keeps_out(location):
    import fcntl

    note = location.bookkeeping / "lock"
    with store_lock(location), note.open("a+") as stream, pytest.raises(BlockingIOError):
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with note.open("a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        check_refused(location)


def test_two_names_of_one_store_at_once_in_many_processes(location, tmp_path):
    """Whoever has the store notes it for a moment; two at once would see each other's file."""
    (tmp_path / "link.zarr").symlink_to(location.path)
    script = f"""
import os, sys, time
from drillcore.errors import StoreError
from drillcore.store.places.location import Location
from drillcore.store.places.lock import store_lock
got, until = 0, time.monotonic() + 1.5
while time.monotonic() < until:
    try:
        with store_lock(Location(sys.argv[1])):
            os.close(os.open({str(tmp_path / "one")!r}, os.O_CREAT | os.O_EXCL))
            time.sleep(0.002)
            os.unlink({str(tmp_path / "one")!r})
            got += 1
    except StoreError:
        pass
print(got)
"""
    names = [str(location.path), str(tmp_path / "link.zarr")] * 2
    runs = [subprocess.Popen([sys.executable, "-c", script, n], stdout=subprocess.PIPE, text=True) for n in names]
    got = [run.communicate(timeout=60)[0].strip() for run in runs]
    assert [run.returncode for run in runs] == [0] * 4 and sum(map(int, got)) > 0


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


KINDS = {
    "folder": lambda path: path.mkdir(),
    "pipe": lambda path: os.mkfifo(path),
    "link": lambda path: path.symlink_to(path.with_name("precious")),
    "broken link": lambda path: path.symlink_to("nowhere"),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "socket": lambda path: bind(path),
}


class TestOtherKinds:
    @pytest.fixture(autouse=True)
    def short_names(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)  # the name of a socket may have 107 characters

    @pytest.mark.parametrize("kind", KINDS)
    def test_something_else_in_the_place_of_the_note(self, location, kind):
        location.bookkeeping.mkdir()
        precious = location.bookkeeping / "precious"
        precious.write_text("do not touch")
        KINDS[kind](location.bookkeeping / "lock")
        for attempt in (lambda: refuse_if_held(location), lambda: store_lock(location).__enter__()):
            with pytest.raises(StoreError, match="lock is not a plain file"):
                attempt()
        assert not location.path.exists() and precious.read_text() == "do not touch"

    @pytest.mark.parametrize("kind", [k for k in KINDS if k != "folder"])
    def test_something_else_in_the_place_of_the_folder_beside(self, location, kind):
        location.path.with_name("precious").write_text("do not touch")
        KINDS[kind](location.bookkeeping)
        for attempt in (lambda: refuse_if_held(location), lambda: store_lock(location).__enter__()):
            with pytest.raises(StoreError, match="cannot be a folder"):
                attempt()
        assert not location.path.exists()


@pytest.mark.parametrize("place", ["refused", *(["small disk"] if can_mount() else [])])
def test_a_disk_too_full_for_the_note(tmp_path, place, monkeypatch):
    """What holds is the lock on the folder, and the note never names an earlier run."""

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with mounted(tmp_path / "disk", "size=64k") if place == "small disk" else nullcontext():
        location = Location(str(tmp_path / "disk" / "x.zarr"))
        with store_lock(location):
            pass
        if place == "refused":
            (location.bookkeeping / "lock").write_text('{"pid": 1, "host": "x", "since": "then", "run": "old"}')
            monkeypatch.setattr(os, "pwrite", full)
        else:
            with (tmp_path / "disk" / "full").open("wb", buffering=0) as stream, suppress(OSError):
                while True:
                    stream.write(bytes(4096))
        with store_lock(location) as held:
            held.hold.check()
            with pytest.raises(StoreError, match=r"another run holds the store .*: holder unknown"):
                refuse_if_held(location)


def test_a_disk_too_full_for_the_file_of_the_note(location, monkeypatch):
    opened = os.open

    def full(path, flags, *more, **named):
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", full)
    with store_lock(location) as held:
        held.hold.check()
        check_refused(location)


def test_a_system_without_locks_is_refused_before_anything_stays(location, monkeypatch):
    def no_locks(descriptor, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(folder_lock.fcntl, "flock", no_locks)
    with pytest.raises(StoreError, match="cannot be locked: Operation not supported"), store_lock(location):
        pass
    assert not location.path.exists() and not location.bookkeeping.exists()


@contextmanager
def another_run(location: Location):
    """Another process that holds the store, and can be killed."""
    script = f"""
import sys
from drillcore.store.places.location import Location
from drillcore.store.places.lock import store_lock
with store_lock(Location({location.address!r})) as held:
    import pickle
    sys.stdout.buffer.write(pickle.dumps(held.hold).hex().encode() + b"\\n")
    sys.stdout.flush()
    sys.stdin.read()
"""
    run = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield run, pickle.loads(bytes.fromhex(run.stdout.readline().decode()))
    finally:
        run.kill()
        run.communicate()


class TestWorkers:
    """What a worker finds out about the run that sent its task."""

    def test_it_goes_on_while_the_run_is_under_way_also_without_a_note(self, location):
        with another_run(location) as (_, hold):
            hold.check()
            (location.bookkeeping / "lock").unlink()
            hold.check()

    def test_it_stops_once_the_run_was_killed(self, location):
        with another_run(location) as (run, hold):
            run.send_signal(signal.SIGKILL)
            run.wait()
            with pytest.raises(CommitError, match=f"process {run.pid}, which held it, has ended"):
                hold.check()

    def test_a_second_run_counts_for_nothing(self, location):
        with another_run(location) as (run, hold):
            run.send_signal(signal.SIGKILL)
            run.wait()
            with store_lock(location) as second:
                second.hold.check()
                with pytest.raises(CommitError, match="no longer holds"):
                    hold.check()
                # Not by the process alone: where it lives on, as that of a notebook does, the note tells them apart.
                with pytest.raises(CommitError, match="another run holds it"):
                    replace(hold, process=second.hold.process).check()

    def test_it_stops_once_the_run_has_given_the_store_back(self, location):
        with store_lock(location) as held:
            held.hold.check()
        with pytest.raises(CommitError, match="the run that held it has ended"):
            held.hold.check()

    def test_one_on_another_machine_goes_by_the_note(self, location):
        with store_lock(location) as held:
            away = replace(held.hold, machine="another", inode=1, device=1, process="1 1")
            away.check()
            (location.bookkeeping / "lock").unlink()
            with pytest.raises(CommitError, match="another run holds it, or the note"):
                away.check()
        with store_lock(location) as held, pytest.raises(CommitError, match="another run holds it"):
            away.check()
        with pytest.raises(CommitError, match="another run holds it"):
            replace(held.hold, machine="another").check()


class TestReplaced:
    """The folder is taken away, and another one made in its place, while the run goes on."""

    @pytest.fixture
    def held(self, location):
        with store_lock(location) as held:
            store = held.open()
            write_file(store, "zarr.json", b"{}")
            write_file(store, "a/zarr.json", b"1")
            yield held

    def test_nothing_is_written_removed_or_moved_there(self, held):
        store = held.open()
        held.path.rename(held.path.with_name("moved"))
        (held.path / "a").mkdir(parents=True)
        for name in ("zarr.json", "a/zarr.json"):
            (held.path / name).write_bytes(b"of another run")
        changes = [
            lambda: write_file(store, "a/zarr.json", b"2"),
            lambda: remove_folder(store, "a"),
            lambda: store.rename("a", "b"),
            lambda: held.hold.check(),
        ]
        for change in changes:
            with pytest.raises(CommitError, match=r"no longer holds the store .*another folder is in its place"):
                change()
        assert [p.read_bytes() for p in sorted(held.path.rglob("*.json"))] == [b"of another run"] * 2

    def test_nothing_is_written_where_it_is_gone(self, held):
        store = held.open()
        held.path.rename(held.path.with_name("moved"))
        with pytest.raises(CommitError, match="its folder is gone"):
            write_file(store, "a/zarr.json", b"2")
        assert not held.path.exists() and read_file(DurableStore(held.path.with_name("moved")), "a/zarr.json") == b"1"

    def test_a_link_that_leads_elsewhere_by_now(self, tmp_path):
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        link = Location(str(tmp_path / "link.zarr"))
        link.path.symlink_to("one")
        with store_lock(link) as held:
            held.hold.check()
            link.path.unlink()
            link.path.symlink_to("two")
            with pytest.raises(CommitError, match="another folder is in its place"):
                held.hold.check()


def flushed(monkeypatch) -> list[Path]:
    """The folders and files that are flushed from now on."""
    found, fsync = [], os.fsync

    def noting(descriptor):
        found.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="/proc")
class TestFlushes:
    def test_every_new_folder_is_flushed_in_its_parent(self, tmp_path, monkeypatch):
        found = flushed(monkeypatch)
        with store_lock(Location(str(tmp_path / "new" / "deep" / "x.zarr"))):
            assert {tmp_path, tmp_path / "new", tmp_path / "new" / "deep"} <= set(found)

    def test_so_is_one_that_a_killed_run_created(self, tmp_path, monkeypatch):
        (tmp_path / "x.zarr").mkdir()
        found = flushed(monkeypatch)
        with store_lock(Location(str(tmp_path / "x.zarr"))):
            assert tmp_path in found

    def test_a_store_that_is_opened_without_a_lock(self, tmp_path, monkeypatch):
        found = flushed(monkeypatch)
        write_file(Location(str(tmp_path / "new" / "x.zarr")).open(), "zarr.json", b"{}")
        assert {tmp_path, tmp_path / "new", tmp_path / "new" / "x.zarr"} <= set(found)

    def test_folders_in_a_store_that_a_killed_run_created_are_flushed_once(self, tmp_path, monkeypatch):
        root = tmp_path / "x.zarr"
        (root / "m" / "d" / "a" / "c").mkdir(parents=True)
        store = Location(str(root)).open()
        write_file(store, "zarr.json", b"{}")
        (root / "m" / "d" / "a" / "zarr.json").write_bytes(b"{}")
        found = flushed(monkeypatch)
        write_file(store, "m/d/a/c/0", b"1")
        above = {root / "m", root / "m" / "d", root / "m" / "d" / "a", root / "m" / "d" / "a" / "c"}
        assert above <= set(found)
        del found[:]
        write_file(store, "m/d/a/c/1", b"1")
        assert [p for p in found if p.is_dir()] == [root / "m" / "d" / "a" / "c"]
