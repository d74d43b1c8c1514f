"""A result that does not belong to the states, labels and settings beside it is never shown as if it did."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
import zarr

import drillcore
from drillcore.errors import StoreError
from drillcore.store.arrays import ARRAYS
from drillcore.store.committed import fingerprints_of
from drillcore.store.freshness import stale_results
from support.records import as_written
from support.runs import Work, sentences

pytest_plugins = ["support.run_fixtures"]
COUNT = 40
MEASURED = {"separation", "layer_cka", "probe_weight", "probe_offset", "probe_decision"}
ALL = (
    MEASURED
    | {"next_token", "prediction", "candidate_logprob"}
    | {
        "pca",
        "degenerate",
        "trustworthiness",
    }
)


@pytest.fixture(scope="module")
def measured(make_work, tmp_path_factory):
    """A job with every result: labels, another field of labels, groups, expected tokens, candidates."""
    made = make_work(
        tmp_path_factory.mktemp("measured") / "work",
        backend="transformers",
        measure={"permutations": 19},
        project={"method": "pca"},
    )
    draw = random.Random(7)
    rows = sentences(7, COUNT)
    for i, row in enumerate(rows):
        row |= {"label": "early" if i < COUNT // 2 else "late", "other": draw.choice("ab"), "topic": f"t{i // 2}"}
        row["next"] = " x" if i % 2 else " y"
    made.texts("d", rows)
    made.job["datasets"][0] |= {"expected_next": "next", "group": "topic", "candidates": [" x", " y"]}
    made.save()
    done = made.forge.run("run", "job.yaml", cwd=made.folder)
    assert done.status == 0, done.err
    return made


@pytest.fixture
def work(measured, tmp_path):
    shutil.copytree(measured.folder, tmp_path / "work")
    return Work(tmp_path / "work", measured.forge, yaml.safe_load((tmp_path / "work/job.yaml").read_text()))


def do(work: Work, *arguments: str, status: int = 0):
    done = work.forge.run(*arguments, cwd=work.folder)
    assert done.status == status, (done.status, done.out, done.err)
    return done


def stale_of(work: Work) -> dict[str, str]:
    return stale_results(zarr.open_group(work.store, path="m/d", mode="r", use_consolidated=False))


def test_nothing_is_stale_after_a_run(work):
    assert stale_of(work) == {}
    assert "(stale)" not in do(work, "show", str(work.store)).out
    assert "whole" in do(work, "verify", str(work.store)).out.splitlines()[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drillcore.open(work.store)
    again = do(work, "run", "job.yaml").err
    for what in ("sentences are up", "measures are up", "projection is up", "prediction is up", "candidates are up"):
        assert what in again
    assert "0 drawn" in again


def test_another_label_field_after_extract_alone(work):
    """The issue's own case: the report showed the new labels with the old probe."""
    work.job["datasets"][0]["label"] = "other"
    work.save()
    kept = work.committed()
    do(work, "extract", "job.yaml")
    assert work.committed() == kept
    report = (work.beside / "report.html").read_bytes()
    done = do(work, "render", "job.yaml", status=2)
    assert "m/d: separation: it was made from another label" in done.err and "`drillcore measure`" in done.err
    assert (work.beside / "report.html").read_bytes() == report
    shown = do(work, "show", str(work.store)).out
    assert "separation (stale)" in shown and "it was made from another label" in shown
    assert "linear probe (primary" not in shown and "pca (stale)" not in shown
    done = do(work, "compare", str(work.store), "m/d", "m/d", status=2)
    assert "m/d: its measures are stale" in done.err and "drillcore measure" in done.err
    done = do(work, "verify", str(work.store), status=1)
    assert "m/d: separation: is stale" in done.out
    with pytest.warns(UserWarning, match="m/d has stale results"):
        tree = drillcore.open(work.store)
    assert "another label" in tree["m/d"].separation.attrs["stale"] and "stale" not in tree["m/d"].pca.attrs
    do(work, "measure", "job.yaml")
    do(work, "render", "job.yaml")
    assert stale_of(work) == {} and (work.beside / "report.html").read_bytes() != report
    do(work, "verify", str(work.store))


@pytest.mark.parametrize("stage", ["measure", "project", "predict", "render"])
def test_single_stages_refuse_labels_that_were_never_extracted(stage, work):
    work.job["datasets"][0]["label"] = "other"
    work.save()
    before = snapshot(work.folder)
    done = do(work, stage, "job.yaml", status=2)
    assert "m/d holds other labels or kept columns" in done.err and "drillcore extract" in done.err
    assert snapshot(work.folder) == before


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("stage", ["measure", "project", "predict", "render"])
def test_single_stages_refuse_states_that_are_not_the_jobs(stage, work):
    lines = (work.folder / "d.jsonl").read_text().splitlines()
    for changed, said in ((lines[:-1], "1 of 40 sentences are gone"), ([*lines, lines[0]], "holds 40 sentences")):
        (work.folder / "d.jsonl").write_text("\n".join(changed) + "\n")
        before = snapshot(work.folder)
        done = do(work, stage, "job.yaml", status=2)
        assert said in done.err and "drillcore extract" in done.err
        assert snapshot(work.folder) == before


@pytest.mark.parametrize(
    ("change", "stale", "why"),
    [
        (lambda j: j["measure"].update(folds=3), ALL - {"pca", "degenerate", "trustworthiness"}, "folds changed"),
        (lambda j: j["measure"].update(metrics=["purity"]), MEASURED, "metrics changed"),
        (lambda j: j["project"].update(seed=5), {"pca", "degenerate", "trustworthiness"}, "seed changed"),
        (lambda j: j["project"].update(method="umap"), {"pca", "degenerate", "trustworthiness"}, "method changed"),
        (lambda j: j["datasets"][0].update(candidates=[" x", " z"]), {"candidate_logprob"}, "candidates changed"),
    ],
)
def test_another_setting_marks_what_it_decides(change, stale, why, work):
    change(work.job)
    work.save()
    do(work, "extract", "job.yaml")
    assert {n: why in w for n, w in stale_of(work).items()} == dict.fromkeys(stale, True)
    assert "(stale)" in do(work, "show", str(work.store)).out or stale == {"candidate_logprob"}
    do(work, "verify", str(work.store), status=1)
    if "method" not in why:  # UMAP has its own test below
        for stage, result in (("measure", "separation"), ("project", "pca"), ("predict", "candidate_logprob")):
            if result in stale:
                do(work, stage, "job.yaml")
        assert stale_of(work) == {}


@pytest.mark.parametrize(
    ("column", "stale"),
    [
        ("group", MEASURED | {"next_token", "prediction", "candidate_logprob"}),
        ("expected_next", {"next_token", "prediction", "candidate_logprob"}),
    ],
)
def test_another_column_marks_what_read_it(column, stale, work):
    rows = [json.loads(line) for line in (work.folder / "d.jsonl").read_text().splitlines()]
    rows = [{**r, "topic": f"u{i // 4}"} if column == "group" else {**r, "next": " y"} for i, r in enumerate(rows)]
    work.texts("d", rows)
    do(work, "extract", "job.yaml")
    assert set(stale_of(work)) == stale
    done = do(work, "render", "job.yaml", status=2)
    assert "prediction: it was made from another" in done.err
    do(work, "measure", "job.yaml")
    out = do(work, "predict", "job.yaml").err
    assert stale_of(work) == {} and "prediction is up to date" not in out and "candidates are up to date" not in out


def test_other_states_mark_every_result(work):
    rows = [json.loads(line) for line in (work.folder / "d.jsonl").read_text().splitlines()]
    rows[3]["text"] = "another sentence altogether"
    work.texts("d", rows)
    do(work, "extract", "job.yaml", "--overwrite")
    why = stale_of(work)
    assert {"separation", "pca", "prediction", "candidate_logprob", "next_token", "layer_cka"} <= set(why)
    assert set(why.values()) == {"it was made from other states"}
    done = do(work, "verify", str(work.store), status=1)
    assert "m/d: pca: is stale: it was made from other states" in done.out
    for kind in ("parquet", "embedding-atlas"):
        arguments = ("export", str(work.store), "--layer", "1", "--to", kind, "--out", "x")
        assert "m/d: pca is stale" in do(work, *arguments, status=2).err
    do(work, "export", str(work.store), "--layer", "1", "--to", "npy", "--out", "x.npy")
    with pytest.raises(StoreError, match="do not belong"):
        from drillcore.job.file import load_job
        from drillcore.runtime.runner import run_stages
        from drillcore.system.progress import Silent

        run_stages(load_job(work.folder / "job.yaml"), ("render",), Silent())
    for stage in ("measure", "predict", "project"):
        do(work, stage, "job.yaml")
    assert stale_of(work) == {}
    do(work, "verify", str(work.store))


@pytest.mark.long  # compiles UMAP
def test_export_takes_the_projection_that_the_job_asks_for(work):
    do(work, "project", "job.yaml", "--set", "project.method=umap", "--set", "project.n_epochs=5")
    do(work, "project", "job.yaml")
    assert set(stale_of(work)) == {"umap", "umap_raw"}
    do(work, "export", str(work.store), "--layer", "1", "--to", "parquet", "--out", "x.parquet")
    import pyarrow.parquet as pq

    x = pq.read_table(work.folder / "x.parquet").column("projection_x").to_numpy()
    group = zarr.open_group(work.store, path="m/d", mode="r", use_consolidated=False)
    assert (x == group["pca"][1, :, 0]).all()


def test_what_the_job_no_longer_asks_for_is_not_drawn(work):
    del work.job["datasets"][0]["expected_next"]
    work.save()
    do(work, "run", "job.yaml")
    assert {"prediction", "next_token"} <= set(stale_of(work))
    assert b"Expected next token" not in (work.beside / "report.html").read_bytes()


def test_a_dataset_more_marks_a_joint_projection(work):
    work.job["project"] = {"method": "pca", "fit": "joint"}
    work.save()
    do(work, "project", "job.yaml")
    assert stale_of(work) == {}
    work.texts("e", sentences(5, 20))
    work.job["datasets"].append({"name": "e", "path": "e.jsonl"})
    work.save()
    do(work, "extract", "job.yaml")
    assert "datasets changed" in stale_of(work)["pca"]
    do(work, "project", "job.yaml")
    assert stale_of(work) == {}


def test_results_of_an_older_version(work):
    """They recorded one digest of everything: up to date they stay, and stale they are marked once the job is known."""
    group = zarr.open_group(work.store, path="m/d", mode="r+", use_consolidated=False)
    aged = older(group, work)
    group.attrs.put(aged)
    as_written(work.store)
    again = "".join(do(work, stage, "job.yaml").err for stage in ("measure", "predict", "project"))
    for what in ("measures are up", "projection is up", "prediction is up", "candidates are up"):
        assert what in again
    assert stale_of(work) == {}
    group.attrs.put(aged)
    as_written(work.store)
    work.job["datasets"][0]["label"] = "other"
    work.save()
    do(work, "extract", "job.yaml")
    assert set(stale_of(work)) == MEASURED - set(LATER)


# Arrays that no version had which recorded one digest.
LATER = ("nearest", "probe_decision")


def older(group: zarr.Group, work: Work) -> dict[str, Any]:
    """A group's attributes as the version before wrote them."""
    from drillcore.job.stages import Measure, Project
    from drillcore.store.reader import read_array
    from drillcore.system.files import digest

    prints = fingerprints_of(group)
    columns = [digest([str(v) for v in read_array(group, n)]) for n in ("label", "group")]
    made = {
        "measure": digest([prints, columns, Measure(**work.job["measure"]).model_dump(mode="json")]),
        "project": digest([[prints], Project(**work.job["project"]).model_dump(mode="json")]),
    }
    attributes = dict(group.attrs)
    for part in ("results", "contents"):
        attributes[part] = {n: facts for n, facts in attributes[part].items() if n not in LATER}
    for name, facts in attributes["results"].items():
        facts.pop("inputs", None)
        facts["made_from"] = made.get(ARRAYS[name].writers[0], facts.get("made_from", ""))
        attributes["results"][name] = facts
    for name in ("wanted", "column_digests", "recipes"):
        attributes.pop(name, None)
    return attributes
