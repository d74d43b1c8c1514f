"""Sentences that are added at the end are the only ones that are computed, and what was there stays bit for bit."""

from __future__ import annotations

import json
import shutil
import signal

import numpy as np
import pytest

from support.crashes import KILL_BEFORE_FINGERPRINT
from support.runs import SHARD, assert_close, sentences

pytest_plugins = ["support.run_fixtures"]


@pytest.fixture
def grown(new_work, seed):
    """A store of 70 sentences whose file has grown to some count, and which has not been run since."""

    def make(name: str, count: int, backend: str = "fake", **extract):
        work = new_work(name, seed=seed, count=70, backend=backend)
        work.job["extract"] |= extract
        work.save()
        work.finish()
        work.texts("d", sentences(seed, count))
        return work

    return make


def verify(work) -> int:
    return work.forge.run("verify", "runs/job.zarr", cwd=work.folder).status


@pytest.mark.parametrize("backend", ["fake", "transformers"])
def test_only_what_is_new_is_computed(backend, grown, new_work, seed):
    work = grown("work", 77, backend)
    for before, count in ((70, 77), (77, 79), (79, 130)):
        work.texts("d", sentences(seed, count))
        marks, files, values = work.committed(), work.states(), work.values()["m/d"]
        work.finish()
        assert work.extracted() == count - before
        full = range(before // SHARD)
        assert all(work.committed()[f"m/d {shard}"] == marks[f"m/d {shard}"] for shard in full)
        assert all(work.states()[f] == files[f] for f in (f"m/d/hidden_states/c/{shard}/0/0" for shard in full))
        assert np.array_equal(work.values()["m/d"][:before], values), "bit for bit"
        assert verify(work) == 0
    fresh = new_work("fresh", seed=seed, count=130, backend=backend)
    fresh.finish()
    assert_close(work.values(), fresh.values())
    before = work.committed()
    assert "up to date" in work.finish().err and work.committed() == before


@pytest.mark.parametrize("backend", ["fake", "transformers"])
@pytest.mark.parametrize("nth", [0, 1])
def test_growth_that_is_killed_ends_as_one_that_was_not(backend, nth, grown):
    """Between the states of the tail and its fingerprint they count for nothing: its old rows are computed again."""
    whole = grown("whole", 90, backend)
    shutil.copytree(whole.folder, whole.folder.parent / "killed")
    whole.finish()
    killed = type(whole)(whole.folder.parent / "killed", whole.forge, whole.job)
    assert killed.run(first=KILL_BEFORE_FINGERPRINT.format(nth=nth)).status == -signal.SIGKILL
    verify(killed)
    killed.finish()
    assert killed.states() == whole.states() and verify(killed) == 0


def test_growth_that_is_killed_before_its_tail_keeps_the_old_rows(grown):
    """The tail is read as it was, `verify` finds nothing, and only the new sentences are computed afterwards."""
    work = grown("work", 75)
    kill = """
import os, signal
from drillcore.store.states import StatesReader
StatesReader.first_rows = lambda *arguments: os.killpg(0, signal.SIGKILL)
"""
    values = work.values()["m/d"]
    assert work.run(first=kill).status == -signal.SIGKILL
    assert verify(work) == 0
    now = work.values()["m/d"]
    assert np.array_equal(now[:70], values) and np.isnan(now[70:]).all()
    out = ("--layer", "1", "--to", "npy", "--out", "layer.npy")
    refused = work.forge.run("export", "runs/job.zarr", "--group", "m/d", *out, cwd=work.folder)
    assert refused.status != 0 and "4 of 5 shards are committed" in refused.err
    work.finish()
    assert work.extracted() == 5 and verify(work) == 0


def test_the_tail_grows_by_what_its_plan_names_and_nothing_else(grown):
    """A tail of before that is put back into a finished store is found, although growth once began with it."""
    work = grown("work", 75)
    group = work.store / "m" / "d"
    parts = [group / f"{name}/c/4" for name in ("hidden_states", "shard_fingerprint", "shard_record", "layer_absmax")]
    for part in parts:
        copy = work.folder / part.parent.parent.name
        shutil.copytree(part, copy) if part.is_dir() else shutil.copy(part, copy)
    work.finish()
    assert verify(work) == 0
    for part in parts:
        copy = work.folder / part.parent.parent.name
        shutil.copytree(copy, part, dirs_exist_ok=True) if part.is_dir() else shutil.copy(copy, part)
    assert verify(work) == 1
    work.finish()
    assert verify(work) == 0


def test_a_damaged_tail_is_not_carried_on(grown):
    work = grown("work", 75)
    states = work.store / "m/d/hidden_states/c/4/0/0"
    raw = bytearray(states.read_bytes())
    raw[30] ^= 1
    states.write_bytes(raw)
    failed = work.run()
    assert failed.status == 1 and "shard 4" in failed.err and "Traceback" not in failed.err
    assert verify(work) == 1
    work.finish()
    assert verify(work) == 0


def test_a_changed_sentence_before_the_border_is_noticed(grown, seed):
    """The fingerprint of a tail that grew stands for its old rows too."""
    work = grown("work", 75)
    work.finish()
    rows = sentences(seed, 75)
    rows[66]["text"] = "another sentence altogether"
    work.texts("d", rows)
    refused = work.run()
    assert refused.status == 2 and "1 of 75 sentences" in refused.err
    work.finish("--overwrite")
    assert work.extracted() == 75 - 64 and verify(work) == 0


def test_attributes_of_a_group_that_grew_are_lost(grown):
    work = grown("work", 75)
    work.finish()
    before = work.states()
    document = json.loads((work.store / "m/d/zarr.json").read_text())
    document["attributes"].pop("borders")
    (work.store / "m/d/zarr.json").write_text(json.dumps(document))
    assert verify(work) == 1
    work.finish()
    assert work.states() == before and verify(work) == 0


def test_a_store_without_borders_grows(grown, new_work, seed):
    """One that never grew records none, as before."""
    work = grown("work", 70)
    attributes = json.loads((work.store / "m/d/zarr.json").read_text())["attributes"]
    assert "borders" not in attributes and "begun" not in attributes
    work.texts("d", sentences(seed, 75))
    work.finish()
    attributes = json.loads((work.store / "m/d/zarr.json").read_text())["attributes"]
    assert attributes["borders"] == [70] and "begun" not in attributes


def test_a_dataset_of_one_small_shard_keeps_its_shards(new_work, seed):
    work = new_work(seed=seed, count=10)
    work.job["extract"] = {"backend": "fake"}
    work.save()
    work.finish()
    before = work.values()["m/d"]
    work.texts("d", sentences(seed, 45))
    work.finish()
    assert work.extracted() == 35 and np.array_equal(work.values()["m/d"][:10], before)
    assert len(work.committed()) == 3


def test_identical_sentences_are_computed_once(new_work, seed):
    """A thousand rows of ten sentences compute the nodes of ten, and each row holds the states of its sentence."""
    ten = sentences(seed, 10)
    work = new_work("many", seed=seed, count=1, backend="transformers")
    few = new_work("few", seed=seed, count=1, backend="transformers")
    for each, rows in ((work, ten * 100), (few, ten)):
        each.job["extract"] |= {"shard_sentences": 1024, "block_sentences": 1024}
        each.texts("d", rows)
        each.save()
        each.finish()
    assert work.extracted() == 1000
    assert work.manifest["models"]["m"]["extract"]["nodes"] == few.manifest["models"]["m"]["extract"]["nodes"]
    values = work.values()["m/d"].reshape(100, 10, *work.values()["m/d"].shape[1:])
    assert (values == values[0]).all()
    assert_close({"m/d": values[0]}, {"m/d": few.values()["m/d"][:10]})
