"""`drillcore mv` renames what a store holds; a kill leaves every group whole, and wrong names change nothing."""

from __future__ import annotations

import copy
import shutil
import signal

import pytest

from support.crashes import KILL_AT_OPERATION
from support.runs import sentences, snapshot

pytest_plugins = ["support.run_fixtures"]


def make(new_work, name="work", **more):
    work = new_work(name, seed=6, count=40, **more)
    work.texts("e", sentences(7, 20))
    work.job["datasets"].append({"name": "e", "path": "e.jsonl"})
    work.job["extract"]["positions"] = ["last", "mean"]
    work.save()
    work.finish()
    return work


def do(work, *arguments, status=0, **more):
    done = work.forge.run(*arguments, cwd=work.folder, **more)
    assert done.status == status, (done.status, done.out, done.err)
    return done


def named(work, what, name):
    if what == "m":
        work.job["models"][0]["as"] = name
    else:
        work.job["datasets"][0] |= {"name": name, "path": "d.jsonl"}
    work.save()


@pytest.mark.parametrize(("what", "here", "there"), [("m/d", "m/d", "m/new"), ("m", "m/", "new/")])
def test_what_is_renamed_is_whole_and_up_to_date(what, here, there, new_work):
    work = make(new_work, backend="transformers")
    before = work.values()
    said = do(work, "mv", str(work.store), what, "new").out
    assert f"moved m/d to {there.rstrip('/')}{'/d' * (what == 'm')}" in said and "the job file has to say" in said
    now = work.values()
    assert {p.replace(here, there, 1) if p.startswith(here) else p for p in before} == set(now)
    assert all((now[p.replace(here, there, 1) if p.startswith(here) else p] == v).all() for p, v in before.items())
    do(work, "verify", str(work.store))
    marks = work.committed()
    named(work, what, "new")
    assert "up to date" in work.finish().err and work.committed() == marks


@pytest.mark.parametrize("what", ["m/d", "m"])
def test_a_kill_at_any_operation_loses_nothing(what, new_work):
    first = make(new_work)
    before = first.values()
    for moment in range(1, 100, 3):
        folder = first.folder.parent / f"work{moment}"
        shutil.copytree(first.folder, folder)
        work = type(first)(folder, first.forge, copy.deepcopy(first.job))
        killed = work.forge.run(
            "mv", str(work.store), what, "new", cwd=work.folder, first=KILL_AT_OPERATION.format(moment=moment)
        )
        do(work, "verify", str(work.store))
        held = {path.split("/")[-1].replace("new", "d"): values for path, values in work.values().items()}
        assert all((held[path.split("/")[-1]] == values).all() for path, values in before.items()), moment
        named(work, what, "new")
        done = work.finish()
        assert "up to date" in done.err, (moment, done.err)
        do(work, "verify", str(work.store))
        if killed.status == 0:
            assert moment > 5
            return
        assert killed.status == -signal.SIGKILL


@pytest.mark.parametrize(
    ("group", "name", "said"),
    [
        ("m/d", "e", "has m/e"),
        ("m/d", "d", "has m/d"),
        ("m", "m", "has m/d"),
        ("m/x", "new", "has no group m/x"),
        ("m/d~mean", "new", "position or branch of m/d"),
        ("m/d", "a/b", "is no name of a group"),
        ("m/d", "", "is no name of a group"),
    ],
)
def test_a_wrong_name_changes_nothing(group, name, said, new_work):
    work = make(new_work)
    before = snapshot(work.store)
    refused = do(work, "mv", str(work.store), group, name, status=2)
    assert said in refused.err and snapshot(work.store) == before
