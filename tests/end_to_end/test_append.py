"""`drillcore append`: rows come at the end of a dataset's file as they are, and they alone are computed."""

from __future__ import annotations

import json
import signal
import stat

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import drillcore
from drillcore.api.append import append
from support.appending import (
    BEFORE,
    BROKEN,
    GROWING,
    NEW,
    ROW,
    WRITERS,
    add,
    as_csv,
    as_jsonl,
    new_file,
    rows_of,
    stored,
)
from support.runs import SHARD

pytest_plugins = ["support.run_fixtures", "support.appending_fixtures"]


@pytest.mark.parametrize("name", WRITERS)
def test_each_format_gets_the_rows_and_only_they_are_computed(name, make, seed):
    work = make(name)
    file, is_txt = work.folder / name, name == "d.txt"
    file.chmod(0o640)
    raw, marks, files, values = file.read_bytes(), work.committed(), work.states(), work.values()["m/d"]
    rows = NEW if "tsv" in name or is_txt else [*NEW, BROKEN]
    rows = [{"text": row["text"]} for row in rows] if is_txt else rows
    if name in ("d.jsonl", "d.parquet"):
        command = add(work, new_file(work, rows=rows))
        assert f"added {len(rows)} rows to {name} ({BEFORE} before); computing only those" in command.err
        assert command.out == "done: store runs/job.zarr, results in runs/job, report runs/job/report.html\n"
    else:
        command = add(work, new_file(work, rows=rows), "--no-run")
        said = f"added {len(rows)} rows to {name} ({BEFORE} before); `drillcore run job.yaml` computes them\n"
        assert command.out == said, command.err
        work.finish()
    assert work.extracted() == len(rows) and work.manifest["status"] == "done"
    assert all(work.committed()[f"m/d {shard}"] == marks[f"m/d {shard}"] for shard in range(BEFORE // SHARD))
    assert all(work.states()[f] == files[f] for f in files if f.endswith("/c/0/0/0"))
    assert np.array_equal(work.values()["m/d"][:BEFORE], values), "bit for bit"
    columns = ["text"] if is_txt else ["text", "label", "year"]
    wanted = [*rows_of(seed, BEFORE), *rows]
    assert stored(work, *columns) == [[row[c] for c in columns] for row in wanted]
    assert stat.S_IMODE(file.stat().st_mode) == 0o640 and not list(work.folder.glob(".appending*"))
    if name in GROWING:
        assert file.read_bytes().startswith(raw)
    assert "up to date" in work.finish().err


def test_rows_of_any_format_go_into_one_with_types_and_one_without(make):
    rows = [{"text": "river 1", "label": "a", "year": 5}, {"text": "river 2", "label": "007", "year": 12}]
    for target, reader in (("d.jsonl", "jsonl"), ("d.csv", "csv"), ("d.parquet", "parquet"), ("d.json", "json")):
        work = make(target, run=False)
        for name, writer in WRITERS.items():
            if name == "d.txt":
                continue
            source = f"{name.removeprefix('d.')}-new.{name.removeprefix('d.')}"
            (work.folder / source).write_bytes(writer(rows))
            command = add(work, source, "--no-run", "--again")
            assert command.status == 0, (target, name, command.err)
        work.finish()
        found = stored(work, "text", "label", "year")[BEFORE:]
        assert found == [list(row.values()) for row in rows] * (len(WRITERS) - 1), reader
        assert drillcore.open(work.store)["m/d"].year.dtype == np.int64


STYLES = {
    "semicolons, CRLF": (as_csv([{"text": "x", "label": "a", "year": 1}], ";", "\r\n"), {"delimiter": ";"}),
    "all quoted": (as_csv([{"text": "x", "label": "a", "year": 1}], quote=True), {}),
    "sep": (b"sep=|\n" + as_csv([{"text": "x", "label": "a", "year": 1}], "|"), {}),
    "byte order mark": (b"\xef\xbb\xbf" + as_csv([{"text": "x", "label": "a", "year": 1}]), {}),
    "no last line end": (as_csv([{"text": "x", "label": "a", "year": 1}], end="\r\n")[:-2], {}),
    "cp1252": (as_csv([{"text": "\u201cx\u201d", "label": "a", "year": 1}]).decode().encode("cp1252"),
               {"encoding": "cp1252"}),
}  # fmt: skip
ADDED = {"text": 'caf\u00e9; | "x", y', "label": "nan", "year": 2}


@pytest.mark.parametrize("style", STYLES)
def test_a_csv_file_keeps_its_style(style, make):
    content, settings = STYLES[style]
    work = make("d.csv", content, run=False, **settings)
    # Of its own order, delimiter and encoding.
    shuffled = {name: ADDED[name] for name in ("year", "label", "text")}
    assert add(work, new_file(work, "new.csv", [shuffled], as_csv), "--no-run").status == 0
    sign = ";" if "semi" in style else "|" if style == "sep" else ","
    end = "\r\n" if "CRLF" in style or "no last" in style else "\n"
    line = as_csv([ADDED], sign, end, quote=style == "all quoted").split(end.encode(), 1)[1]
    line = line.decode().encode(settings.get("encoding", "utf-8"))
    cut = end.encode() if style == "no last line end" else b""
    assert (work.folder / "d.csv").read_bytes() == content + cut + line
    work.finish()
    assert stored(work, "text", "label", "year")[1] == list(ADDED.values())


def test_the_last_of_several_files_gets_the_rows_through_its_link(make):
    work = make(run=False)
    parts = work.folder / "parts"
    parts.mkdir()
    for part in (1, 2, 10):
        work.texts(f"parts/p-{part}", [{"text": f"part {part}", "label": "a", "year": 1}])
    (parts / "p-10.jsonl").rename(work.folder / "blob")
    (parts / "p-10.jsonl").symlink_to("../blob")
    work.job["datasets"][0]["path"] = "parts/p-*.jsonl"
    work.save()
    command = add(work, new_file(work))
    assert command.status == 0 and "added 3 rows to parts/p-10.jsonl (1 before)" in command.err, command.err
    assert "no store yet, so that all rows are computed" in command.err
    assert (parts / "p-10.jsonl").is_symlink() and (work.folder / "blob").read_bytes().endswith(as_jsonl(NEW))
    assert [text for (text,) in stored(work, "text")][:3] == ["part 1", "part 2", "part 10"]


KILL = """
import os, signal
import drillcore.runtime.appending as appending
real, calls = appending.{name}, []
def kill(*arguments):
    calls.append(arguments)
    if len(calls) == {nth}:
        os.killpg(0, signal.SIGKILL)
    return real(*arguments)
appending.{name} = kill
"""


@pytest.mark.parametrize(("name", "nth", "is_new"), [("_like", 1, False), ("_state", 2, False), ("flush", 2, True)])
def test_a_kill_leaves_the_old_file_or_the_new_one_and_the_command_ends_it(name, nth, is_new, make):
    work = make()
    file = work.folder / "d.jsonl"
    before = file.read_bytes()
    new = new_file(work)
    assert add(work, new, first=KILL.format(name=name, nth=nth)).status == -signal.SIGKILL
    assert file.read_bytes() == before + (as_jsonl(NEW) if is_new else b"")
    command = add(work, new)
    assert command.status == 0, command.err
    said = "d.jsonl ends in these rows already: nothing was added" if is_new else "added 3 rows to d.jsonl"
    assert said in command.err and work.extracted() == 3
    assert file.read_bytes() == before + as_jsonl(NEW) and not list(work.folder.glob(".appending*"))


def test_rows_that_are_there_are_added_again_only_where_that_is_said(make):
    work = make("d.csv", run=False)
    new = new_file(work)
    assert "added 3 rows" in add(work, new, "--no-run").out
    raw = (work.folder / "d.csv").read_bytes()
    again = add(work, new, "--no-run")
    assert again.status == 0 and "ends in these rows already" in again.out
    assert (work.folder / "d.csv").read_bytes() == raw
    assert add(work, new, "--no-run", "--again").out.startswith("added 3 rows to d.csv (23 before)")
    part = new_file(work, "part.jsonl", NEW[1:])
    assert "ends in these rows already" in add(work, part, "--no-run").out


EMPTY = {
    "d.jsonl": (b"", as_jsonl(NEW)),
    "d.csv": (b"text,label,year", as_csv(NEW)),
    "d.json": (b"[]", json.dumps(NEW, ensure_ascii=False).encode() + b"]\n"),
    "d.parquet": (b"", b""),
    "d.txt": (b"", "".join(row["text"] + "\n" for row in NEW).encode()),
}


@pytest.mark.parametrize("name", EMPTY)
def test_a_file_without_rows_gets_its_first_ones(name, make):
    content, wanted = EMPTY[name]
    if name == "d.parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist([ROW]).slice(0, 0), sink)
        content = bytes(sink.getvalue())
    work = make(name, content, run=False)
    new = new_file(work, rows=[{"text": row["text"]} for row in NEW] if name == "d.txt" else NEW)
    command = add(work, new, "--no-run")
    assert command.status == 0 and command.out.startswith(f"added 3 rows to {name} (0 before)"), command.err
    assert not wanted or (work.folder / name).read_bytes() == wanted.replace(b"}]]", b"}]")
    assert add(work, new, "--no-run").out.startswith(f"{name} ends in these rows already")


def test_rows_that_the_dataset_leaves_out_and_other_datasets_of_the_file_are_said(make):
    work = make(run=False, empty="drop", unlabelled="drop")
    work.job["datasets"].append({"name": "e", "path": "d.jsonl", "label": None})
    work.save()
    refused = add(work, new_file(work, rows=[ROW, ROW | {"text": ""}]), "--no-run")
    assert refused.status == 2 and "new.jsonl:2: field `text` is empty" in refused.err, "that is the other dataset's"
    command = add(work, new_file(work, rows=[ROW, ROW | {"label": None}]), "--no-run")
    assert command.status == 0, command.err
    assert command.out == (
        "added 2 rows to d.jsonl (20 before); 1 of them are left out, as the dataset says; e read this file too; "
        "`drillcore run job.yaml` computes them\n"
    )


def test_rows_of_python(make, monkeypatch):
    pandas = pytest.importorskip("pandas")
    work = make()
    monkeypatch.chdir(work.folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(work.folder / "cache"))
    more = pandas.DataFrame([ROW, ROW | {"text": "y", "year": 5}])
    first = append("job.yaml", "d", more, stages=["extract"])
    assert (first.rows, first.before, first.run.report) == (2, BEFORE, None)
    assert repr(first) == "added 2 rows to d.jsonl (20 before)" and work.extracted() == 2
    same = append("job.yaml", "d", {"text": ["x", "y"], "label": ["a", "a"], "year": [1, 5]}, run=False)
    assert (same.rows, same.before, same.run) == (0, 22, None)
    table = append("job.yaml", "d", pa.Table.from_pylist([ROW | {"text": "z"}]), run=False)
    assert table.rows == 1 and append("job.yaml", "d", [ROW], run=False).before == 23
    with pytest.raises(drillcore.errors.TextError, match=r"rows\[1\]: field `text` is empty"):
        append("job.yaml", "d", [ROW, ROW | {"text": " "}])
    with pytest.raises(drillcore.errors.TextError, match=r"rows\[0\]: has field `who`"):
        append("job.yaml", "d", [{"text": "x", "who": 1}])
    for wrong in (5, {"text": ["x"], "label": "a", "year": [1]}, {"text": ["x"], "label": 1}, [["x"]]):
        with pytest.raises(TypeError):
            append("job.yaml", "d", wrong)
    assert append("job.yaml", "d", work.folder / new_file(work), run=False).rows == 3


def test_texts_go_into_a_file_of_texts(make, monkeypatch):
    work = make("d.txt", run=False)
    monkeypatch.chdir(work.folder)
    assert append("job.yaml", "d", ["a river", "near"], run=False).rows == 2
    assert (work.folder / "d.txt").read_bytes().endswith(b"\na river\nnear\n")
