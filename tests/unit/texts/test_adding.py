"""Rows put into Parquet columns and JSON objects of any type come back as they were, or are refused."""

from __future__ import annotations

import datetime
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drillcore.job.inputs import Dataset
from drillcore.texts.adding.convert import converted, exactly
from drillcore.texts.adding.given import every_row, read_files
from drillcore.texts.adding.standing import look, names_in
from drillcore.texts.adding.write import lines_added, write_added
from drillcore.texts.formats import format_of
from drillcore.texts.problems import Problems

TURN = {"role": "user", "content": "a"}
TYPED = {
    "turns": pa.array([[TURN]] * 5),
    "at": pa.array([datetime.datetime(2020, 1, 1, 3)] * 5),
    "of.whom": pa.array(["Ada"] * 5).dictionary_encode(),
    "share": pa.array([1.5] * 5, pa.float32()),
    "raw": pa.array([b"\xff"] * 5),
    "none": pa.nulls(5),
}


@pytest.fixture
def add(tmp_path):
    """Adds the rows of a file to another one, beside it; gives the rows that are read back, and the problems."""
    pq.write_table(pa.table(TYPED), tmp_path / "d.parquet", compression="zstd", row_group_size=2)

    def added(target, source):
        path, problems = tmp_path / target, Problems()
        dataset, kind = Dataset(name="d", path=str(path)), format_of(path)
        rows = read_files([tmp_path / source], dataset, names_in(path, kind), problems)
        standing = look(path, kind, len(rows), problems)
        written = converted(rows, standing, problems)
        if problems.count:
            return [], [problem.message for problem in problems.shown]
        scratch = tmp_path / f"new-{target}"
        write_added(standing, written, scratch)
        lines_added(standing, written, rows, scratch)
        found = [row for _, row in every_row(scratch, kind, lambda line, what: pytest.fail(what))]
        return found[standing.num_rows :], []

    return added


def test_parquet_columns_of_all_types_keep_types_and_codec(add, tmp_path):
    pq.write_table(pa.table(TYPED).slice(0, 2), tmp_path / "n.parquet")
    found, problems = add("d.parquet", "n.parquet")
    assert not problems and exactly(found) == exactly(pa.table(TYPED).slice(0, 2).to_pylist())
    before, after = pq.ParquetFile(tmp_path / "d.parquet"), pq.ParquetFile(tmp_path / "new-d.parquet")
    assert after.schema_arrow.equals(before.schema_arrow, check_metadata=True)
    assert after.metadata.row_group(3).column(0).compression == "ZSTD" and after.metadata.num_row_groups == 4


def test_json_goes_into_parquet_where_its_types_can_hold_it(add, tmp_path):
    good = {"turns": [TURN | {"tool": None}], "at": None, "of.whom": "Zoe", "share": 2, "raw": None, "none": None}
    (tmp_path / "n.jsonl").write_text(json.dumps(good), encoding="utf-8")
    found, problems = add("d.parquet", "n.jsonl")
    assert not problems and found == [{**good, "turns": [TURN], "share": 2.0}]
    bad = {"turns": [TURN | {"tool": 1}], "at": "2020", "of.whom": 5, "share": 0.1, "raw": "x", "none": True}
    (tmp_path / "n.jsonl").write_text(json.dumps(bad), encoding="utf-8")
    found, problems = add("d.parquet", "n.jsonl")
    assert [problem.split("`")[1] for problem in problems] == ["turns", "at", "of.whom", "share", "raw", "none"]


def test_json_values_stay_exact(add, tmp_path):
    rows = '{"z": 12345678901234567890, "y": 0.1, "x": NaN, "w": {"b": [1, 1.0, true, null]}, "v": "\\ud800\\u0000"}\n'
    (tmp_path / "d.jsonl").write_text('{"z": 1, "y": 1, "x": 1, "w": 1, "v": ""}', encoding="utf-8")
    (tmp_path / "d.json").write_text('[\n {"z": 1, "y": 1, "x": 1, "w": 1, "v": ""}\n ]\n\n', encoding="utf-8")
    (tmp_path / "n.jsonl").write_text(rows, encoding="utf-8")
    for target in ("d.jsonl", "d.json"):
        found, problems = add(target, "n.jsonl")
        assert not problems and exactly(found[0]) == exactly(json.loads(rows))
    assert (
        (tmp_path / "new-d.json")
        .read_text(encoding="utf-8")
        .startswith('[\n {"z": 1, "y": 1, "x": 1, "w": 1, "v": ""},\n {')
    )
    assert (tmp_path / "new-d.json").read_text(encoding="utf-8").endswith("}\n ]\n\n")
