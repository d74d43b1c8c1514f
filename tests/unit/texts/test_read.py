"""What is read: every format, compressed or not, into the same columns."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading import ROWS, read, read_content, zstd

from drillcore.job.inputs import Dataset
from drillcore.texts import read as texts
from drillcore.texts.problems import Problems
from drillcore.texts.read import read_batches
from drillcore.texts.readers import lines as text_lines


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", ROWS),
        ("a.ndjson", ROWS),
        ("a.dotted.name.JSONL", ROWS),
        ("bom.jsonl", b"\xef\xbb\xbf" + ROWS),
        ("crlf.jsonl", ROWS.replace(b"\n", b"\r\n")),
        ("unended.jsonl", ROWS.rstrip(b"\n")),
        ("blank-end.jsonl", ROWS + b"\n \n\r\n"),
        ("a.jsonl.gz", gzip.compress(ROWS, mtime=0)),
        ("a.jsonl.zst", zstd(ROWS)),
        ("two-members.jsonl.gz", gzip.compress(ROWS[:28], mtime=0) + gzip.compress(ROWS[28:], mtime=0)),
        ("two-frames.jsonl.zst", zstd(ROWS[:28]) + zstd(ROWS[28:])),
        ("bom.jsonl.gz", gzip.compress(b"\xef\xbb\xbf" + ROWS, mtime=0)),
        ("a.csv", b"text,label\na b,1\nc,x\n"),
        ("a.csv.gz", gzip.compress(b"text,label\na b,1\nc,x\n", mtime=0)),
        ("crlf.csv.zst", zstd(b'\xef\xbb\xbf"text",label\r\n"a b",1\r\nc,x\r\n\r\n')),
        ("a.tsv", b"label\tother\ttext\n1\t\ta b\nx\t,\tc"),
    ],
)
def test_every_format_gives_the_same_rows(name: str, content: bytes) -> None:
    assert read_content(name, content) == ({"text": ["a b", "c"], "label": ["1", "x"]}, [])


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz", ".txt.zst"])
def test_plain_text_is_one_sentence_a_line(suffix: str) -> None:
    content = "\ufeffa\r\n  b \nשלום 👩‍👩‍👧\u2028one line\x0c still\n\n".encode()
    packed = {".txt": content, ".txt.gz": gzip.compress(content), ".txt.zst": zstd(content)}[suffix]
    assert read_content(f"a{suffix}", packed) == ({"text": ["a", "  b ", "שלום 👩‍👩‍👧\u2028one line\x0c still"]}, [])


def test_unusual_characters_come_back_unchanged() -> None:
    sentences = ["\u202eright to left", "\U0001f600", "a\tb\r\nc", "\ufeff", "\u2029x\x85y\x1f", "e\u0301"]
    lines = "".join(json.dumps({"text": s}, ensure_ascii=bool(i % 2)) + "\n" for i, s in enumerate(sentences))
    assert read_content("a.jsonl", lines.encode()) == ({"text": sentences}, [])


def test_csv_keeps_quotes_delimiters_and_newlines() -> None:
    content = b'text,label\r\n"two\r\nlines, and ""more""",a\r\n5" pipe,"b\nc"\r\n'
    want = {"text": ['two\r\nlines, and "more"', '5" pipe'], "label": ["a", "b\nc"]}
    assert read_content("a.csv", content) == (want, [])


def test_tsv_has_no_quotes_and_no_escapes() -> None:
    """An unpaired quotation mark once swallowed the rows after it, with their labels inside the text."""
    texts = ['5" pipe', '"Hello', "b", 'c"', '"all of it"', '"a "" b"', "tab \\t", "\u2028x\x85y\x0bz\x0c", "9", "'d"]
    lines = ["text\tlabel", *(f"{text}\t{label}" for text, label in zip(texts, "xyxyxyxyxy", strict=True))]
    want = {"text": texts, "label": list("xyxyxyxyxy")}
    for end in ("\n", "\r\n"):
        assert read_content("a.tsv", (end.join(lines) + end).encode()) == (want, [])


def test_random_fields_come_back_from_tsv(seed: int) -> None:
    draw = np.random.default_rng(seed)
    characters = ['"', "'", "\\", ",", ";", " ", "a", "ß", "\u2028", "\x85", "\x0b", "\x1c", "\ufeff", "{", "#"]
    texts = ["x" + "".join(draw.choice(characters, draw.integers(1, 9))) for _ in range(300)]
    labels = ["y" + "".join(draw.choice(characters, draw.integers(1, 3))) for _ in range(300)]
    content = "label\ttext\n" + "".join(f"{label}\t{text}\n" for text, label in zip(texts, labels, strict=True))
    assert read_content("a.tsv", content.encode()) == ({"text": texts, "label": labels}, [])


def test_a_line_longer_than_many_chunks() -> None:
    long = "é" * (3 * text_lines.CHUNK_BYTES)
    content = f'{{"text": "{long}"}}\n{{"text": "b"}}\n{{"text": "{long}c"}}'.encode()
    columns, messages = read_content("a.jsonl", content)
    assert messages == []
    assert columns["text"] == [long, "b", long + "c"]


def test_columns_come_in_fixed_order_and_under_their_names(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"z": 1, "who": true, "s": "hi", "next": " x", "topic": 3, "skipped": [1]}\n')
    dataset = Dataset(name="d", path="", text="s", label="who", group="topic", expected_next="next", keep=("z",))
    (batch,) = read_batches(path, dataset, Problems())
    assert batch.schema.names == ["text", "label", "group", "expected_next", "z"]
    assert batch.schema.types == [pa.string()] * 4 + [pa.int64()]
    assert batch.to_pylist() == [{"text": "hi", "label": "true", "group": "3", "expected_next": " x", "z": 1}]


UNLABELLED = "`unlabelled: keep` or `drop` allows rows without a label"
IGNORED = f"{UNLABELLED}, `label: null` ignores the field"


def test_labels_are_read_where_rows_have_them() -> None:
    assert read_content("a.jsonl", b'{"text": "a", "other": 1}\n') == ({"text": ["a"]}, [])
    assert read_content("label.jsonl", b'{"label": "a"}\n', text="label") == ({"text": ["a"]}, [])
    assert read_content("a.csv", b"text,label\na,x\n", label=None) == ({"text": ["a"]}, [])
    _, messages = read_content("b.jsonl", b'{"text": "a", "label": "x"}\n{"text": "b"}\n')
    assert messages == [f"b.jsonl:2: no field `label`; there is `text`; {IGNORED}"]
    _, messages = read_content("c.jsonl", b'{"text": "a"}\n{"text": "b", "label": "x"}\n')
    assert messages == [f"c.jsonl:1: no field `label`; there is `text`; {IGNORED}"]


PARTLY = b"""{"text": "a", "label": "x"}
{"text": "b", "label": null}
{"text": "c", "label": ""}
{"text": "d"}
{"text": "e", "label": " "}
{"text": "f", "label": "NA"}
{"text": "g", "label": NaN}
"""


@pytest.mark.parametrize("label", ["auto", "label"])
def test_rows_without_a_label_are_kept_or_left_out_where_the_job_says_so(label: str) -> None:
    columns, messages = read_content("a.jsonl", PARTLY, label=label, unlabelled="keep", missing=("NA", "nan"))
    assert messages == [] and columns == {"text": list("abcdefg"), "label": ["x", *[""] * 6]}
    columns, messages = read_content("a.jsonl", PARTLY, label=label, unlabelled="drop", missing=("nan",))
    assert messages == [] and columns == {"text": ["a", "f"], "label": ["x", "NA"]}
    _, messages = read_content("a.jsonl", PARTLY, label=label)
    assert [m.split(":")[1] for m in messages] == ["2", "3", "4", "5", "7"]
    remedy = UNLABELLED if label == "label" else IGNORED
    assert messages[:3] == [
        f"a.jsonl:2: field `label` is null; {remedy}",
        f"a.jsonl:3: field `label` is empty; {remedy}",
        f"a.jsonl:4: no field `label`; there is `text`; {remedy}",
    ]
    assert read_content("a.jsonl", PARTLY, label=None) == ({"text": list("abcdefg")}, [])


def test_the_limit_counts_the_sentences_that_are_left() -> None:
    content = b"text,label\na,\nb,x\nc,\nd,y\ne,z\n"
    assert read_content("a.csv", content, unlabelled="drop", limit=2)[0] == {"text": ["b", "d"], "label": ["x", "y"]}
    assert read_content("a.csv", content, unlabelled="keep", limit=2)[0] == {"text": ["a", "b"], "label": ["", "x"]}


@pytest.mark.parametrize(
    ("content", "settings", "want"),
    [
        (b'{"text": "a"}\n', {"label": "lable"}, "no row has a field `lable` (unlabelled: keep)"),
        (
            b'{"text": "a", "Label": 1}\n',
            {"label": "label"},
            "no row has a field `label`; did you mean `Label`? (unlab",
        ),
        (b'{"text": "a"}\n', {"unlabelled": "drop"}, "no row has a field `label` (unlabelled: drop)"),
        (
            b'{"text": "a", "label": null}\n',
            {"unlabelled": "drop"},
            "no row has a label in the field `label`, and `unla",
        ),
    ],
)
def test_a_job_whose_labels_are_nowhere_is_refused(content: bytes, settings: dict[str, Any], want: str) -> None:
    (message,) = read_content("a.jsonl", content, **{"unlabelled": "keep", **settings})[1]
    assert message.startswith(f"a.jsonl: {want}")


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([3.75, 2, 4.5], [3.75, 2.0, 4.5]),
        ([["a"], ["b"], []], None),
        ([{"a": 1}, None, None], None),
        ([None, None, None], None),
        ([1.0, 2.0, 1.0], ["1", "2", "1"]),
        ([1, True, "x"], ["1", "true", "x"]),
    ],
)
def test_a_field_label_that_the_job_does_not_name_may_be_something_else(values: list[Any], want: Any) -> None:
    content = "".join(json.dumps({"text": "a", "label": value}) + "\n" for value in values).encode()
    columns, messages = read_content("a.jsonl", content)
    assert messages == [] and columns.get("label") == want
    if want is None:
        assert read_content("a.jsonl", content, label="label")[1]


def test_labels_of_a_parquet_file_may_be_floats_with_nulls(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", "b", "c"], "label": pa.array([0.0, None, 1.0])}), path)
    assert read(path, unlabelled="keep") == ({"text": ["a", "b", "c"], "label": ["0", "", "1"]}, [])
    named = pa.DictionaryArray.from_arrays(pa.array([0, None, 1]), pa.array(["x", "y"]))
    pq.write_table(pa.table({"text": ["a", "b", "c"], "label": named}), path)
    assert read(path, unlabelled="drop") == ({"text": ["a", "c"], "label": ["x", "y"]}, [])
    pq.write_table(pa.table({"text": ["a", "b"], "label": pa.array([[1], [2]])}), path)
    assert read(path) == ({"text": ["a", "b"]}, [])


@pytest.mark.parametrize(
    ("name", "content", "want"),
    [
        ("a.csv", b"text,k\na,1\nb,\nc,3\n", [1.0, None, 3.0]),
        ("a.csv", b"text,k\na,1.5\nb,NA\nc,nan\n", [1.5, None, None]),
        ("a.tsv", b"text\tk\na\t1\nb\t\nc\tNA\n", [1.0, None, None]),
        ("a.jsonl", b'{"text": "a", "k": 1}\n{"text": "b", "k": null}\n{"text": "c", "k": NaN}\n', [1.0, None, None]),
        ("a.jsonl", b'{"text": "a", "k": 1.5}\n{"text": "b", "k": "NA"}\n{"text": "c", "k": 2}\n', [1.5, None, 2.0]),
    ],
)
def test_kept_numbers_may_be_missing(name: str, content: bytes, want: list[float | None]) -> None:
    columns, messages = read_content(name, content, keep=("k",), missing=("NA", "nan"))
    assert messages == []
    assert [None if math.isnan(k) else k for k in columns["k"]] == want


def test_values_that_the_job_does_not_name_are_not_missing() -> None:
    columns, messages = read_content("a.csv", b"text,k\na,1\nb,NA\n", keep=("k",))
    assert (columns["k"], messages) == (["1", "NA"], [])
    (message,) = read_content("a.jsonl", b'{"text": "a", "k": 1.5}\n{"text": "b", "k": NaN}\n', keep=("k",))[1]
    assert message == "a.jsonl:2: field `k` is nan in a column of numbers (`missing: [nan]` makes it a missing one)"
    # Beyond 2**53 a whole number would not survive beside NaN.
    content = b'{"text": "a", "k": 9007199254740993}\n{"text": "b", "k": null}\n'
    (message,) = read_content("a.jsonl", content, keep=("k",))[1]
    assert message.endswith("field `k` must be a string or a number to be kept, and is null")


def test_rows_beyond_the_limit_are_not_read() -> None:
    assert read_content("a.jsonl", b'{"text": "a"}\n{"text": "b"}\nwrong\n', limit=2) == ({"text": ["a", "b"]}, [])
    assert read_content("a.csv", b"text,n\na,1\nb,2\nc,x\n", limit=2, keep=("n",))[0] == {
        "text": ["a", "b"],
        "n": [1, 2],
    }


@pytest.mark.parametrize(
    ("values", "type_", "want"),
    [
        ([1, -5], pa.int64(), [1, -5]),
        ([1, 2.5], pa.float64(), [1.0, 2.5]),
        ([True, False], pa.string(), ["true", "false"]),
        ([1, "x", 0.5, True], pa.string(), ["1", "x", "0.5", "true"]),
        (["1", "2"], pa.string(), ["1", "2"]),
        ([2**63 - 1, -(2**63)], pa.int64(), [2**63 - 1, -(2**63)]),
        ([2**63], pa.string(), [str(2**63)]),
        ([2**53 + 1, 0.5], pa.string(), [str(2**53 + 1), "0.5"]),
        ([""], pa.string(), [""]),
    ],
)
def test_the_type_of_a_kept_column_is_decided_over_all_rows(
    tmp_path: Path, values: list[Any], type_: Any, want: list[Any]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "a", "k": value}) + "\n" for value in values))
    (batch,) = read_batches(path, Dataset(name="d", path="", keep=("k",)), Problems())
    assert batch.schema.field("k").type == type_
    assert batch.column("k").to_pylist() == want


@pytest.mark.parametrize(
    ("cells", "want"),
    [
        (["1", "-2", "0"], [1, -2, 0]),
        (["1", "2.50", "1e-3"], [1.0, 2.5, 0.001]),
        (["007", "1"], ["007", "1"]),
        (["+1", "1"], ["+1", "1"]),
        (["-0", "1"], ["-0", "1"]),
        (["1", "x"], ["1", "x"]),
        (["1e999", "1"], ["1e999", "1"]),
        (["9" * 25, "1"], ["9" * 25, "1"]),
        (["9223372036854775808"], ["9223372036854775808"]),
        (["", "x"], ["", "x"]),
        (["", ""], ["", ""]),
        (["٣", "1"], ["٣", "1"]),
    ],
)
def test_csv_cells_become_numbers_only_where_that_loses_nothing(cells: list[str], want: list[Any]) -> None:
    content = "text,k\n" + "".join(f"a,{cell}\n" for cell in cells)
    columns, messages = read_content("a.csv", content.encode(), keep=("k",))
    assert messages == []
    assert [(value, type(value)) for value in columns["k"]] == [(value, type(value)) for value in want]


@pytest.mark.parametrize("row_group", [1, 3, 1000])
def test_parquet(tmp_path: Path, row_group: int) -> None:
    table = pa.table(
        {
            "text": pa.array(["a", "é", "c"], pa.large_string()),
            "label": pa.array(["x", "y", "x"]).dictionary_encode(),
            "i": pa.array([1, 2, 3], pa.uint8()),
            "f": pa.array([0.5, 1, 2], pa.float32()),
            "b": [True, False, True],
            "unused": [[1], [2], None],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=row_group)
    columns, messages = read(tmp_path / "a.parquet", keep=("f", "i", "b"))
    assert messages == []
    assert columns == {
        "text": ["a", "é", "c"],
        "label": ["x", "y", "x"],
        "f": [0.5, 1.0, 2.0],
        "i": [1, 2, 3],
        "b": ["true", "false", "true"],
    }


def test_batches_are_bounded_in_rows_and_characters(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("short\n" * (2 * texts.BATCH_ROWS + 1))
    sizes = [batch.num_rows for batch in read_batches(path, Dataset(name="d", path=""), Problems())]
    assert sizes == [texts.BATCH_ROWS, texts.BATCH_ROWS, 1]
    path.write_text(("x" * (texts.BATCH_CHARACTERS // 2) + "\n") * 5)
    assert [batch.num_rows for batch in read_batches(path, Dataset(name="d", path=""), Problems())] == [2, 2, 1]
