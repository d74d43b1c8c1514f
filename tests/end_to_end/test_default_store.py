"""The default store lies beside the job file, wherever the command is called; one at the former place is named."""

from __future__ import annotations

import shutil

import pytest

import drillcore
from drillcore.errors import StoreError
from support.runs import Work

pytest_plugins = ["support.run_fixtures"]


@pytest.fixture
def work(new_work) -> Work:
    return new_work("jobs", seed=4, count=20)


def extract(work: Work, *more: str, cwd):
    command = work.forge.start("extract", str(work.folder / "job.yaml"), *more, cwd=cwd)
    command.wait()
    return command


def test_from_another_folder_it_is_the_same_store(work, tmp_path):
    """The issue's own case: the same job from two folders was computed twice."""
    work.finish()
    before, elsewhere = work.committed(), tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = extract(work, cwd=elsewhere)
    assert done.status == 0 and "up to date" in done.err, done.err
    assert str(work.store) in done.out and work.committed() == before
    assert list(elsewhere.iterdir()) == []


def test_a_store_at_the_former_place_is_named(work, tmp_path, monkeypatch):
    work.finish()
    elsewhere = tmp_path / "elsewhere"
    shutil.move(work.folder / "runs", elsewhere / "runs")
    done = extract(work, cwd=elsewhere)
    assert done.status == 2 and not work.store.exists() and not work.beside.exists()
    assert f"there is a store at {elsewhere / 'runs/job.zarr'}" in done.err and f"now it is {work.store}" in done.err
    assert "--store" in done.err and "Move" in done.err
    monkeypatch.chdir(elsewhere)
    with pytest.raises(StoreError, match="there is a store at"):
        drillcore.run(work.folder / "job.yaml")
    done = extract(work, "--store", "runs/job.zarr", cwd=elsewhere)
    assert done.status == 0 and "up to date" in done.err
    shutil.move(elsewhere / "runs", work.folder / "runs")
    assert "up to date" in extract(work, cwd=elsewhere).err


def test_two_stores_are_named_and_the_right_one_is_used(work, tmp_path):
    work.finish()
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(work.folder / "runs", elsewhere / "runs")
    done = extract(work, cwd=elsewhere)
    assert done.status == 0 and f"its store is {work.store}" in done.err and "up to date" in done.err


def test_the_store_of_another_job_file_is_no_obstacle(work, tmp_path):
    """A job file of that name in the working directory has that store."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(work.folder, elsewhere)
    other = Work(elsewhere, work.forge, work.job)
    other.finish()
    done = extract(work, cwd=elsewhere)
    assert done.status == 0 and "this run does not use it" in done.err
    assert len(work.committed()) == len(other.committed()) == 2
