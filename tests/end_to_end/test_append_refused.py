"""Rows that `drillcore append` refuses, and datasets, files and jobs that take none: nothing is written."""

from __future__ import annotations

import fcntl

import pyarrow as pa
import pytest

from support.appending import ROW, add, as_jsonl, new_file
from support.crashes import bare_rights
from support.runs import snapshot

pytest_plugins = ["support.run_fixtures", "support.appending_fixtures"]


def jsonl(*rows):
    return as_jsonl(rows)


REFUSED = {
    "a lacking column": ("d.csv", {}, "new.csv", b"text,year\nx,1\n", "new.csv: has no field `label`, which d.csv has"),
    "another column": ("d.csv", {}, "new.csv", b"text,label,year,who\nx,a,1,b\n", "new.csv: has field `who`, which"),
    "a misspelt column": ("d.csv", {}, "new.csv", b"text,lable,year\nx,a,1\n", "did you mean `label`"),
    "another field": ("d.jsonl", {}, "new.jsonl", jsonl(ROW, ROW | {"who": 1}), "new.jsonl:2: has field `who`"),
    "a lacking field": ("d.jsonl", {}, "new.jsonl", jsonl(ROW, {"text": "x", "year": 1}), "new.jsonl:2: no field `la"),
    "an empty sentence": (
        "d.csv",
        {},
        "new.csv",
        b"text,label,year\nx,a,1\n,a,1\n",
        "new.csv:3: field `text` is empty",
    ),
    "an empty label": ("d.jsonl", {}, "new.jsonl", jsonl(ROW | {"label": ""}), "new.jsonl:1: field `label` is empty"),
    "no number": ("d.jsonl", {}, "new.csv", b"text,label,year\nx,a,old\n", "new.csv:2: field `year` is `old`, and the"),
    "text among numbers": ("d.csv", {}, "new.csv", b"text,label,year\nx,a,old\n", "`year` holds numbers, and with"),
    "a type of Parquet": (
        "d.parquet",
        {},
        "new.jsonl",
        jsonl(ROW | {"year": 1.5}),
        "new.jsonl:1: field `year` is a fra",
    ),
    "a tab": ("d.tsv", {}, "new.jsonl", jsonl(ROW | {"text": "a\tb"}), "new.jsonl:1: field `text` holds a tab or"),
    "a line end": ("d.txt", {}, "new.jsonl", jsonl({"text": "a\nb"}), "field `text` holds a line end, which a text"),
    "a blank line": ("d.txt", {}, "new.jsonl", jsonl({"text": " "}), "new.jsonl:1: d.txt cannot hold this row"),
    "a list": ("d.csv", {}, "new.jsonl", jsonl(ROW | {"year": [1]}), "field `year` is a list, which a CSV file"),
    "a character": (
        "d.csv",
        {"encoding": "cp1252"},
        "new.jsonl",
        jsonl(ROW | {"text": "\u4e00"}),
        "'\\u4e00', which d",
    ),
    "beyond the limit": ("d.jsonl", {"limit": 21}, "new.jsonl", jsonl(ROW, ROW), "takes its first 21 rows"),
    "no row": ("d.csv", {}, "new.csv", b"text,label,year\n", "new.csv: holds no row to add"),
    "no file": ("d.csv", {}, "gone.csv", None, "gone.csv: there is no such file"),
    "another kind": ("d.csv", {}, "new.xlsx", b"PK", "new.xlsx: files of this kind are not read"),
    "a broken file": ("d.csv", {}, "new.jsonl", b'{"text": \n', "new.jsonl:1: is not JSON"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_rows_are_refused_before_anything_is_written(case, make):
    name, settings, new, content, message = REFUSED[case]
    work = make(name, run=False, **settings)
    if content is not None:
        (work.folder / new).write_bytes(content)
    before = snapshot(work.folder)
    command = add(work, new)
    assert command.status == 2 and message in command.err, command.err
    assert ".appending" not in command.err and "Traceback" not in command.err and command.err.count("\n") >= 2
    assert snapshot(work.folder) == before


def wrong_dataset(work):
    return ["job.yaml", "dd", "new.jsonl"], "has no dataset dd; did you mean `d`?"


def on_the_hub(work):
    work.job["datasets"][0] = {"name": "d", "path": "hf://datasets/org/name/train"}
    return ["job.yaml", "d", "new.jsonl"], "hf://datasets/org/name/train is on the hub"


def in_arrow(work):
    with pa.OSFile(str(work.folder / "d.arrow"), "wb") as sink, pa.ipc.new_file(sink, pa.schema([])):
        work.job["datasets"][0]["path"] = "d.arrow"
    return ["job.yaml", "d", "new.jsonl"], "d.arrow is an Arrow file"


def saved_to_disk(work):
    (work.folder / "saved").mkdir()
    (work.folder / "saved" / "state.json").write_text('{"_data_files": [{"filename": "a.arrow"}]}')
    (work.folder / "saved" / "a.arrow").write_bytes(b"")
    work.job["datasets"][0]["path"] = "saved"
    return ["job.yaml", "d", "new.jsonl"], "saved is a folder that save_to_disk wrote"


def absent(work):
    work.job["datasets"][0]["path"] = "nothing.jsonl"
    return ["job.yaml", "d", "new.jsonl"], "nothing.jsonl: there is no such file"


def blank_end(work):
    with (work.folder / "d.jsonl").open("ab") as stream:
        stream.write(b"\n\n")
    return ["job.yaml", "d", "new.jsonl"], "is empty: every line must hold a row"


def a_model_that_is_not_there(work):
    work.job["models"][0]["id"] = "./nowhere"
    return ["job.yaml", "d", "new.jsonl"], "nowhere"


@pytest.mark.parametrize(
    "wrong",
    [wrong_dataset, on_the_hub, in_arrow, saved_to_disk, absent, blank_end, a_model_that_is_not_there],
)
def test_a_dataset_or_job_that_takes_no_rows_is_refused(wrong, make):
    work = make(run=False)
    new_file(work)
    arguments, message = wrong(work)
    work.save()
    before = snapshot(work.folder)
    command = work.forge.run("append", *arguments, cwd=work.folder)
    assert command.status == 2 and message in command.err, command.err
    assert snapshot(work.folder) == before and ".appending" not in command.err


def test_a_sentence_that_is_too_long_for_the_model_is_refused(make):
    work = make(run=False)
    command = add(work, new_file(work, rows=[ROW, ROW | {"text": "river " * 5000}]))
    assert command.status == 2 and "/d.jsonl: sentence 21 has 30001 tokens" in command.err, command.err
    assert "Of d, sentences from 20 on are the new rows." in command.err


def test_a_file_of_the_package_or_one_that_may_not_be_written_is_refused(make):
    work = make(run=False)
    file, raw = work.folder / "d.jsonl", (work.folder / "d.jsonl").read_bytes()
    ours = f"import pathlib, drillcore.runtime.appending as a\na.PACKAGE = pathlib.Path({str(work.folder)!r})\n"
    command = add(work, new_file(work), first=ours)
    assert command.status == 2 and "belongs to drillcore itself" in command.err
    file.chmod(0o444)
    command = add(work, "new.jsonl", first=bare_rights())
    assert command.status == 2 and "d.jsonl may not be written" in command.err and file.read_bytes() == raw


def test_a_job_whose_run_would_be_refused_gets_no_rows(make):
    work = make()
    work.job["extract"]["store_dtype"] = "float16"
    work.save()
    raw = (work.folder / "d.jsonl").read_bytes()
    command = add(work, new_file(work))
    assert command.status == 2 and "would take away or compute again" in command.err, command.err
    assert (work.folder / "d.jsonl").read_bytes() == raw


def test_a_run_that_is_refused_after_all_is_no_refusal_of_the_rows(make):
    """Status 2 would promise that nothing was written."""
    late = """
import drillcore.runtime.runner as runner
from drillcore.errors import StoreError
def refused(*arguments):
    raise StoreError("another run holds the store")
runner.store_lock = refused
"""
    work = make()
    command = add(work, new_file(work), first=late)
    assert command.status == 1 and "3 rows were added to" in command.err and "another run holds" in command.err
    assert add(work, "new.jsonl").status == 0 and work.extracted() == 3


def test_two_commands_at_a_time(make):
    work = make(run=False)
    with (work.folder / "d.jsonl").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        command = add(work, new_file(work))
        assert command.status == 2 and "another command is adding rows to" in command.err
    assert add(work, "new.jsonl", "--no-run").status == 0


def test_a_file_that_changes_meanwhile_is_kept(make):
    change = """
import drillcore.runtime.appending as appending
like = appending._like
def changed(path, scratch):
    with path.open("ab") as stream:
        stream.write(b'{"text": "other", "label": "a", "year": 1}\\n')
    return like(path, scratch)
appending._like = changed
"""
    work = make(run=False)
    raw = (work.folder / "d.jsonl").read_bytes()
    command = add(work, new_file(work), "--no-run", first=change)
    assert command.status == 2 and "d.jsonl changed meanwhile" in command.err
    assert (work.folder / "d.jsonl").read_bytes() == raw + b'{"text": "other", "label": "a", "year": 1}\n'
    assert not list(work.folder.glob(".appending*"))


def test_a_full_disk_leaves_the_file_as_it_was(make):
    full = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    work = make(run=False)
    new = new_file(work, rows=[ROW | {"text": "x" * 500}])
    before = snapshot(work.folder)
    command = add(work, new, "--no-run", first=full)
    assert command.status == 1 and "could not be written: File too large\n  It is as it was." in command.err
    assert snapshot(work.folder).keys() == before.keys()
    assert (work.folder / "d.jsonl").stat().st_size == before["d.jsonl"][1]


def test_a_row_that_would_come_back_as_another_is_refused(make):
    """A byte order mark at the beginning of a file is no text to the reader."""
    work = make("d.txt", b"", run=False)
    command = add(work, new_file(work, rows=[{"text": "\ufeffa river"}]), "--no-run")
    assert command.status == 2 and "new.jsonl:1: d.txt cannot hold this row as it is" in command.err, command.err
    assert (work.folder / "d.txt").read_bytes() == b"" and not list(work.folder.glob(".appending*"))
