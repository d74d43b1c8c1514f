"""`drillcore merge` makes one store of several; a kill leaves them as they are, and what cannot be one is refused."""

from __future__ import annotations

import copy
import shutil
import signal
import tarfile
from pathlib import Path

import pytest

import drillcore
from drillcore.errors import StoreError
from support.crashes import KILL_AT_OPERATION
from support.runs import sentences, snapshot

pytest_plugins = ["support.run_fixtures", "support.s3_fixtures"]
DATA = Path(__file__).parents[1] / "data"


def do(work, *arguments, status=0, **more):
    done = work.forge.run(*arguments, cwd=work.folder, **more)
    assert done.status == status, (done.status, done.out, done.err)
    return done


def ran(work, name, dataset="d", model="m", seed=6, **changes):
    """Run a job of one model and one dataset in the same folder; returns its store."""
    job = copy.deepcopy(work.job)
    job["models"][0]["as"] = model
    job["datasets"] = [{"name": dataset, "path": f"{dataset}.jsonl", **changes.pop("dataset_fields", {})}]
    job["models"][0] |= changes.pop("model_fields", {})
    job["extract"] |= changes
    one = type(work)(work.folder, work.forge, job, file=f"{name}.yaml")
    if not (work.folder / f"{dataset}.jsonl").exists() or seed != 6:
        one.texts(dataset, sentences(seed, 40))
    one.save()
    one.finish()
    return work.folder / "runs" / f"{name}.zarr"


@pytest.fixture
def work(new_work):
    made = new_work("work", seed=6, count=40)
    made.texts("e", sentences(7, 20))
    return made


def both(work, **changes):
    """The job that lists what two stores hold, with the default store of its name."""
    job = copy.deepcopy(work.job)
    job.update(changes)
    one = type(work)(work.folder, work.forge, job, file="both.yaml")
    one.save()
    return one


def values_of(store):
    return {
        path: drillcore.open(store)[path].hidden_states.values
        for path in (g.path for g in drillcore.show(store).groups)
    }


@pytest.mark.parametrize("backend", ["fake", "transformers"])
def test_datasets_of_one_model_become_one_store_that_is_up_to_date(work, backend):
    work.job["extract"] |= {"backend": backend, "positions": ["last", "mean"]}
    stores = ran(work, "one"), ran(work, "two", "e")
    before, held = [snapshot(store) for store in stores], values_of(stores[0]) | values_of(stores[1])
    said = do(work, "merge", "runs/one.zarr", "runs/two.zarr", "--into", "runs/both.zarr").out
    assert "copied m/d~mean from runs/one.zarr" in said and "copied m/e from runs/two.zarr" in said
    assert "a job with `name: both`" in said
    merged = work.folder / "runs" / "both.zarr"
    now = values_of(merged)
    assert set(now) == {"m/d", "m/d~mean", "m/e", "m/e~mean"} and all((now[p] == v).all() for p, v in held.items())
    do(work, "verify", str(merged))
    job = both(work, datasets=[{"name": n, "path": f"{n}.jsonl"} for n in "de"])
    marks = snapshot(merged / "m")
    assert "up to date" in job.finish().err and snapshot(merged / "m").keys() == marks.keys()
    states = [path for path in marks if "hidden_states/c" in path or "shard_fingerprint/c" in path]
    assert states and all(snapshot(merged / "m")[path] == marks[path] for path in states)
    do(work, "verify", str(merged))
    assert [snapshot(store) for store in stores] == before


def test_models_with_the_same_dataset_and_three_stores(work, models):
    stores = ran(work, "one"), ran(work, "two", model="n"), ran(work, "three", "e")
    merged = drillcore.merge(stores, work.folder / "runs" / "both.zarr")
    assert merged.groups == {"m/d": str(stores[0]), "n/d": str(stores[1]), "m/e": str(stores[2])}
    assert merged.job == "both" and drillcore.verify(merged.store).whole
    assert [g.path for g in drillcore.show(merged.store).groups] == ["m/d", "m/e", "n/d"]
    job = both(work, models=[{"id": work.job["models"][0]["id"], "as": name} for name in "mn"])
    assert "up to date" in job.finish().err
    # Another name of the job, and a store in the place of none.
    again = drillcore.merge(stores[:2], work.folder / "elsewhere", job="pair")
    assert drillcore.show(again.store).job == again.job == "pair"


def test_results_of_later_stages_come_along(work):
    for name, dataset in (("one", "d"), ("two", "e")):
        ran(work, name, dataset)
        file = f"{name}.yaml"
        do(work, "measure", file, "--set", "measure.permutations=9", "--set", "measure.metrics=[purity]")
    merged = drillcore.merge([work.folder / f"runs/{n}.zarr" for n in ("one", "two")], work.folder / "runs/both.zarr")
    for name, path in (("one", "m/d"), ("two", "m/e")):
        here, there = (drillcore.measure(s, path).rows for s in (merged.store, work.folder / f"runs/{name}.zarr"))
        assert repr(here) == repr(there)
    assert not [g.stale for g in drillcore.show(merged.store).groups if g.stale]


def test_a_kill_at_any_operation_leaves_the_stores_and_the_next_merge_begins_anew(work):
    stores = ran(work, "one"), ran(work, "two", "e")
    before, into = [snapshot(store) for store in stores], work.folder / "runs" / "both.zarr"
    command = ("merge", *map(str, stores), "--into", str(into))
    do(work, *command)
    whole = {str(p.relative_to(into)): p.read_bytes() for p in into.rglob("*") if p.is_file()}
    shutil.rmtree(into)
    ended = []
    for moment in range(1, 200, 7):
        killed = work.forge.run(*command, cwd=work.folder, first=KILL_AT_OPERATION.format(moment=moment))
        assert [snapshot(store) for store in stores] == before
        ended.append(killed.status)
        if killed.status == 0:
            break
        assert killed.status == -signal.SIGKILL
        # What is left is no store to anything that reads or runs.
        if (into / "zarr.json").exists():
            assert "is not a drillcore store" in do(work, "show", str(into), status=2).err
            job = both(work, datasets=[{"name": n, "path": f"{n}.jsonl"} for n in "de"])
            assert job.run().status == 2
        if moment % 3 == 0:
            do(work, *command)
            assert {str(p.relative_to(into)): p.read_bytes() for p in into.rglob("*") if p.is_file()} == whole
            shutil.rmtree(into)
    assert ended[-1] == 0 and len(ended) > 5
    assert {str(p.relative_to(into)): p.read_bytes() for p in into.rglob("*") if p.is_file()} == whole


def other_texts(work, store):
    """Rows that the second job reads."""
    work.texts("d", sentences(9, 40))


def unfinished(work, store):
    killed = "import os, signal\nfrom drillcore.store.writer import StoreWriter\n"
    killed += "StoreWriter.finish = lambda self: os.killpg(0, signal.SIGKILL)\n"
    assert work.forge.run("extract", "two.yaml", cwd=work.folder, first=killed).status == -signal.SIGKILL


def damaged(work, store):
    file = min(store.glob("m/e/hidden_states/c/*/0/0"))
    raw = bytearray(file.read_bytes())
    raw[100] ^= 1
    file.write_bytes(raw)


def older(work, store):
    with tarfile.open(DATA / "format_1_last.tar.xz") as archive:
        archive.extractall(work.folder / "old", filter="data")
    shutil.rmtree(store)
    shutil.copytree(next((work.folder / "old").rglob("*.zarr")), store)


# What the second store is made of, what is done to it, and what is said.
REFUSED = {
    "the same group": ({}, None, "both have m/d"),
    "other rows": ({"model": "n"}, other_texts, "d: its rows differ (column text)"),
    "other labels": ({"model": "n", "dataset_fields": {"label": None}}, None, "only one has the column label"),
    "another template": ({"model": "n", "dataset_fields": {"template": "x {text}"}}, None, "another template"),
    "another model": (
        {"dataset": "e", "model_fields": {"random_weights": True}},
        None,
        "different models of the name m",
    ),
    "other layers": ({"dataset": "e", "layers": [0, 1]}, None, 'extract.layers is "all" and [0, 1]'),
    "another dtype": ({"dataset": "e", "model": "n", "store_dtype": "float16"}, None, "extract.store_dtype is"),
    "special tokens": ({"dataset": "e", "special_tokens": "none"}, None, "extract.special_tokens is"),
    "unfinished": ({"dataset": "e"}, unfinished, "did not finish"),
    "damaged": ({"dataset": "e"}, damaged, "is damaged: m/e"),
    "an older format": ({"dataset": "e"}, older, "is of an older format"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_stores_that_cannot_be_one_are_refused(work, case):
    second, change, said = REFUSED[case]
    one = ran(work, "one")
    if change is other_texts:
        change(work, one)
    two = ran(work, "two", **second)
    if change not in (None, other_texts):
        change(work, two)
    before = snapshot(one), snapshot(two), sorted(p.name for p in (work.folder / "runs").iterdir())
    refused = do(work, "merge", str(one), str(two), "--into", "runs/both.zarr", status=2)
    assert said in refused.err and refused.err.count("drillcore: ") == 1, refused.err
    assert before == (snapshot(one), snapshot(two), sorted(p.name for p in (work.folder / "runs").iterdir()))


def test_places_that_cannot_be_are_refused(work):
    one, two = ran(work, "one"), ran(work, "two", "e")
    (work.folder / "full").mkdir()
    (work.folder / "full" / "mine.txt").write_text("mine", encoding="utf-8")
    before = snapshot(work.folder)
    for stores, into, said in (
        ([one], "runs/both.zarr", "one store alone"),
        ([one, one / "." / "."], "runs/both.zarr", "is named twice"),
        ([one, two], one, "is, or lies in, or holds"),
        ([one, two], one / "below.zarr", "is, or lies in, or holds"),
        ([one, two], "runs", "is, or lies in, or holds"),
        ([one, two], "full", "is there already"),
        ([one, two], "d.jsonl", "is a file"),
        ([one, "gone.zarr"], "runs/both.zarr", "there is no store at gone.zarr"),
        ([one, "one.yaml"], "runs/both.zarr", "is a job file"),
        ([one, "hf://datasets/me/x"], "runs/both.zarr", "on the hub"),
        ([one, two], "hf://datasets/me/x", "on the hub"),
    ):
        refused = do(work, "merge", *map(str, stores), "--into", str(into), status=2)
        assert said in refused.err and refused.err.count("drillcore: ") == 1, refused.err
        assert snapshot(work.folder) == before, said


def test_a_store_that_a_run_holds_is_refused(work):
    one, two = ran(work, "one"), ran(work, "two", "e")
    from drillcore.store.places.location import Location
    from drillcore.store.places.lock import store_lock

    with store_lock(Location(str(two))):
        refused = do(work, "merge", str(one), str(two), "--into", "runs/both.zarr", status=2)
    assert "another run holds the store" in refused.err and not (work.folder / "runs" / "both.zarr").exists()


def test_python_moves_removes_and_merges_as_the_commands_do(work):
    one, two = ran(work, "one"), ran(work, "two")
    moved = drillcore.move(two, "m/d", "f")
    assert moved.groups == {"m/d": "m/f"} and "`name: f`" in moved.job_field
    merged = drillcore.merge([one, two], work.folder / "both.zarr")
    removed = drillcore.remove(merged.store, "m/d")
    assert list(removed.groups) == ["m/d"] == list(removed.again)
    assert [g.path for g in drillcore.show(merged.store).groups] == ["m/f"] and drillcore.verify(merged.store).whole
    for wrong in (lambda: drillcore.move(two, "m/x", "y"), lambda: drillcore.remove(two, "m/x")):
        with pytest.raises(StoreError, match="has no group m/x"):
            wrong()


def test_stores_in_buckets_are_merged_too(work, s3):
    one, two, three = ran(work, "one"), ran(work, "two", "e"), ran(work, "three", model="n")
    held = values_of(one) | values_of(two) | values_of(three)
    there = drillcore.merge([one, two], "s3://bucket/merged/both.zarr").store
    assert drillcore.verify(there, out=work.folder / "note").whole and set(values_of(there)) == {"m/d", "m/e"}
    with pytest.raises(StoreError, match="is there already"):
        drillcore.merge([one, two], there)
    back = drillcore.merge([there, three], work.folder / "back.zarr").store
    now = values_of(back)
    assert now.keys() == held.keys() and all((now[path] == values).all() for path, values in held.items())
    assert drillcore.verify(back).whole


def test_groups_that_left_their_job_come_along_and_need_not_agree(work):
    one, two = ran(work, "one"), ran(work, "two", "e", layers=[0, 1])
    # The dataset e leaves the second job, whose settings are then those of the first one.
    ran(work, "two", model="n")
    shown = {g.path: g.in_job for g in drillcore.show(two).groups}
    assert shown == {"m/e": False, "n/d": True}
    merged = drillcore.merge([one, two], work.folder / "runs" / "both.zarr")
    assert {g.path: g.in_job for g in drillcore.show(merged.store).groups} == {"m/d": True, **shown}
    assert drillcore.verify(merged.store).whole
