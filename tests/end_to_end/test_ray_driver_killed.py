"""The process that runs a job on real Ray is killed: its workers, which go on for a while, commit nothing more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest
from test_two_runs import chunks, undisturbed

from conftest import require
from drillcore.runtime.executors.ray.actor import CONCURRENCY
from support.runs import Work, sentences

pytest_plugins = ["support.run_fixtures"]
# A cluster is started for each run.
pytestmark = pytest.mark.long

COUNT, SHARD = 2400, 16


@pytest.fixture
def works(new_work, seed) -> tuple[Work, Work]:
    """A job in one block, whose worker needs nobody for long, and the same job with other texts on the same store."""
    try:
        import ray  # noqa: F401
    except ImportError:
        require("ray", "Ray is not installed")
    settings = {"backend": "fake", "shard_sentences": SHARD, "block_sentences": COUNT, "threads": 1}
    work = new_work(seed=seed, count=COUNT, extract=settings, run={"executor": "ray"})
    other = Work(work.folder.parent / "other", work.forge, {**work.job, "store": str(work.store), "run": {}})
    other.folder.mkdir()
    other.texts("d", sentences(seed + 1, COUNT))
    other.save()
    return work, other


def kill_half_way(work: Work) -> list[psutil.Process]:
    """Run the job and kill its process alone; returns the processes of its cluster."""
    command = [sys.executable, "-m", "drillcore", "extract", work.file]
    run = subprocess.Popen(command, cwd=work.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    cluster: set[psutil.Process] = set()
    while work.num_records() < 3:
        assert run.poll() is None, run.stderr.read()
        cluster |= set(psutil.Process(run.pid).children(recursive=True))
    cluster |= set(psutil.Process(run.pid).children(recursive=True))
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    run.stderr.close()
    return list(cluster)


def wait_for_end(cluster: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(cluster, timeout=90)
    assert not alive


def test_no_shard_is_committed_after_its_run_was_killed(works):
    work, _ = works
    cluster = kill_half_way(work)
    killed_at = work.num_records()
    wait_for_end(cluster)
    # A worker that had just looked may have gone on with that one shard.
    assert killed_at <= work.num_records() <= killed_at + CONCURRENCY
    assert work.num_records() < COUNT // SHARD
    assert chunks_committed(work).items() <= undisturbed(work).items()


def test_the_next_run_has_the_store_at_once_and_to_itself(works):
    work, other = works
    cluster = kill_half_way(work)
    second = other.run("--overwrite")
    assert second.status == 0, second.err
    want = undisturbed(other)
    assert chunks(work) == want
    wait_for_end(cluster)
    assert chunks(work) == want


def chunks_committed(work: Work) -> dict[str, bytes]:
    """The states and fingerprints of the shards that have a fingerprint."""
    shards = {path.split("/")[-2] for path in chunks(work) if "shard_fingerprint" in path}
    return {p: data for p, data in chunks(work).items() if p.split("/c/")[1].split("/")[0] in shards}
