"""What lies where a run writes, and notes of another shape: refused or passed over in plain words; nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from support.runs import snapshot

pytest_plugins = ["support.run_fixtures"]

ODD = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
}
SHAPES = {
    "list": "[]",
    "null": "null",
    "number": "5",
    "deep": "[" * 100_000,
    "digits": '{"versions": ' + "9" * 5000 + "}",
    "versions": '{"versions": 5}',
    "models": '{"models": [], "stages": 5}',
    "model": '{"models": {"m": 5}, "stages": {"render": 5, "extract": []}}',
    "parts": '{"models": {"m": {"self_check": 5, "extract": 5, "notes": 5}}}',
    "half of a pair": '{"models": {"m": {"a": "\\ud800"}}}',
    "job": '{"job": 5}',
    "NUL in base": '{"job": {"models": ["./m"], "datasets": {"d": "d.txt"}}, "base": "a\\u0000b"}',
    "base": '{"job": {"models": ["./m"], "datasets": {"d": "d.txt"}}, "base": 5}',
}


def plain(command, statuses):
    said = command.out + command.err
    assert command.status in statuses, said
    assert "Traceback" not in said and "bug in drillcore" not in said and "unexpected" not in said, said
    assert command.status == 0 or command.err.startswith("drillcore: ")
    return said


@pytest.fixture(scope="module")
def done(make_work, tmp_path_factory):
    """A job that ran whole, with its pictures; copied for each test."""
    work = make_work(
        tmp_path_factory.mktemp("odd") / "work", count=20, project={"method": "pca"}, measure={"permutations": 20}
    )
    command = work.forge.run("run", work.file, cwd=work.folder)
    assert command.status == 0, command.err
    return work


@pytest.fixture
def work(done, tmp_path):
    from dataclasses import replace

    shutil.copytree(done.folder, tmp_path / "work", symlinks=True)
    return replace(done, folder=tmp_path / "work")


def put(path: Path, make) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.parametrize("name", ["manifest.json", "report.html", "pictures/made_from.json", "pictures/by_dataset.png"])
def test_a_file_that_a_run_writes_is_of_another_kind(kind, name, work):
    put(work.beside / name, ODD[kind])
    before = snapshot(work.folder)
    said = plain(work.forge.run("run", work.file, cwd=work.folder), {2})
    assert name in said and "which a run writes" in said and snapshot(work.folder) == before


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_the_folder_of_the_pictures_is_of_another_kind(kind, work):
    put(work.beside / "pictures", ODD[kind])
    before = snapshot(work.folder)
    assert "pictures" in plain(work.forge.run("run", work.file, cwd=work.folder), {2})
    assert snapshot(work.folder) == before


@pytest.mark.parametrize("target", ["nothing", "pictures"])
def test_the_folder_of_the_pictures_is_a_link_to_none(target, work):
    put(work.beside / "pictures", lambda path: path.symlink_to(target))
    said = plain(work.forge.run("run", work.file, cwd=work.folder), {2})
    assert "pictures cannot be a folder: it is a link to none" in said


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_out_and_store_are_of_another_kind(kind, work):
    ODD[kind](work.folder / "odd")
    before = snapshot(work.folder)
    for more in (("--out", "odd"), ("--out", "odd/below"), ("--store", "odd"), ("--store", "odd/below.zarr")):
        plain(work.run(*more), {2})
    for command in (
        ["show", "odd"],
        ["verify", "odd"],
        ["verify", "runs/job.zarr", "--out", "odd"],
        ["verify", "runs/job.zarr", "--out", "odd/below"],
    ):
        plain(work.forge.run(*command, cwd=work.folder), {2})
    assert snapshot(work.folder) == before


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_a_command_writes_is_never_put_in_the_place_of_something_else(kind, work):
    ODD[kind](work.folder / "odd")
    before = snapshot(work.folder)
    for command in (
        ["export", "runs/job.zarr", "--layer", "1", "--to", "npy", "--out", "odd"],
        ["compare", "runs/job.zarr", "m/d", "m/d", "--csv", "odd"],
        ["bench", "m", "--out", "odd", "--lengths", "uniform:2-3", "--repeats", "1"],
        ["bench", "m", "--out", "b.json", "--texts", "odd", "--repeats", "1"],
    ):
        assert "odd" in plain(work.forge.run(*command, cwd=work.folder), {2})
    assert snapshot(work.folder) == before


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_a_note_of_damage_of_another_kind(kind, work):
    put(work.beside / "damage.json", ODD[kind])
    assert "damage.json" in plain(work.forge.run("verify", "runs/job.zarr", cwd=work.folder), {2})
    assert "ignored" in plain(work.run(), {0})


@pytest.mark.parametrize("shape", SHAPES)
def test_a_manifest_of_any_shape_counts_as_absent(shape, work):
    (work.beside / "manifest.json").write_text(SHAPES[shape], encoding="utf-8")
    plain(work.forge.run("verify", "runs/job.zarr", "--recompute", "1", cwd=work.folder), {0, 2})
    plain(work.forge.run("render", work.file, cwd=work.folder), {0})
    assert work.manifest["status"] == "done"


@pytest.mark.parametrize(
    "note",
    [
        *("[]", "5", "[" * 100_000, '{"report.html": 5}', '{"report.html": {}}', '{"report.html": {"files": 5}}'),
        '{"report.html": {"files": [5], "made_from": "x"}}',
        '{"report.html": {"files": ["a\\u0000b"], "made_from": "x"}}',
        '{"report.html": {"files": ["../../../d.jsonl", "../../../../work/job.yaml"], "made_from": "x"}}',
        '{"report.html": {"files": ["/etc/nothing", "..", "../.."], "made_from": "x"}}',
    ],
)
def test_a_note_of_pictures_of_any_shape_removes_nothing(note, work):
    (work.beside / "pictures" / "made_from.json").write_text(note, encoding="utf-8")
    plain(work.forge.run("render", work.file, cwd=work.folder), {0})
    assert (work.folder / "d.jsonl").exists() and (work.folder / "job.yaml").exists()
    assert "report.html" in json.loads((work.beside / "pictures" / "made_from.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "results",
    [
        "[]",
        '{"kind": "drillcore-bench"}',
        '{"kind": "drillcore-bench", "settings": 5, "samples": []}',
        '{"kind": "drillcore-bench", "settings": {}, "samples": 5}',
        '{"kind": "drillcore-bench", "settings": {}, "samples": [{}]}',
        "[" * 100_000,
    ],
)
def test_results_of_a_bench_of_another_shape(results, work):
    (work.folder / "b.json").write_text(results, encoding="utf-8")
    command = ["bench", "m", "--out", "b.json", "--lengths", "uniform:2-3", "--repeats", "1"]
    assert "is not a results file" in plain(work.forge.run(*command, cwd=work.folder), {2})
    assert (work.folder / "b.json").read_text(encoding="utf-8") == results


def test_names_and_texts_reach_the_terminal_as_escapes(new_work):
    hostile = "\x1b[31mred\x1b]0;title\x07\x9b\u202eevil\u2066\x08\x7f"
    work = new_work(count=20)
    work.texts("d", [{"text": f"{hostile} {i} Привет 안녕 🙂", "label": hostile + " " * (i % 2)} for i in range(20)])
    said = plain(work.forge.run("plan", work.file, "--no-calibrate", cwd=work.folder), {0})
    said += plain(work.run(), {0})
    for name, field in ((hostile, "path"), (hostile, "label")):
        work.job["datasets"] = [{"name": "d", "path": "d.jsonl", field: name}]
        work.save()
        said += plain(work.run(), {2})
    assert "\\x1b[31mred" in said and "Привет 안녕 🙂" in said
    assert not set("\x1b\x07\x9b\u202e\u2066\x08\x7f") & set(said)
