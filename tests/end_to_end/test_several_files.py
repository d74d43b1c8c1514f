"""One dataset in several files: lists and patterns, from job file to opened store, and what is refused."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import drillcore
from support.runs import snapshot

pytest_plugins = ["support.run_fixtures"]


@pytest.fixture
def work(new_work):
    """Files part-1, part-2 and part-10, with three rows each, as JSONL, CSV and Parquet."""
    work = new_work("work")
    parts = work.folder / "parts"
    parts.mkdir()
    for part in (1, 2, 10):
        rows = [{"text": f"part {part} row {n}", "label": "ab"[n % 2]} for n in range(3)]
        work.texts(f"parts/part-{part}", rows)
        (parts / f"part-{part}.csv").write_text(
            "text,label\n" + "".join(f"{r['text']},{r['label']}\n" for r in rows), encoding="utf-8"
        )
        pq.write_table(pa.Table.from_pylist(rows), parts / f"part-{part}.parquet")
    return work


def texts_of(work, path, **more) -> list[str]:
    work.job["datasets"] = [{"name": "d", "path": path, **more}]
    work.save()
    work.finish("--overwrite")
    return drillcore.open(work.store)["m/d"].to_dataset().text.values.tolist()


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_pattern_is_read_in_natural_order_and_a_list_as_it_stands(work, suffix):
    natural = [f"part {part} row {n}" for part in (1, 2, 10) for n in range(3)]
    assert texts_of(work, f"parts/part-*.{suffix}") == natural
    assert texts_of(work, f"parts/part-*.{suffix}", limit=4) == natural[:4]
    listed = [f"parts/part-{part}.{suffix}" for part in (10, 1)]
    assert texts_of(work, listed) == [*natural[6:], *natural[:3]]


def test_the_order_of_files_is_part_of_what_is_cached(work):
    one, two = "parts/part-1.csv", "parts/part-2.csv"
    forward, back = texts_of(work, [one, two]), texts_of(work, [two, one])
    assert forward != back and forward == back[3:] + back[:3]
    work.job["datasets"] = [{"name": "d", "path": [one, two]}]
    work.save()
    turned = work.run()
    assert turned.status == 2 and "the sentences stand in another order" in turned.err


REFUSED = {
    "a pattern without a match": ("parts/none-*.csv", "parts/none-*.csv matches no file"),
    "a file twice": (["parts/part-1.csv", "parts/*.csv"], "parts/part-1.csv is named twice"),
    "formats that differ": (["parts/part-1.csv", "parts/part-1.jsonl"], "are of different formats"),
    "no file": ([], "datasets.0.path: names no file"),
    "a file that is not there": (["parts/part-1.csv", "parts/gone.csv"], "parts/gone.csv: there is no such file"),
    "a wrong row": (["parts/part-1.csv", "wrong.csv"], "wrong.csv:3: field `text` is empty"),
    "no such column": (["parts/part-1.csv", "columns.csv"], "columns.csv: no field `text`; the file has `body`"),
    "no label": (["parts/part-1.csv", "bare.csv"], "bare.csv: no field `label`"),
    "a label later": (["bare.csv", "parts/part-1.csv"], "part-1.csv: has a field `label`, and bare.csv has none"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_by_the_name_of_the_file(work, case):
    (work.folder / "wrong.csv").write_text("text,label\nx,a\n,b\n", encoding="utf-8")
    (work.folder / "columns.csv").write_text("body,label\nx,a\ny,b\n", encoding="utf-8")
    (work.folder / "bare.csv").write_text("text\nx\ny\n", encoding="utf-8")
    path, message = REFUSED[case]
    work.job["datasets"] = [{"name": "d", "path": path}]
    work.save()
    before = snapshot(work.folder)
    command = work.run()
    assert command.status == 2 and message in command.err, command.err
    assert command.err.count(".csv:") <= 1 and "Traceback" not in command.err
    assert snapshot(work.folder) == before


def test_an_empty_part_is_said_and_a_long_list_needs_a_name(work):
    (work.folder / "parts" / "part-3.jsonl").write_text("", encoding="utf-8")
    work.job["datasets"] = [{"name": "d", "path": "parts/*.jsonl"}]
    work.save()
    assert "d: part-3.jsonl holds no row" in work.finish().err
    work.job["datasets"] = [{"path": ["parts/part-1.jsonl", "parts/part-2.jsonl"]}]
    work.save()
    command = work.run()
    assert command.status == 2 and "several files give the dataset no name" in command.err


def test_a_job_in_memory_keeps_its_files(work, tmp_path):
    job = drillcore.Job(models=["./m"], datasets={"d": {"path": ["a.csv", "b.csv"]}})
    saved = job.save(tmp_path / "elsewhere.yaml")
    assert drillcore.Job.load(saved) == job
    assert json.dumps(job.to_dict()).count(".csv") == 2


def test_a_place_that_is_not_in_the_text_is_named_by_its_file(work):
    for name, who in (("one", "Ada"), ("two", "nobody")):
        work.texts(f"parts/{name}", [{"text": "Ada went", "who": who}])
    dataset = {
        "name": "d",
        "path": ["parts/one.jsonl", "parts/two.jsonl"],
        "positions": ["last", {"text": "who", "name": "person"}],
    }
    work.job["datasets"] = [dataset]
    work.save()
    command = work.run()
    assert command.status == 2 and "two.jsonl:1: field `who` holds 'nobody'" in command.err, command.err


def test_python_names_them_in_the_same_way(work):
    paths = [work.folder / "parts" / f"part-{part}.csv" for part in (2, 1)]
    settings = {"extract": work.job["extract"], "run": {"audit": 0}}
    job = drillcore.Job(models=work.job["models"], datasets={"d": {"path": paths}}, base=work.folder, **settings)
    result = drillcore.run(job, stages=["extract"], store=work.folder / "python.zarr")
    found = drillcore.open(result.store)["m/d"].text.values.tolist()
    assert found == [f"part {part} row {n}" for part in (2, 1) for n in range(3)]
