"""The demo's folder: what is written into it, what is left alone, and what is refused."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from drillcore.api import demo
from drillcore.errors import JobError, MissingExtraError
from drillcore.job.file import load_job

ROOT = Path(__file__).parents[3]


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def drillcore(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "drillcore", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_the_files_are_those_of_the_repository(tmp_path):
    job = demo.write_demo(tmp_path / "new" / "demo")
    assert contents(tmp_path / "new" / "demo") == {name: (ROOT / name).read_bytes() for name in demo.FILES}
    loaded = load_job(job)
    assert all(loaded.paths(dataset)[0].is_file() for dataset in loaded.job.datasets)
    assert Path(loaded.store) == tmp_path / "new" / "demo" / "runs" / "demo.zarr"


def test_a_demo_goes_on_and_gets_what_it_lacks(tmp_path):
    demo.write_demo(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / demo.FILES[1]).unlink()
    (tmp_path / demo.SCHEMA).write_text("{}")
    assert demo.missing_files(tmp_path) == [demo.FILES[1], demo.SCHEMA]
    demo.write_demo(tmp_path)
    assert demo.missing_files(tmp_path) == []
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(JobError, match="is not empty and holds no demo"):
        demo.write_demo(tmp_path)
    with pytest.raises(JobError, match="cannot be a folder"):
        demo.write_demo(tmp_path / "notes.txt")
    assert contents(tmp_path) == {"notes.txt": b"mine"}


@pytest.mark.parametrize("name", demo.FILES[:2])
def test_a_changed_file_is_refused_and_kept(name, tmp_path):
    demo.write_demo(tmp_path)
    (tmp_path / name).write_text("models: [my/own]\n")
    with pytest.raises(JobError, match="is not the demo's") as refused:
        demo.write_demo(tmp_path)
    assert str(tmp_path / "jobs" / "demo.yaml") in refused.value.hint
    assert (tmp_path / name).read_text() == "models: [my/own]\n"


@pytest.mark.parametrize("absent", [("umap",), ("torch", "datashader")])
def test_missing_packages_are_named_at_once(absent, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name in absent else found(name))
    with pytest.raises(MissingExtraError) as refused:
        demo.refuse_missing_packages()
    assert all(name in str(refused.value) for name in absent)
    assert refused.value.hint == "pip install 'drillcore[all]'"


def test_the_command_writes_only_where_it_is_asked_to(tmp_path):
    done = drillcore("demo", "--write-only", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "drillcore run drillcore-demo/jobs/demo.yaml" in done.stdout
    assert sorted(contents(tmp_path / "drillcore-demo")) == sorted(demo.FILES)
    assert "goes on" in drillcore("demo", "--write-only", cwd=tmp_path).stdout


def test_the_schema_is_written_beside_a_job(tmp_path):
    done = drillcore("schema", "--write", "job.schema.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "# yaml-language-server: $schema=job.schema.json" in done.stdout.splitlines()
    assert contents(tmp_path) == {"job.schema.json": (ROOT / "schemas" / "job.schema.json").read_bytes()}
    # Written again by another version.
    assert drillcore("schema", "job", "--write", "job.schema.json", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("held", ["models: []\n", '{"title": "another"}', ""])
def test_a_schema_takes_the_place_of_no_other_file(held, tmp_path):
    (tmp_path / "job.yaml").write_text(held)
    done = drillcore("schema", "--write", "job.yaml", cwd=tmp_path)
    assert done.returncode == 2 and "is there already" in done.stderr
    assert contents(tmp_path) == {"job.yaml": held.encode()}
