"""The lease that keeps a second run out of a bucket, on a real S3 server."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import obstore
import pytest

from drillcore.errors import CommitError, DrillcoreError, StoreError
from drillcore.store.places import lease
from drillcore.store.places.files import write_file
from drillcore.store.places.location import Location
from drillcore.store.places.lock import refuse_if_held, store_lock
from drillcore.store.places.s3 import open_bucket
from support.s3_server import BUCKET, Proxy, environment

pytest_plugins = ["support.s3_fixtures"]


@pytest.fixture
def bucket(s3):
    return open_bucket(BUCKET, "")


@pytest.fixture
def key(tmp_path):
    return f"{tmp_path.name}/x.lock"


@pytest.fixture
def quick(monkeypatch):
    """Leases end after a fraction of a second instead of a minute."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.6)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)


def left_behind(bucket, key, **note):
    raw = {"owner": "1", "pid": 1, "host": "elsewhere", "since": "then", "machine": "another", "process": "1 1"}
    obstore.put(bucket, key, json.dumps(raw | {"renewal": 1, **note}).encode())


def stored(bucket, key):
    return json.loads(obstore.get(bucket, key).bytes().to_bytes())


def wait_until(happened, what: str) -> None:
    until = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < until, f"{what}: not in 10 s"
        threading.Event().wait(0.05)


class TestTaking:
    def test_one_of_elsewhere_is_free_once_it_was_seen_unchanged_for_long(self, bucket, key, quick):
        left_behind(bucket, key)
        said, started = [], time.monotonic()
        with lease.lease(bucket, key, "s3://b/x", said.append):
            assert time.monotonic() - started > lease.LEASE_SECONDS
            assert stored(bucket, key)["pid"] == os.getpid()
        assert len(said) == 1 and "process 1 on elsewhere, since then" in said[0] and "looking for up to" in said[0]
        with pytest.raises(FileNotFoundError):
            obstore.head(bucket, key)

    def test_one_without_a_readable_note_holds_as_long(self, bucket, key, quick):
        obstore.put(bucket, key, b"\xff{")
        said, started = [], time.monotonic()
        with lease.lease(bucket, key, "s3://b/x", said.append):
            assert time.monotonic() - started > lease.LEASE_SECONDS
        assert "holder unknown" in said[0]

    def test_what_was_seen_before_counts(self, bucket, key, quick):
        """A run looks when it starts, and again after all inputs were read: it does not wait twice."""
        left_behind(bucket, key)
        assert lease.refuse_if_leased(bucket, key, "s3://b/x").owner == "1"
        said = []
        with lease.lease(bucket, key, "s3://b/x", said.append):
            assert said == []

    @pytest.mark.parametrize("counted", [True, False], ids=["this version", "a version without a count"])
    def test_one_that_is_renewed_is_refused_then(self, bucket, key, monkeypatch, counted):
        """Also where the bytes stay equal, and with them the e-tag, as in leases of older versions."""
        monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)
        note = {"owner": "1", "pid": 1, "host": "elsewhere", "since": "then"}

        def renew(count):
            obstore.put(bucket, key, json.dumps(note | ({"renewal": count} if counted else {})).encode())

        renew(1)
        later = threading.Timer(0.2 if counted else 1.1, renew, [2])  # the server's times have whole seconds
        later.start()
        with pytest.raises(StoreError, match="another run holds the store s3://b/x: process 1 on elsewhere"):
            lease.refuse_if_leased(bucket, key, "s3://b/x")
        later.join()
        obstore.delete(bucket, key)

    def test_of_many_at_once_one_gets_it(self, bucket, key, monkeypatch):
        monkeypatch.setattr(lease, "RENEW_SECONDS", 0.2)
        got, refused, together, done = [], [], threading.Barrier(6), threading.Event()

        def take():
            together.wait()
            try:
                with lease.lease(bucket, key, "s3://b/x"):
                    got.append(threading.get_ident())
                    done.wait(20)
            except DrillcoreError as error:
                refused.append(str(error))
                if len(refused) == 5:
                    done.set()

        threads = [threading.Thread(target=take) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1 and len(refused) == 5


class TestClocks:
    """The server's clock, or this machine's, is wrong by far; only what this process sees itself counts."""

    @pytest.fixture
    def shifted(self, server, monkeypatch):
        """A way to the server on which its times are shifted."""
        proxy = Proxy(server)
        monkeypatch.setenv("AWS_ENDPOINT_URL", environment(proxy.port)["AWS_ENDPOINT_URL"])
        yield proxy
        proxy.close()

    @pytest.mark.parametrize("seconds", [90, 3600, -90, -3600])
    @pytest.mark.parametrize("whose", ["the server's", "this machine's"])
    def test_a_live_one_is_not_taken_and_a_dead_one_is(self, s3, shifted, key, monkeypatch, quick, seconds, whose):
        if whose == "the server's":
            shifted.shift_seconds = seconds
        else:
            here = time.time
            monkeypatch.setattr(time, "time", lambda: here() + seconds)
        bucket, far = open_bucket(BUCKET, ""), open_bucket(BUCKET, "")
        with lease.lease(far, key, "s3://b/x") as hold:
            with pytest.raises(StoreError, match="another run holds the store"):
                lease.lease(bucket, key, "s3://b/x").__enter__()
            hold.check()
        left_behind(bucket, key)
        started = time.monotonic()
        with lease.lease(bucket, key, "s3://b/x") as hold:
            assert lease.LEASE_SECONDS < time.monotonic() - started < 20
            hold.check()


class TestRenewal:
    def test_each_renewal_has_another_e_tag(self, bucket, key, monkeypatch):
        monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
        with lease.lease(bucket, key, "s3://b/x"):
            tags = set()

            def several():
                tags.add(obstore.head(bucket, key)["e_tag"])
                return len(tags) > 3

            wait_until(several, "renewed three times")

    def test_one_that_was_lost_ends_the_run(self, bucket, key, monkeypatch):
        monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
        lost = pytest.raises(CommitError, match="took over the store s3://b/x: process 1 on elsewhere")
        with lost, lease.lease(bucket, key, "s3://b/x"):
            left_behind(bucket, key)
            for _ in range(600):  # an interrupt does not end one long wait
                threading.Event().wait(0.05)
        assert stored(bucket, key)["host"] == "elsewhere"
        obstore.delete(bucket, key)

    def test_one_that_was_lost_ends_the_run_in_its_own_thread(self, bucket, key, monkeypatch):
        """The program's main thread, which does something else, is left alone, and so are its signals."""
        monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
        before, raised = signal.getsignal(signal.SIGTERM), []

        def hold():
            try:
                with lease.lease(bucket, key, "s3://b/x"):
                    left_behind(bucket, key)
                    for _ in range(600):
                        threading.Event().wait(0.05)
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=hold)
        thread.start()
        while thread.is_alive():
            assert signal.getsignal(signal.SIGTERM) is before
            thread.join(0.05)
        assert isinstance(raised[0], CommitError) and "took over the store" in str(raised[0])
        obstore.delete(bucket, key)

    def test_one_that_someone_removed_is_taken_again(self, bucket, key, monkeypatch):
        monkeypatch.setattr(lease, "RENEW_SECONDS", 0.5)
        with lease.lease(bucket, key, "s3://b/x") as hold:
            obstore.delete(bucket, key)
            hold.check()  # waits for its owner to make it again
            assert stored(bucket, key)["owner"] == hold.owner

    def test_one_that_was_gone_after_a_long_sleep_is_lost(self, bucket, key, monkeypatch):
        """Another run may have had the store meanwhile, and have ended."""
        monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
        clock = lease._clock_with_sleep
        with pytest.raises(CommitError, match="took over the store"), lease.lease(bucket, key, "s3://b/x"):
            monkeypatch.setattr(lease, "_clock_with_sleep", lambda: clock() + 3600)
            obstore.delete(bucket, key)
            for _ in range(600):
                threading.Event().wait(0.05)
        with pytest.raises(FileNotFoundError):
            obstore.head(bucket, key)

    def test_the_one_of_another_run_is_not_given_back(self, bucket, key):
        with suppress(CommitError), lease.lease(bucket, key, "s3://b/x"):
            left_behind(bucket, key)
        assert stored(bucket, key)["host"] == "elsewhere"
        obstore.delete(bucket, key)


class TestCommits:
    """Nothing more is written for a run that lost its lease."""

    @pytest.fixture
    def location(self, s3, tmp_path):
        return Location(f"s3://{BUCKET}/{tmp_path.name}/x")

    @pytest.fixture
    def place(self, location):
        return open_bucket(BUCKET, ""), location.bucket_and_key[1] + ".lock"

    def test_a_worker_checks_and_stops_once_another_run_has_it(self, location, place):
        with store_lock(location) as held:
            hold = pickle.loads(pickle.dumps(held.hold))
            hold.check()
            write_file(held.open(), "a", b"1")
            left_behind(*place)
            for check in (hold.check, held.hold.check):
                with pytest.raises(CommitError, match=r"no longer holds .*: another run took it over, process 1 on"):
                    check()
        obstore.delete(*place)

    def test_no_write_and_no_removal_passes(self, location, place, monkeypatch):
        monkeypatch.setattr("drillcore.store.places.s3.LATELY_SECONDS", 0.0)
        with store_lock(location) as held:
            store = held.open()
            write_file(store, "a", b"1")
            left_behind(*place)
            from zarr.core.sync import sync

            changes = [lambda: write_file(store, "a", b"2"), lambda: sync(store.delete("a"))]
            for change in [*changes, lambda: sync(store.delete_dir(""))]:
                with pytest.raises(CommitError, match="no longer holds"):
                    change()
            assert obstore.get(place[0], place[1].replace(".lock", "/a")).bytes().to_bytes() == b"1"
        obstore.delete(*place)

    def test_one_that_is_not_renewed_any_more_ends_its_workers_before_another_may_take_it(self, location, place, quick):
        left_behind(*place)
        hold = lease.LeaseHold(place[0], place[1], location.address, "1")
        hold.check()
        started = time.monotonic()
        with pytest.raises(CommitError, match="not renewed any more"):
            while True:
                hold.check()
        assert time.monotonic() - started < lease.LEASE_SECONDS + 0.3
        obstore.delete(*place)

    @contextmanager
    def _another_run(self, location):
        script = f"""
import pickle, sys
from drillcore.store.places.location import Location
from drillcore.store.places.lock import store_lock
with store_lock(Location({location.address!r})) as held:
    print(pickle.dumps(held.hold).hex(), flush=True)
    sys.stdin.read()
"""
        run = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            yield run, pickle.loads(bytes.fromhex(run.stdout.readline().decode()))
        finally:
            run.kill()
            run.communicate()

    def test_a_run_of_this_machine_that_was_killed_ends_its_workers_and_is_free_at_once(self, location):
        with self._another_run(location) as (run, hold):
            hold.check()
            run.kill()
            run.wait()
            with pytest.raises(CommitError, match=f"process {run.pid} .*has ended"):
                hold.check()
            said = []
            refuse_if_held(location, said.append)
            with store_lock(location, said.append) as second:
                second.hold.check()
                with pytest.raises(CommitError, match="another run took it over"):
                    hold.check()
            assert said == []

    def test_a_run_that_was_stopped_for_long_writes_nothing_when_it_goes_on(self, location, quick):
        """It was taken over, and the other run has ended since."""
        with self._another_run(location) as (run, hold):
            run.send_signal(signal.SIGSTOP)
            with store_lock(location):
                pass
            with pytest.raises(CommitError, match="given back or removed"):
                hold.check()
            run.send_signal(signal.SIGCONT)
