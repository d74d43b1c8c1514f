"""Jobs whose model is read layer by layer: the same store as with the whole model in memory, however they end."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import zarr

pytest_plugins = ["support.run_fixtures"]

STREAMED = {"weights": "streamed"}


def job(new_work: Any, name: str, count: int = 100, **extract: Any) -> Any:
    work = new_work(name, count=count, backend="transformers")
    work.job["extract"] |= {"batch_tokens": 64, **extract}
    work.save()
    return work


def files(work: Any) -> dict[str, bytes]:
    return {k: v for k, v in work.states().items() if "/hidden_states/" in k}


def scratch(work: Any) -> list[Path]:
    return list((Path(work.forge.env["XDG_CACHE_HOME"]) / "drillcore" / "scratch").iterdir())


def attributes(work: Any) -> Any:
    return zarr.open_group(work.store, mode="r", use_consolidated=False)["m"].attrs.asdict()


def disturb(what: str, memory: int = 60_000) -> str:
    """Python that does something in a sweep once two shards are committed, and makes sweeps small."""
    return f"""
import os, signal
import drillcore.backends.transformers.streamed.passes as passes
from dataclasses import replace
from drillcore.backends.transformers.streamed import layers, sweep
from drillcore.store.group import GroupWriter
room_of, bring, commit, commits = passes.room_of, layers.StreamedLayers.bring, GroupWriter.commit, []
passes.room_of = lambda *a: replace(room_of(*a), memory_bytes={memory})
def committed(self, *a, **k):
    commit(self, *a, **k)
    commits.append(0)
def brought(self, number):
    if len(commits) >= 2 and number == 1:
        {what}
    bring(self, number)
GroupWriter.commit, layers.StreamedLayers.bring = committed, brought
"""


@pytest.fixture
def whole(new_work):
    """An undisturbed job with streamed weights, done."""
    work = job(new_work, "whole", **STREAMED)
    work.finish()
    return work


def test_the_states_are_those_of_the_resident_model_byte_for_byte(whole, new_work):
    resident = job(new_work, "resident")
    resident.finish()
    assert files(whole) == files(resident) and len(files(whole)) > 4
    streamed, plain = attributes(whole), attributes(resident)
    assert streamed["numerics"] == {**plain["numerics"], "weights": "streamed"}
    assert whole.manifest["models"]["m"]["numerics"]["weights"] == "streamed"
    recipes = [zarr.open_group(w.store, mode="r")["m/d"].attrs["recipes"][0] for w in (whole, resident)]
    assert recipes[0]["request"]["extract"].pop("weights") == "streamed"
    assert recipes[0]["request"] == recipes[1]["request"], "at its default the field is no part of a request"
    assert not scratch(whole)


def test_several_positions_and_small_sweeps(new_work):
    positions = {"positions": ["last", "mean", {"last": 2}]}
    whole, streamed = job(new_work, "a", **positions), job(new_work, "b", **positions, **STREAMED)
    whole.finish()
    run = streamed.run(first=disturb("pass", memory=20_000))
    assert run.status == 0, run.err
    assert files(streamed) == files(whole)


def test_killed_in_the_middle_of_a_sweep_and_resumed(whole, new_work):
    work = job(new_work, "killed", **STREAMED)
    killed = work.run(first=disturb("os.kill(os.getpid(), signal.SIGKILL)"))
    assert killed.status == -signal.SIGKILL
    kept = work.committed()
    assert 2 <= len(kept) < 7
    assert not scratch(work), "what a killed run had on the disk is gone"
    work.finish()
    assert work.states() == whole.states()
    assert {k: v for k, v in work.committed().items() if k in kept} == kept


@pytest.mark.parametrize("how", ["os.truncate({file!r}, 1000)", "os.utime({file!r})", "os.unlink({file!r})"])
def test_weights_that_change_under_the_run_end_it_and_nothing_wrong_is_stored(how, whole, new_work, tmp_path, models):
    model = shutil.copytree(models(), tmp_path / "model")
    work = job(new_work, "changed", **STREAMED)
    work.job["models"][0]["id"] = str(model)
    work.save()
    file = model / "model.safetensors"
    state, data = file.stat(), file.read_bytes()
    run = work.run(first=disturb(how.format(file=str(file))))
    assert run.status == 1 and "its weights changed while they were read" in run.err, run.err
    assert "model.safetensors" in run.err and "Traceback" not in run.err
    assert 2 <= len(work.committed()) < 7
    assert files(work).items() <= files(whole).items()
    file.write_bytes(data)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    work.finish()
    assert files(work) == files(whole)


def test_a_finished_resident_store_is_up_to_date(new_work):
    work = job(new_work, "job")
    work.finish()
    before = work.states()
    work.job["extract"] |= STREAMED
    work.save()
    assert "all 100 sentences are up to date" in work.finish().err
    assert work.states() == before


KILL_AT_FOURTH = """
import os, signal
from drillcore.store.group import GroupWriter
commit_shard, seen = GroupWriter.commit, []
def fourth(self, *a, **k):
    seen.append(0)
    if len(seen) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return commit_shard(self, *a, **k)
GroupWriter.commit = fourth
"""
FREE = """
import drillcore.backends.transformers.streamed.choice as choice
choice.allowed_memory_bytes = lambda: {free}
"""


@pytest.mark.parametrize(("free", "streams"), [(2**40, False), (1000, True)])
def test_auto_streams_what_does_not_fit_and_says_so(free, streams, new_work):
    work = job(new_work, "auto", weights="auto", count=40)
    run = work.run(first=FREE.format(free=free))
    assert run.status == 0, run.err
    assert ("its layers are streamed, of which the largest takes" in run.err) == streams
    assert ("GiB that are free" in run.err) == streams
    assert attributes(work)["numerics"].get("weights") == ("streamed" if streams else None)


def test_auto_goes_on_as_it_began(new_work):
    work = job(new_work, "auto", weights="auto")
    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    assert work.run(first=FREE.format(free=1000) + disturb(kill)).status == -signal.SIGKILL
    assert work.run(first=FREE.format(free=2**40)).status == 0
    assert work.manifest["models"]["m"]["numerics"]["weights"] == "streamed"
    other = job(new_work, "other", weights="auto")
    assert other.run(first=FREE.format(free=2**40) + KILL_AT_FOURTH).status == -signal.SIGKILL
    assert other.run(first=FREE.format(free=1000)).status == 0
    assert "weights" not in other.manifest["models"]["m"]["numerics"]
