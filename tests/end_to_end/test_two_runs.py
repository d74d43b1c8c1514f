"""Two runs at once on one store, however they name it: never two writers, never one's states under another's record.

The second run has a job of the same name with other texts, so that its shards have other states and fingerprints.
"""

from __future__ import annotations

import os
import shutil
import signal

import obstore
import pytest

from drillcore.store.places.s3 import open_bucket
from support.crashes import slow_commits
from support.runs import Work, sentences
from support.s3_server import BUCKET, aws_environment

pytest_plugins = ["support.run_fixtures", "support.s3_fixtures"]

COUNT = 200
# Leases of a few seconds instead of a minute.
QUICK_LEASE = """
from drillcore.store.places import lease
lease.LEASE_SECONDS, lease.RENEW_SECONDS, lease.POLL_SECONDS = 3.0, 0.3, 0.1
"""


@pytest.fixture
def work(new_work, seed) -> Work:
    return new_work(seed=seed, count=COUNT)


@pytest.fixture
def other(work, seed) -> Work:
    """The same job with other texts, in a folder of its own, on the first one's store."""
    made = Work(work.folder.parent / "other", work.forge, {**work.job, "store": str(work.store)})
    made.folder.mkdir()
    made.texts("d", sentences(seed + 1, COUNT))
    made.save()
    return made


def undisturbed(work: Work) -> dict[str, bytes]:
    """The chunks of states and fingerprints that a job gives alone, in a place of its own."""
    alone = Work(work.folder.parent / f"{work.folder.name}-alone", work.forge, {**work.job, "store": "runs/job.zarr"})
    alone.folder.mkdir()
    shutil.copy(work.folder / "d.jsonl", alone.folder)
    alone.save()
    alone.finish()
    return chunks(alone)


def chunks(work: Work) -> dict[str, bytes]:
    """The chunks of a store's states and fingerprints, by path; their metadata are the same in every store."""
    return {path: data for path, data in work.states().items() if "/c/" in path}


def half_way(work: Work, *more: str, first: str = slow_commits(0.15)):
    command = work.start(*more, first=first)
    command.wait_for(lambda: work.num_records() >= 2)
    return command


def linked(work: Work) -> tuple[str, ...]:
    (work.folder / "link.zarr").symlink_to(work.store)
    return ("--store", str(work.folder / "link.zarr"))


def without(*what: str):
    def remove(work: Work) -> tuple[str, ...]:
        for name in what:
            path = work.folder / "runs" / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return ()

    return remove


WAYS = {
    "two --out": lambda work: ("--out", str(work.folder / "elsewhere")),
    "a link": linked,
    "a relative path": lambda work: ("--store", "../work/runs/../runs/job.zarr"),
    "the lock removed": without("job/lock"),
    "the folder beside removed": without("job"),
    "all that removed, a link, and --out": lambda work: (
        *without("job")(work), *linked(work), "--out", str(work.folder / "elsewhere")
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_second_run_is_refused(work, other, way):
    want = undisturbed(work)
    first = half_way(work, "--out", str(work.folder / "out")) if way == "two --out" else half_way(work)
    second = other.run(*WAYS[way](work))
    assert second.status == 2 and "another run holds the store" in second.err, (second.status, second.err)
    assert not first.ended_within(0), "the second run was to come while the first one writes"
    assert first.wait() == 0, first.err
    assert chunks(work) == want


@pytest.mark.parametrize("how", ["moved away", "removed"])
def test_the_store_is_replaced_under_a_run_which_then_stops(work, other, how):
    """The second run finds no store and no lock, and makes its own; the first one leaves that alone."""
    want_first, want_second = undisturbed(work), undisturbed(other)
    first = half_way(work)
    os.kill(first.pid, signal.SIGSTOP)
    away = work.folder / "moved.zarr"
    work.store.rename(away)
    shutil.rmtree(work.beside)
    if how == "removed":
        shutil.rmtree(away)
    second = other.start(first=slow_commits(0.05))
    second.wait_for(lambda: work.num_records() >= 2)
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait() == 1 and "no longer holds the store" in first.err, (first.status, first.err)
    assert second.wait() == 0, second.err
    assert chunks(work) == want_second
    assert work.manifest["status"] == "done", "the manifest is the second run's"
    if how == "moved away":
        kept = {str(p.relative_to(away)): p.read_bytes() for p in away.glob("m/d/shard_fingerprint/c/*/0")}
        assert {p: data for p, data in kept.items() if any(data[:32])}.items() <= want_first.items()


def test_a_killed_run_leaves_the_store_to_the_next_one_at_once(work, other):
    half_way(work).send(signal.SIGKILL)
    assert 2 <= work.num_records() < -(-COUNT // 16)
    second = other.run("--overwrite")
    assert second.status == 0, second.err
    assert chunks(work) == undisturbed(other)


class TestBucket:
    """On object storage, with the clock of the second run's machine wrong by far, in both directions."""

    @pytest.fixture
    def place(self, s3, work):
        return f"s3://{BUCKET}/{work.folder.parent.name}/x.zarr"

    def _objects(self, place: str) -> dict[str, bytes]:
        bucket = open_bucket(BUCKET, place.removeprefix(f"s3://{BUCKET}/"))
        listed = [o["path"] for batch in obstore.list(bucket) for o in batch]
        kept = [p for p in listed if "/hidden_states/c/" in p or "/shard_fingerprint/c/" in p]
        return {p: obstore.get(bucket, p).bytes().to_bytes() for p in kept}

    def _half_way(self, work: Work, place: str, first: str):
        command = work.start("--store", place, first=QUICK_LEASE + first, env=aws_environment())
        command.wait_for(lambda: sum("fingerprint" in p for p in self._objects(place)) >= 2)
        return command

    def _skewed(self, seconds: int) -> str:
        return f"{QUICK_LEASE}import time\nhere = time.time\ntime.time = lambda: here() + {seconds}\n"

    @pytest.mark.parametrize("seconds", [90, -3600])
    def test_a_live_lease_is_not_stolen(self, work, other, place, seconds):
        first = self._half_way(work, place, slow_commits(0.4))
        second = other.run("--store", place, first=self._skewed(seconds), env=aws_environment())
        assert second.status == 2 and "another run holds the store" in second.err, (second.status, second.err)
        assert second.err.count("looking for up to 3 s") == 1, second.err
        assert first.wait() == 0, first.err
        assert self._objects(place) == undisturbed(work)

    @pytest.mark.parametrize("seconds", [90, -3600])
    def test_a_dead_one_of_another_machine_is_taken_over(self, work, other, place, seconds):
        elsewhere = "lease.this_machine = lambda: 'another'\n"
        first = self._half_way(work, place, elsewhere + slow_commits(0.15))
        first.send(signal.SIGKILL)
        more = ("--store", place, "--overwrite")
        second = other.run(*more, first=self._skewed(seconds), env=aws_environment())
        assert second.status == 0 and second.err.count("looking for up to 3 s") == 1, (
            second.status,
            second.out,
            second.err,
        )
        assert self._objects(place) == undisturbed(other)

    def test_a_run_that_slept_through_its_lease_commits_nothing_more(self, work, other, place):
        elsewhere = "lease.this_machine = lambda: 'another'\n"
        first = self._half_way(work, place, elsewhere + slow_commits(0.15))
        os.kill(first.pid, signal.SIGSTOP)
        more = ("--store", place, "--overwrite")
        second = other.run(*more, first=QUICK_LEASE, env=aws_environment())
        assert second.status == 0, (second.status, second.err)
        want = self._objects(place)
        os.kill(first.pid, signal.SIGCONT)
        assert first.wait() == 1, (first.status, first.err)
        assert "took over the store" in first.err or "no longer holds" in first.err, first.err
        assert self._objects(place) == want == undisturbed(other)
