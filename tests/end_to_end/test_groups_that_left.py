"""Groups that left the job are marked and can be removed; a renamed dataset is taken over without computing."""

from __future__ import annotations

import shutil

import pytest

import drillcore
from drillcore.store.places.s3 import open_bucket
from support.commands import Command
from support.runs import Work, sentences
from support.s3_server import BUCKET, aws_environment

pytest_plugins = ["support.run_fixtures", "support.s3_fixtures"]


@pytest.fixture
def work(new_work) -> Work:
    """Two datasets on one model, finished."""
    made = new_work(seed=6, count=60)
    made.texts("e", sentences(7, 20))
    made.job["datasets"].append({"name": "e", "path": "e.jsonl"})
    made.save()
    made.finish()
    return made


def do(work: Work, *arguments: str, status: int = 0, **more) -> Command:
    done = work.forge.run(*arguments, cwd=work.folder, **more)
    assert done.status == status, (done.status, done.out, done.err)
    return done


def test_a_dataset_that_left_is_marked_and_removed(work):
    assert "left the job" not in do(work, "show", str(work.store)).out
    del work.job["datasets"][1]
    work.save()
    kept = work.committed()
    work.finish()
    assert work.committed() == kept, "what left the job stays until it is removed"
    shown = do(work, "show", str(work.store)).out
    line = next(line for line in shown.splitlines() if line.split()[:2] == ["m", "e"])
    assert "100%, left the job" in line and "left the job: m/e" in shown and "drillcore rm" in shown
    done = do(work, "rm", str(work.store), "m/e")
    assert done.out == "removed m/e: states of 20 sentences × 5 layers\n"
    assert work.committed() == {k: v for k, v in kept.items() if k.startswith("m/d")}
    assert "left the job" not in do(work, "show", str(work.store)).out
    assert list(drillcore.open(work.store)["m"].children) == ["d"]
    do(work, "verify", str(work.store))
    work.finish()


def test_rm_of_a_whole_model_and_of_what_is_still_in_the_job(work):
    done = do(work, "rm", str(work.store), "m/d")
    assert "m/d is still in the job: the next run computes it again" in done.out
    work.finish()
    assert work.extracted() == 60
    done = do(work, "rm", str(work.store), "m")
    assert "removed m/d" in done.out and "removed m/e" in done.out and not (work.store / "m").exists()
    work.finish()
    assert work.extracted() == 80


@pytest.mark.parametrize(
    ("store", "group", "said"),
    [
        ("runs/job.zarr", "m/f", "has no group m/f"),
        ("runs/job.zarr", "m/d/text", "has no group"),
        ("runs/job.zarr", "..", "has no group"),
        ("runs/job.zarr", "", "has no group"),
        ("runs/none.zarr", "m/d", "there is no store"),
        ("runs", "m/d", "is not a drillcore store"),
    ],
)
def test_rm_refuses_what_is_not_a_group(store, group, said, work):
    before = work.states()
    done = do(work, "rm", store, group, status=2)
    assert said in done.err and ("m/d, m/e" in done.err or "no store" in said or "not a drill" in said)
    assert work.states() == before


def test_rm_waits_for_no_run(work):
    from support.crashes import slow_commits

    work.texts("d", sentences(6, 60) + sentences(9, 200))
    command = work.start(first=slow_commits(0.05))
    command.wait_for(lambda: work.num_records() >= 5)
    done = do(work, "rm", str(work.store), "m/e", status=2)
    assert "another run holds the store" in done.err
    assert command.wait() == 0


def test_a_renamed_dataset_is_taken_over(work):
    do(work, "measure", "job.yaml")
    states, marks = work.states(), work.committed()
    work.job["datasets"][0]["name"] = "renamed"
    work.save()
    done = work.finish()
    assert "m/renamed: taken over from m/d" in done.err and "all 80 sentences are up to date" in done.err
    assert {k.replace("m/renamed/", "m/d/"): v for k, v in work.states().items()} == states
    assert {k.replace("m/renamed ", "m/d "): v for k, v in work.committed().items()} == marks
    assert not (work.store / "m/d").exists()
    assert "m/renamed: measures are up to date" in do(work, "measure", "job.yaml").err
    assert "left the job" not in do(work, "show", str(work.store)).out
    do(work, "verify", str(work.store))
    assert sorted(drillcore.open(work.store)["m"].children) == ["e", "renamed"]


def test_a_renamed_model_is_taken_over(work):
    work.job["models"][0]["as"] = "other"
    work.save()
    done = work.finish()
    assert "other/d: taken over from m/d" in done.err and "all 80 sentences are up to date" in done.err
    assert sorted(p.name for p in work.store.iterdir() if p.is_dir()) == ["other"]
    do(work, "verify", str(work.store))


def test_a_renamed_dataset_with_other_rows_is_computed(work):
    work.job["datasets"][0] |= {"name": "renamed", "limit": 30}
    work.save()
    done = work.finish()
    assert "taken over" not in done.err and work.extracted() == 30
    assert (work.store / "m/d").exists()


def test_a_renamed_dataset_that_is_half_finished_goes_on(work):
    import zarr

    zarr.open_group(work.store, path="m/d", mode="r+")["shard_fingerprint"][2:] = 0
    before = {k: v for k, v in work.committed().items() if k.startswith("m/d")}
    work.job["datasets"][0]["name"] = "renamed"
    work.save()
    assert "taken over from m/d" in work.finish().err
    now = {k.replace("renamed", "d"): v for k, v in work.committed().items() if "renamed" in k}
    assert len(now) == 4 and before and all(now[k] == v for k, v in before.items())


def test_names_that_are_swapped_are_refused(work):
    first, second = work.job["datasets"]
    first["path"], second["path"] = second["path"], first["path"]
    work.save()
    before = work.states()
    done = work.run()
    assert done.status == 2 and "m/d: states of 60" in done.err and "m/e: states of 20" in done.err
    assert work.states() == before


def test_in_a_bucket(work, s3):
    import obstore

    place = f"s3://{BUCKET}/{work.folder.parent.name}/left.zarr"
    bucket, env = open_bucket(BUCKET, place.removeprefix(f"s3://{BUCKET}/")), aws_environment()

    def objects(group: str) -> dict[str, bytes]:
        listed = [o["path"] for batch in obstore.list(bucket, f"{group}/") for o in batch]
        return {p.removeprefix(group): obstore.get(bucket, p).bytes().to_bytes() for p in listed if "/c/" in p}

    do(work, "extract", "job.yaml", "--store", place, env=env)
    before = objects("m/d")
    work.job["datasets"][0]["name"] = "renamed"
    work.save()
    done = do(work, "extract", "job.yaml", "--store", place, env=env)
    assert "m/renamed: taken over from m/d" in done.err and objects("m/renamed") == before and not objects("m/d")
    do(work, "rm", place, "m/renamed", env=env)
    assert not objects("m/renamed") and objects("m/e")


def test_damage_that_was_noted_of_a_removed_group_is_forgotten(work):
    (work.store / "m/e/hidden_states/c/0/0/0").unlink()
    do(work, "verify", str(work.store), status=1)
    do(work, "rm", str(work.store), "m/e")
    del work.job["datasets"][1]
    work.save()
    work.finish()
    assert not (work.store / "m/e").exists()
    shutil.rmtree(work.store)
    work.finish()
