"""Runs that are killed, stopped, starved of room or robbed of their store lose nothing that was committed.

Every command is a process of its own, killed with its whole group. `make torture` kills at every file operation.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import time

import pytest

from support.crashes import KILL_BEFORE_FINGERPRINT, Lives, bare_rights, can_mount, mounted, slow_commits
from support.runs import snapshot

pytest_plugins = ["support.run_fixtures"]


@pytest.fixture(scope="module")
def texts_seed():
    """Of the texts that all tests here share, so that one undisturbed run serves them."""
    found = int(os.environ.get("DRILLCORE_SEED", secrets.randbits(32)))
    print(f"DRILLCORE_SEED={found}")
    return found


@pytest.fixture(scope="module")
def undisturbed(texts_seed, make_work, tmp_path_factory):
    """States and fingerprints of an undisturbed run, and the seconds that it took."""
    work = make_work(tmp_path_factory.mktemp("whole"), seed=texts_seed)
    started = time.monotonic()
    work.finish()
    return work.states(), time.monotonic() - started


@pytest.fixture
def whole(undisturbed):
    return undisturbed[0]


@pytest.fixture
def work(new_work, texts_seed):
    return new_work(seed=texts_seed)


@pytest.mark.parametrize(("backend", "kills", "count"), [("fake", 26, 300), ("transformers", 5, 96)])
def test_killed_at_random_moments(backend, kills, count, new_work, seed):
    lives = Lives(new_work, backend, random.Random(seed), count)
    lives.kill(kills)
    print(lives)


def test_killed_at_random_moments_with_several_positions(new_work, seed):
    lives = Lives(new_work, "transformers", random.Random(seed), 96, ["last", "mean", "last-4"])
    lives.kill(8)
    print(lives)


def test_killed_between_data_and_fingerprint(work, whole, seed):
    draw = random.Random(seed)
    for nth in (0, draw.randint(1, 6), draw.randint(1, 6)):
        killed = work.run(first=KILL_BEFORE_FINGERPRINT.format(nth=nth))
        assert killed.status == -signal.SIGKILL
        data = {p for p in work.states() if "/hidden_states/c/" in p}
        assert len(data) == len(work.committed()) + 1, "one shard's data is there without its fingerprint"
    work.finish()
    assert work.states() == whole


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop(number, work, whole):
    command = work.start(first=slow_commits(0.03))
    command.wait_for(lambda: work.num_records() >= 3)
    assert command.send(number) == 130
    assert "interrupted" in command.err and "Run the same command again" in command.err
    assert "Traceback" not in command.err and work.manifest["status"] == "interrupted"
    kept = work.committed()
    assert 3 <= len(kept) < 19
    work.finish()
    assert work.states() == whole
    assert {k: v for k, v in work.committed().items() if k in kept} == kept


def test_asked_to_stop_at_any_moment(work, undisturbed, seed):
    draw, seconds, ends = random.Random(seed), undisturbed[1], []
    for _ in range(8):
        command = work.start(first=READY)
        command.wait_for(command.is_ready)
        if not command.ended_within(draw.uniform(0, seconds)):
            command.send(draw.choice([signal.SIGTERM, signal.SIGINT]))
        ends.append(command.wait())
        if command.status not in (0, 130):
            assert "done:" in command.out, (command.status, command.err)
            continue
        if command.status:
            assert "Run the same command again" in command.err and "Traceback" not in command.err
        else:
            shutil.rmtree(work.store)
    print(ends)


READY = """
import drillcore.runtime.runner
run = drillcore.runtime.runner.run_stages
def ready(*arguments, **named):
    READY.touch()
    return run(*arguments, **named)
drillcore.runtime.runner.run_stages = ready
"""


def test_the_installed_command_stops_and_goes_on(new_work, seed):
    """The same as a user has it: python -m, its own imports, the real backend."""
    work = new_work(seed=seed, count=256, backend="transformers")
    line = [sys.executable, "-m", "drillcore", "extract", "job.yaml"]
    environment = {**os.environ, **work.forge.env}
    process = subprocess.Popen(
        line, cwd=work.folder, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    while work.num_records() < 2 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and "Run the same command again" in errors and "Traceback" not in errors
    kept = work.committed()
    done = subprocess.run(line, cwd=work.folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {k: v for k, v in work.committed().items() if k in kept} == kept
    assert len(work.committed()) == 16


def test_a_second_run_is_refused_and_names_the_first(work):
    first = work.start(first=slow_commits(0.05))
    first.wait_for(lambda: work.num_records() >= 1)
    second = work.run()
    assert second.status == 2
    assert f"process {first.pid} on " in second.err and "another run holds the store" in second.err
    assert not first.ended_within(0), "the first one goes on"
    assert first.wait() == 0, first.err
    assert len(work.committed()) == 19
    work.finish()


@pytest.mark.parametrize("place", ["limit", *(["small disk"] if can_mount() else [])])
def test_no_room(place, new_work, texts_seed, whole, seed):
    draw = random.Random(seed)
    for i in range(2 if place == "small disk" else 1):
        work = new_work(f"work{i}", seed=texts_seed)
        if place == "limit":
            limit = draw.randint(4_000, 9_000)
            first = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))"
            failed = work.run(first=first)
            check_refused(failed, "File too large")
        else:
            with mounted(work.folder / "runs", f"size={draw.randint(100, 480)}k") as remount:
                failed = work.run()
                check_refused(failed, "No space left on device")
                kept = work.committed()
                remount("size=16m")
                work.finish()
                assert work.states() == whole
                assert {k: v for k, v in work.committed().items() if k in kept} == kept
            continue
        work.finish()
        assert work.states() == whole


def check_refused(command, why):
    assert command.status == 1, (command.status, command.err)
    assert why in command.err and "run the same command again" in command.err
    assert "Traceback" not in command.err and "bug in drillcore" not in command.err


def test_a_store_that_turns_read_only(work):
    command = work.start(first=slow_commits(0.02) + bare_rights())
    command.wait_for(lambda: work.num_records() >= 2)
    kept, folders = work.committed(), [p for p in [work.store, *work.store.rglob("*")] if p.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    command.wait()
    check_refused(command, "Permission denied")
    again = work.run(first=bare_rights())
    check_refused(again, "Permission denied")
    for folder in folders:
        folder.chmod(0o755)
    work.finish()
    assert {k: v for k, v in work.committed().items() if k in kept} == kept


@pytest.mark.parametrize("which", ["store", "group", "states"])
def test_removed_in_mid_run(which, work, whole):
    gone = {"store": work.store, "group": work.store / "m" / "d", "states": work.store / "m" / "d" / "hidden_states"}
    command = work.start(first=slow_commits(0.03))
    command.wait_for(lambda: work.num_records() >= 2)
    # At once, as a move is: removing file after file races with a run that makes new ones.
    gone[which].rename(work.folder / "moved away")
    command.wait()
    check_refused(command, "gone")
    assert which != "store" or not (work.store / "zarr.json").exists()
    work.finish()
    assert work.states() == whole


def test_nothing_is_left_half_written(work):
    assert work.run(first=KILL_BEFORE_FINGERPRINT.format(nth=2)).status == -signal.SIGKILL
    (work.store / "zarr.0123.partial").write_bytes(b"{")
    (work.store / "m" / "d" / "hidden_states" / "c" / "0.4567.partial").write_bytes(b"x")
    work.finish()
    assert not list(work.store.rglob("*.partial"))
    before = snapshot(work.store / "m")
    work.finish()
    assert snapshot(work.store / "m") == before, "a run with nothing to do changes nothing"


def test_killed_while_the_store_is_made(work):
    work.store.mkdir(parents=True)
    (work.store / "zarr.0123.partial").write_bytes(b"{")
    work.finish()
    assert len(work.committed()) == 19
