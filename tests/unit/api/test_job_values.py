"""`drillcore.Job`: checked like a job file, saved as one that loads to an equal job."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pandas as pd
import pytest
import yaml

import drillcore
from drillcore.api import given
from drillcore.api.run import chosen_stages
from drillcore.errors import JobError
from drillcore.job.extract import Extract
from drillcore.job.file import load_job
from drillcore.job.inputs import Dataset
from drillcore.job.model import Model
from drillcore.job.stages import Measure, Project, Render, Run

WRONG = {"extract": {"backend": "vlm", "threads": 0, "layrs": "all"}, "render": {"panels": 3}}
PARTS = {
    given.ModelFields: Model,
    given.DatasetFields: Dataset,
    given.ExtractFields: Extract,
    given.MeasureFields: Measure,
    given.ProjectFields: Project,
    given.RenderFields: Render,
    given.RunFields: Run,
}


def job(**changes):
    return drillcore.Job(**({"models": ["./m"], "datasets": {"d": "d.txt"}} | changes))


@pytest.mark.parametrize("typed", PARTS)
def test_editors_complete_exactly_the_fields_of_a_job_file(typed):
    assert set(get_type_hints(typed)) == {f.alias or name for name, f in PARTS[typed].model_fields.items()}


def test_every_mistake_is_told_in_the_words_of_a_job_file(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump({"models": ["./m"], "datasets": {"d": "d.txt"}, **WRONG}), encoding="utf-8")
    with pytest.raises(JobError) as of_file:
        load_job(file)
    with pytest.raises(JobError) as of_value:
        job(**WRONG)
    in_file = re.sub(rf"{re.escape(str(file))}:\d+: ", "", str(of_file.value))
    assert str(of_value.value).splitlines() == in_file.splitlines() and len(in_file.splitlines()) == 4
    assert of_value.value.hint == of_file.value.hint


def test_a_path_is_a_directory_and_arrays_are_lists(tmp_path):
    made = job(
        models=[Path("m"), {"id": Path("n"), "as": "o"}, "org/hub"],
        datasets={"d": {"path": Path("d.txt")}},
        extract={"layers": np.array([0, 2]), "threads": np.int64(1)},
        store=Path("s.zarr"),
        base=tmp_path,
    )
    assert [m.id for m in made.models] == ["./m", "./n", "org/hub"]
    assert made.fields.extract.layers == (0, 2) and made.store == str(tmp_path / "s.zarr")
    assert job(models=Path("m")).models[0].id == "./m"


VARIED = {
    "models": ["./m", {"id": "org/hub", "as": "other", "random_weights": True}],
    "datasets": [
        {"name": "d", "path": "texts/d.csv", "keep": ["year"], "label": None},
        {"name": "on", "path": "/abs/e.jsonl", "template": "Ünï: {text}", "positions": ["last", {"last": 4}]},
    ],
    "extract": {"layers": [2, 0], "positions": ["last", {"mean": {"skip_first": 1}}, "all"], "compile": "off"},
    "measure": {"metrics": ["probe"], "permutations": 9},
    "project": {"method": "pca", "min_dist": 1e-5},
    "render": {"layers": "every"},
    "run": {"audit": 0},
}


@pytest.mark.parametrize("more", [{}, {"name": "cities"}, {"store": "s.zarr"}, {"store": "s3://bucket/s.zarr"}])
@pytest.mark.parametrize("place", ["job.yaml", "cities.yaml", "deep/er/job.yaml", "../away.yaml"])
def test_a_saved_job_loads_to_an_equal_one(tmp_path, monkeypatch, more, place):
    base, elsewhere = tmp_path / "base", tmp_path / "elsewhere"
    for folder in (base / "deep" / "er", elsewhere):
        folder.mkdir(parents=True)
    made = drillcore.Job(**VARIED, **more, base=base)
    monkeypatch.chdir(elsewhere)
    again = drillcore.Job.load(made.save(base / place))
    assert again == made and hash(again) == hash(made) and again.store == made.store
    assert [again.loaded.paths(d) for d in again.datasets] == [made.loaded.paths(d) for d in made.datasets]
    assert drillcore.Job.from_dict(made.to_dict(), base=base) == made
    assert job(base=base) != made and made != made.changed(set=["measure.seed=1"])


def test_a_saved_file_holds_what_differs_from_the_defaults(tmp_path):
    made = job(base=tmp_path, measure={"permutations": 1000, "seed": 3})
    file = made.save(tmp_path / "job.yaml")
    value = {"models": ["./m"], "datasets": {"d": "d.txt"}, "measure": {"seed": 3}}
    assert yaml.safe_load(file.read_text(encoding="utf-8")) == value == made.to_dict() == yaml.safe_load(made.to_yaml())


def test_a_file_is_not_overwritten_unless_asked_for(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("precious", encoding="utf-8")
    with pytest.raises(JobError, match="exists already"):
        job().save(file)
    assert file.read_text(encoding="utf-8") == "precious"
    job().save(file, overwrite=True)
    with pytest.raises(JobError, match="is a directory, not a file"):
        job().save(tmp_path, overwrite=True)


def test_changes_are_those_of_a_job_file(tmp_path):
    file = job(base=tmp_path).save(tmp_path / "job.yaml")
    arguments = {"set": ["datasets.d.limit=5", "extract.layers=[0]"], "limit": 3}
    by_value = job(base=tmp_path).changed(**arguments)
    assert by_value.datasets[0].limit == 3 and by_value.store == str(tmp_path / "runs" / "job-limit3.zarr")
    assert drillcore.Job.load(file, limit=3) == job(base=tmp_path).changed(limit=3)
    assert job(base=tmp_path).changed(limit=3, store=tmp_path / "few.zarr").store == str(tmp_path / "few.zarr")
    with pytest.raises(JobError, match="less than 1"):
        job().changed(limit=0)


def test_a_job_shows_itself_escaped():
    made = job(datasets={"d": "<b>&.txt"})
    assert repr(made) == "Job(name='job', models=['m'], datasets=['d'], store='runs/job.zarr')"
    assert "<b>&.txt" not in made._repr_html_() and "&lt;b&gt;&amp;.txt" in made._repr_html_()


def test_stages_run_in_the_order_of_a_run_and_unknown_ones_are_refused():
    assert chosen_stages(["render", "extract"]) == ("extract", "render")
    with pytest.raises(JobError, match="there is no stage projct; did you mean `project`"):
        chosen_stages(["projct"])
    with pytest.raises(JobError, match="names no stage"):
        chosen_stages([])


@pytest.mark.parametrize(
    ("datasets", "where", "kind"),
    [
        (pd.DataFrame({"text": ["a"]}), "datasets", "DataFrame"),
        ({"c": pd.DataFrame({"text": ["a"]})}, "datasets.c", "DataFrame"),
        ({"c": pd.Series(["a"])}, "datasets.c", "Series"),
        ({"c": ["a", "b"]}, "datasets.c", "list"),
        (np.array(["a"]), "datasets", "ndarray"),
    ],
)
def test_texts_in_memory_are_no_files(datasets, where, kind):
    """The columns of a data frame were taken for files."""
    with pytest.raises(JobError, match=f"^{where}: a {kind} is no file") as refused:
        drillcore.Job(models="./m", datasets=datasets)
    assert "drillcore.extract" in refused.value.hint


def test_a_data_set_of_the_hub_stays_where_it_is(tmp_path, monkeypatch):
    """Also one that Python's Path, which drops a slash, has been through."""
    address = "hf://datasets/me/texts/train"
    made = drillcore.Job(models=["./m"], datasets={"d": Path(address), "e": {"path": address, "revision": "v1"}})
    assert [d.path for d in made.datasets] == [address, address]
    (tmp_path / "below").mkdir()
    again = drillcore.Job.load(made.save(tmp_path / "below" / "job.yaml"))
    assert again.datasets == made.datasets and address in repr(again.to_dict()) and address in made._repr_html_()
    other = drillcore.Job(models=["./m"], datasets={"d": address, "e": {"path": address}})
    assert other != made


def test_several_files_are_a_list_under_path(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text(f"text\nfrom {name}\n", encoding="utf-8")
    made = drillcore.Job(models=["./m"], datasets={"d": {"path": [tmp_path / "a.csv", "b.csv"]}}, base=tmp_path)
    assert made.loaded.paths(made.datasets[0]) == [tmp_path / "a.csv", tmp_path / "b.csv"]
    assert drillcore.Job.load(made.save(tmp_path / "job.yaml")) == made.changed(store=tmp_path / "runs" / "job.zarr")
    for files in (["a.csv", "b.csv"], [tmp_path / "a.csv"]):
        with pytest.raises(JobError, match="d: a list would be texts in memory, and these are files") as refused:
            drillcore.Job(models=["./m"], datasets={"d": files}, base=tmp_path)
        assert f'"path": {list(map(str, files))}' in refused.value.hint
    with pytest.raises(JobError, match="a list is no file") as refused:
        drillcore.Job(models=["./m"], datasets={"d": ["Hello", "a.csv"]}, base=tmp_path)
    assert '{"path": [...]}' in refused.value.hint
