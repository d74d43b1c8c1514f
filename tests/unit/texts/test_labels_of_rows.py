"""Rows with several labels: each is read by the rules of one, and what is said of them."""

from __future__ import annotations

import pyarrow as pa
import pytest
from reading import read_content

from drillcore.job.inputs import Dataset
from drillcore.texts.notes import Notes
from drillcore.texts.problems import Problems
from drillcore.texts.read import read_batches


def read_files(folder, contents, **settings):
    """Columns, problems and notes of several files."""
    paths = [folder / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_bytes(content)
    dataset = Dataset(name="d", path=tuple(contents), **settings)
    problems, notes = Problems(), Notes(dataset, paths[0].suffix[1:])
    batches = list(read_batches(paths, dataset, problems, notes))
    columns = pa.Table.from_batches(batches).to_pydict() if batches else {}
    return columns, [str(problem) for problem in problems.shown], notes.lines()


def test_each_is_a_column_after_the_main_one():
    content = (
        b'{"text": "x", "a": 1, "b": true, "c": 2.0, "k": 3}\n{"text": "y", "a": "s", "b": false, "c": 7, "k": 4}\n'
    )
    columns, messages = read_content("d.jsonl", content, labels=("a", "b", "c"), keep=("k",))
    assert not messages and list(columns) == ["text", "label", "b", "c", "k"]
    assert (columns["label"], columns["b"], columns["c"]) == (["1", "s"], ["true", "false"], ["2", "7"])
    assert columns["k"] == [3, 4]
    content = content.replace(b"2.0", b"2.5")
    # Each label decides for itself whether it is a number.
    columns, messages = read_content("d.jsonl", content, labels=("a", "c"))
    assert not messages and (columns["label"], columns["c"]) == (["1", "s"], [2.5, 7.0])
    (refused,) = read_content("d.jsonl", content, labels=("a", "c"), label_type="classes")[1]
    assert refused.startswith("d.jsonl:1: field `c` must be a string, an integer or a boolean, and is a fraction")


@pytest.mark.parametrize("unlabelled", ["keep", "drop", "error"])
def test_a_field_may_be_absent_in_one_of_several_files(tmp_path, unlabelled):
    files = {"a.csv": b"text,city,kind\nx,t,a\ny,m,\n", "b.csv": b"text,city\nz,t\n"}
    columns, problems, notes = read_files(tmp_path, files, labels=("city", "kind"), unlabelled=unlabelled)
    if unlabelled == "error":
        assert len(problems) == 2 and problems[0].endswith(
            "a.csv:3: field `kind` is empty; `unlabelled: keep` or `drop` allows rows without a label"
        )
        assert "b.csv: no field `kind`; the file has `text`, `city`" in problems[1]
        return
    kept = {"text": ["x", "y", "z"], "label": ["t", "m", "t"], "kind": ["a", "", ""]}
    assert not problems and columns == (
        kept if unlabelled == "keep" else {"text": ["x"], "label": ["t"], "kind": ["a"]}
    )
    done = "drawn grey and left out of measures" if unlabelled == "keep" else "left out"
    assert f"2 of 3 rows have no label in the field `kind`: {done} (`unlabelled: {unlabelled}`)" in notes


def test_what_no_row_has_is_refused_and_what_is_nearly_right_is_said(tmp_path):
    rows = b"".join(b'{"text": "t%d", "city": "c", "kind": "k%d"}\n' % (i, i) for i in range(30))
    (message,) = read_content("d.jsonl", rows, labels=("city", "kund"), unlabelled="keep")[1]
    assert "no row has a field `kund` (unlabelled: keep)" in message
    notes = read_files(tmp_path, {"d.jsonl": rows}, labels=("city", "kind"))[2]
    assert [
        n for n in notes if n.startswith("the field `kind` holds 30 different labels in 30 rows")
    ] and "leave it out of `labels`" in notes[-1]
    near = rows.replace(b'"k1"', b'"NA"').replace(b'"k2"', b'"K3"')
    notes = read_files(tmp_path, {"d.jsonl": near}, labels=("city", "kind"))[2]
    assert any(n.startswith("kind: 1 value has several forms") for n in notes)
    assert any(
        n.startswith("kind: 1 value is what programs write") and '`missing: ["NA"]` makes that none' in n for n in notes
    )
