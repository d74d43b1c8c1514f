"""What is nearly right in a file or a job is said, with a count, examples and the field that settles it, and kept."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drillcore.job.choices import did_you_mean
from drillcore.job.inputs import Dataset
from drillcore.system.nearly import fold
from drillcore.texts.notes import note_across, notes_on_job, said
from drillcore.texts.problems import Problems
from drillcore.texts.rows import RowTable, ingest


@pytest.fixture
def noted(tmp_path: Path):
    """Notes on a file of this name and content, and its rows."""

    def read(name: str, content: bytes | pa.Table, **settings: Any) -> tuple[list[str], RowTable]:
        path, problems = tmp_path / name, Problems()
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            pq.write_table(content, path)
        table = ingest(path, Dataset(name="d", path=name, **settings), tmp_path / "cache", problems)
        problems.raise_if_any()
        assert table is not None
        return list(table.notes), table

    return read


def labelled(*labels: str) -> bytes:
    return "".join(json.dumps({"text": f"s{i}", "label": label}) + "\n" for i, label in enumerate(labels)).encode()


def test_clean_input_passes_without_a_word(noted: Any) -> None:
    for name, content in [
        ("a.jsonl", labelled("x", "y", "été", "x y", "New York")),
        ("a.csv", b'text,label\n"a, ""b""",x\nc,y\n'),
        ("a.tsv", b'text\tlabel\n5" pipe\tx\n"Hi," she said.\ty\n'),
        ("a.txt", "one\n{two}\nthree 👩‍👩‍👧 é\n".encode()),
        ("b.txt", b"Only the first line can be a header\nLook, text\n"),
    ]:
        assert noted(name, content)[0] == []


@pytest.mark.parametrize(
    "header", ["Label", " label", "label ", "LABEL", "\u200blabel", "label\u00a0", '"label"', "labels"]
)
@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl", "parquet"])
def test_a_header_that_is_nearly_label_is_named(noted: Any, kind: str, header: str) -> None:
    cell = '"""label"""' if kind == "csv" and header == '"label"' else header
    content = {
        "tsv": f"text\t{header}\na\tx\nb\ty\n".encode(),
        "csv": f"text,{cell}\na,x\nb,y\n".encode(),
        "jsonl": "".join(json.dumps({"text": t, header: "x"}) + "\n" for t in "ab").encode(),
        "parquet": pa.table({"text": ["a", "b"], header: ["x", "y"]}),
    }[kind]
    (note,), table = noted(f"a.{kind}", content)
    assert note.startswith("2 of 2 rows have no field `label` but a field `")
    assert f"`label: {json.dumps(header)}` names it" in note and "`label: null`" in note
    assert table.columns == ("text",)
    assert noted(f"a.{kind}", content, label=header)[0] == noted(f"a.{kind}", content, label=None)[0] == []


def test_some_rows_of_jsonl_may_call_the_label_otherwise(noted: Any) -> None:
    content = b'{"text": "a", "label": "x"}\n{"text": "b", "Label": "y"}\n{"text": "c", "label": null}\n'
    notes, _ = noted("a.jsonl", content, unlabelled="keep")
    assert notes[0].startswith("1 of 3 rows has no field `label` but a field `Label`: no label is taken from it there")
    assert notes[1].startswith("2 of 3 rows have no label in the field `label`: drawn grey and left out of measures")


NEAR = [
    "Toronto",
    "Toronto ",
    "toronto",
    "Toron\u200bto",
    "\ufeffToronto",
    "Toronto\u00a0",
    "Ｔoronto",
    "Toronto\ufe0f",
]


@pytest.mark.parametrize("other", NEAR[1:])
@pytest.mark.parametrize("column", ["label", "group", "keep"])
def test_values_that_are_nearly_the_same_are_counted(noted: Any, other: str, column: str) -> None:
    rows = [{"text": f"s{i}", "city": "Toronto" if i % 3 else other} for i in range(9)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (note,), table = noted("a.jsonl", content, **{column: ("city",) if column == "keep" else "city"})
    name = "city" if column == "keep" else column
    assert note.startswith(f"{name}: 1 value has several forms")
    assert "`Toronto` (6)" in note and "(3)" in note and "in the field `city` of the file" in note
    # What is not seen is written out, so that the two forms can be told apart.
    forms = note.split("only: ")[1].split(". They")[0]
    assert len(set(forms.split(" and "))) == 2 and forms.isprintable() and "\u200b" not in forms
    assert set(table.distinct(name)) == {"Toronto", other}


def test_unicode_forms_quotes_and_dashes(noted: Any) -> None:
    for one, other in [
        ("1", "1.0"),
        ("7", "007"),
        ("café", "cafe\u0301"),
        ("don't", "don’t"),
        ("a-b", "a‐b"),
        ("x y", "x  y"),
        ("한글", "한글"),
    ]:
        other = unicodedata.normalize("NFD", other) if one == other else other
        (note,), _ = noted("a.jsonl", labelled(one, other, other))
        assert "1 value has several forms" in note and "(1)" in note and "(2)" in note
        assert fold(one) == fold(other) or float(one) == float(other)
    assert noted("a.jsonl", labelled("9007199254740993", "9007199254740992", "1", "1.5"))[0] == []
    assert fold("Toronto") != fold("Torontó") and fold("a") != fold("b")


def test_two_examples_and_the_number_of_all(noted: Any) -> None:
    (note,), _ = noted("a.jsonl", labelled("a", "A", "b", "B", "c", "C", "d"))
    assert (
        note.startswith("label: 3 values have several forms") and "`A` (1) and `a` (1); `B` (1) and `b` (1). " in note
    )


def test_a_blank_at_the_ends_of_every_label(noted: Any) -> None:
    (note,), table = noted("a.csv", b"text,label\na, x\nb, y\n", label="label")
    assert note.startswith("label: 2 values begin or end with a blank") and "` x` and ` y`" in note
    assert table.distinct("label") == [" x", " y"]


@pytest.mark.parametrize(
    ("name", "content", "want"),
    [
        (
            "a.txt",
            b"The capital is \nA city\nIt lies in\t\n",
            "2 of 3 sentences end in a blank, such as `The capital is `",
        ),
        ("a.txt", "\u200ba\nb\u200b\nc\n".encode(), "2 of 3 sentences begin or end with a character that is not seen"),
        (
            "a.txt",
            "cafe\u0301\ncafé\n".encode(),
            "1 of 2 sentences hold characters in decomposed form, such as `cafe\\u0301`",
        ),
        ("a.txt", b"nan\nNone\nNancy\n", "2 of 3 sentences are what programs write for a missing one, such as `nan`"),
        ("a.txt", "a\ufffdb\nc\n".encode(), "1 of 2 sentences hold U+FFFD"),
        ("a.txt", "cafÃ©\ncafé\nItâ€™s\n".encode(), "2 of 3 sentences look like UTF-8 that was read as another"),
        (
            "a.csv",
            b"text,label\na,x\nb,nan\n",
            "label: 1 value is what programs write for a missing one, `nan` (1)",
        ),
        ("a.csv", b"text,label\na,x\nb,nan\n", '`missing: ["nan"]` makes that none'),
        ("a.txt", b'{"text": "a"}\n{"text": "b"}\n', "2 of 2 sentences are JSON objects, such as"),
        ("a.txt", b"text,label\na,x\n", "the first line looks like the header of a table, such as `text,label`"),
        ("a.txt", b"Text\tlabel\na\tx\n", "the first line looks like the header of a table"),
        ("a.tsv", b'text\tlabel\n"all ""of"" it"\tx\nb\t"y"\n', "2 of 2 rows have a field in quotation marks, such as"),
        ("a.csv", b'text,label\na, "x"\nb, "y"\n', '2 of 2 rows have a blank before a quotation mark, such as ` "x"`'),
        (
            "a.csv",
            "text,label\na,x\n\ufefftext,label\nb,x\n".encode(),
            "1 of 3 rows repeat the header, such as `\\ufefftext`",
        ),
    ],
)
def test_rows_that_look_like_something_else(noted: Any, name: str, content: bytes, want: str) -> None:
    assert want in "\n".join(noted(name, content)[0])


def test_a_continuation_without_its_blank(noted: Any) -> None:
    rows = [("It is", "Toronto"), ("It is ", "Toronto"), ("It is", " Toronto"), ("It is", "."), ("그것은", "서울")]
    content = "".join(json.dumps({"text": t, "next": n}) + "\n" for t, n in rows).encode()
    notes, _ = noted("a.jsonl", content, expected_next="next")
    assert any("1 of 5 values begin with a letter or digit" in note and "`next`" in note for note in notes)


def test_notes_on_the_sentences_end_hold_unless_a_template_goes_on(noted: Any) -> None:
    notes, _ = noted("a.txt", b"It is \nA city\n")
    for template, count in [(None, 1), ("so: {text}", 1), ("{text}!", 0), ("chat", 0)]:
        assert len(said(notes, Dataset(name="d", path="a.txt", template=template))) == count


def test_columns_of_numbers_that_hold_something_else(noted: Any) -> None:
    content = b"text,year,size\na,1999,1\nb,n/a,\nc, 2001,3\n"
    notes, table = noted("a.csv", content, keep=("year", "size"))
    assert notes[0].startswith(
        "keep: `year`: 2 of 3 values are no numbers (`n/a` and ` 2001`), so that all are kept as"
    )
    assert notes[1] == "keep: `size`: missing in 1 of 3 rows"
    assert [str(table.slice(0, 0).schema.field(n).type) for n in ("year", "size")] == ["string", "double"]


def test_a_field_label_that_holds_no_labels_is_ignored_with_a_word(noted: Any) -> None:
    content = b'{"text": "a", "label": 0.25}\n{"text": "b", "label": 3}\n'
    (note,), table = noted("a.jsonl", content, label_type="classes")
    assert note.startswith("the field `label` holds numbers of many values (a fraction in 1 of 2 rows) and is ignored")
    assert "`label: null`" in note and table.columns == ("text",)
    (note,), _ = noted("a.jsonl", b'{"text": "a", "label": ["x"]}\n')
    assert note.startswith("the field `label` holds a list in 1 of 1 rows and is ignored")
    (note,), _ = noted("a.parquet", pa.table({"text": ["a"], "label": pa.array([None], pa.null())}))
    assert note.startswith("the field `label` is empty in all rows and is ignored")


def test_very_many_labels(noted: Any, seed: int) -> None:
    numbers = np.random.default_rng(seed).permutation(1000)[:60]
    (note,), table = noted("a.csv", "".join(["text,label\n", *(f"s{i},{i}\n" for i in numbers)]).encode())
    assert (
        note.startswith("the field `label` holds 60 different labels in 60 rows, such as") and "`label: null`" in note
    )
    assert note.endswith("`label_type: number` predicts it as a number")
    assert len(table.distinct("label")) == 60
    (note,), _ = noted("w.csv", "".join(["text,label\n", *(f"s{i},w{i}\n" for i in numbers)]).encode())
    assert "label_type" not in note
    # Too many to be labels, though each of them stands in three rows.
    (note,), _ = noted("b.csv", "".join(["text,label\n", *(f"s,{i % 10_001}\n" for i in range(30_003))]).encode())
    assert note.startswith("the field `label` holds more than 10,000 different labels in 30,003 rows, such as")


def test_labels_of_several_datasets() -> None:
    assert note_across({"a": ["x", "y"], "b": ["y", "x", ""]}) == []
    (note,) = note_across({"a": ["Toronto", "y"], "b": ["toronto ", "y"]})
    assert "`Toronto` (a) and `toronto ` (b)" in note and "`label`" in note
    # Within one dataset the note on its values says so already.
    assert note_across({"a": ["x", "X"]}) == []


def test_what_the_job_says_of_a_dataset() -> None:
    def notes(**settings: Any) -> list[str]:
        return notes_on_job(Dataset(name="d", path="a.txt", **settings))

    assert notes(candidates=(" Toronto", ".", "!")) == []
    assert (
        "candidates: 2 of 3 begin with a letter or digit, such as `Toronto` and `7`"
        in notes(candidates=("Toronto", " a", "7"))[0]
    )
    assert notes(candidates=("Toronto",), template="{text} ")[0].startswith("template: ends in a blank")
    assert "1 of 1 end in a blank or hold unseen" in notes(candidates=(" Toronto ",))[0]
    assert notes(template="chat") == notes(template="{text} is") == []


def test_a_name_in_another_case_or_with_blanks_is_recognised() -> None:
    assert did_you_mean("VLLM", ["transformers", "vllm"]) == "; did you mean `vllm`?"
    assert did_you_mean("dtype\u200b ", ["device", "dtype"]) == "; did you mean `dtype`?"
