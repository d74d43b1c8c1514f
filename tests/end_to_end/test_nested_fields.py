"""Fields inside of fields: from job file to opened store, and what is refused."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

import drillcore

pytest_plugins = ["support.run_fixtures"]
ROWS = [
    {
        "messages": [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": f"answer {n}"}],
        "meta": {"city": "ab"[n % 2], "year": 2000 + n},
        "a.b": f"dotted {n}",
        "a": {"b": "not this one"},
    }
    for n in range(6)
]


@pytest.fixture
def work(new_work):
    work = new_work()
    work.texts("a", ROWS)
    (work.folder / "a.json").write_text(json.dumps(ROWS), encoding="utf-8")
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table, work.folder / "a.parquet")
    pyarrow.feather.write_feather(table, work.folder / "a.arrow")
    return work


def start(work, path, **fields):
    work.job["datasets"] = [{"name": "d", "path": path, **fields}]
    work.save()
    return work.run()


@pytest.mark.parametrize("path", ["a.jsonl", "a.json", "a.parquet", "a.arrow"])
def test_they_come_to_the_store(work, path):
    command = start(work, path, text="messages.-1.content", label="meta.city", keep=["meta.year", "a.b"])
    assert command.status == 0, command.err
    found = drillcore.open(work.store)["m/d"].to_dataset()
    assert found.text.values.tolist() == [f"answer {n}" for n in range(6)]
    assert found.label.values.tolist() == [row["meta"]["city"] for row in ROWS]
    assert found["meta.year"].values.tolist() == [row["meta"]["year"] for row in ROWS]
    assert found["a.b"].values.tolist() == [row["a.b"] for row in ROWS]


@pytest.mark.parametrize("path", ["a.jsonl", "a.json", "a.parquet", "a.arrow"])
@pytest.mark.parametrize("field", ["meta.town", "messages.5.content", "messages.first.content", "nothing.0"])
def test_a_place_that_is_not_there_is_refused(work, path, field):
    command = start(work, path, text=field)
    assert command.status == 2 and f"no field `{field}`" in command.err and "Traceback" not in command.err, command.err


@pytest.mark.parametrize("path", ["a.jsonl", "a.parquet"])
def test_what_is_no_text_is_refused(work, path):
    command = start(work, path, text="meta.year")
    assert command.status == 2 and "field `meta.year` is not a string but an integer" in command.err, command.err


def test_null_inside_is_no_label(work):
    work.texts("b", [{"text": "x", "meta": {"city": "a"}}, {"text": "y", "meta": None}, {"text": "z"}])
    command = start(work, "b.jsonl", label="meta.city")
    assert command.status == 2 and "b.jsonl:2: field `meta.city` is null" in command.err, command.err
    assert start(work, "b.jsonl", label="meta.city", unlabelled="keep").status == 0
    assert drillcore.open(work.store)["m/d"].to_dataset().label.values.tolist() == ["a", "", ""]
