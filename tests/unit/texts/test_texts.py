"""What the readers take, what they refuse, and on which line they say so."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drillcore.errors import TextError
from drillcore.job.fields import Dataset
from drillcore.texts import read as texts
from drillcore.texts.problems import Problem, Problems
from drillcore.texts.read import read_batches
from drillcore.texts.readers import lines as text_lines

ROWS = b'{"text": "a b", "label": 1}\n{"text": "c", "label": "x"}\n'


def read(path: Path, **settings: Any) -> tuple[dict[str, list[Any]], list[str]]:
    """Columns and problems, each problem without the folder."""
    problems = Problems()
    dataset = Dataset(name="d", path=path.name, **settings)
    batches = list(read_batches(path, dataset, problems))
    assert not (problems.count and batches)
    told = [str(problem).replace(f"{path.parent}{os.sep}", "") for problem in problems.shown]
    return (pa.Table.from_batches(batches).to_pydict() if batches else {}), told


@pytest.fixture
def given(tmp_path: Path) -> Callable[..., tuple[dict[str, list[Any]], list[str]]]:
    def write_and_read(name: str, content: bytes, **settings: Any) -> tuple[dict[str, list[Any]], list[str]]:
        path = tmp_path / name
        path.write_bytes(content)
        return read(path, **settings)

    return write_and_read


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


# --- what is read right


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
        ("a.jsonl.gz", gzip.compress(ROWS)),
        ("a.jsonl.zst", zstd(ROWS)),
        ("two-members.jsonl.gz", gzip.compress(ROWS[:28]) + gzip.compress(ROWS[28:])),
        ("two-frames.jsonl.zst", zstd(ROWS[:28]) + zstd(ROWS[28:])),
        ("bom.jsonl.gz", gzip.compress(b"\xef\xbb\xbf" + ROWS)),
        ("a.csv", b"text,label\na b,1\nc,x\n"),
        ("a.csv.gz", gzip.compress(b"text,label\na b,1\nc,x\n")),
        ("crlf.csv.zst", zstd(b'\xef\xbb\xbf"text",label\r\n"a b",1\r\nc,x\r\n\r\n')),
        ("a.tsv", b"label\tother\ttext\n1\t\ta b\nx\t,\tc"),
    ],
)
def test_the_same_rows_from_every_way_of_writing_them(given: Any, name: str, content: bytes) -> None:
    assert given(name, content) == ({"text": ["a b", "c"], "label": ["1", "x"]}, [])


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz", ".txt.zst"])
def test_plain_text_is_one_sentence_a_line(given: Any, suffix: str) -> None:
    content = "\ufeffa\r\n  b \nשלום 👩‍👩‍👧\u2028one line\x0c still\n\n".encode()
    packed = {".txt": content, ".txt.gz": gzip.compress(content), ".txt.zst": zstd(content)}[suffix]
    assert given(f"a{suffix}", packed) == ({"text": ["a", "  b ", "שלום 👩‍👩‍👧\u2028one line\x0c still"]}, [])


def test_odd_characters_survive(given: Any) -> None:
    sentences = ["\u202eright to left", "\U0001f600", "a\tb\r\nc", "\ufeff", "\u2029x\x85y\x1f", "e\u0301"]
    lines = "".join(json.dumps({"text": s}, ensure_ascii=bool(i % 2)) + "\n" for i, s in enumerate(sentences))
    assert given("a.jsonl", lines.encode()) == ({"text": sentences}, [])


def test_csv_keeps_quotes_delimiters_and_newlines(given: Any) -> None:
    content = b'text,label\r\n"two\r\nlines, and ""more""",a\r\n5" pipe,"b\nc"\r\n'
    want = {"text": ['two\r\nlines, and "more"', '5" pipe'], "label": ["a", "b\nc"]}
    assert given("a.csv", content) == (want, [])


def test_a_line_longer_than_many_chunks(given: Any) -> None:
    long = "é" * (3 * text_lines.CHUNK_BYTES)
    content = f'{{"text": "{long}"}}\n{{"text": "b"}}\n{{"text": "{long}c"}}'.encode()
    columns, told = given("a.jsonl", content)
    assert told == []
    assert columns["text"] == [long, "b", long + "c"]


def test_columns_come_in_fixed_order_and_under_their_names(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"z": 1, "who": true, "s": "hi", "next": " x", "topic": 3, "skipped": [1]}\n')
    dataset = Dataset(name="d", path="", text="s", label="who", group="topic", expected_next="next", keep=("z",))
    (batch,) = read_batches(path, dataset, Problems())
    assert batch.schema.names == ["text", "label", "group", "expected_next", "z"]
    assert batch.schema.types == [pa.string()] * 4 + [pa.int64()]
    assert batch.to_pylist() == [{"text": "hi", "label": "true", "group": "3", "expected_next": " x", "z": 1}]


def test_label_is_taken_only_where_the_first_row_has_it(given: Any) -> None:
    assert given("a.jsonl", b'{"text": "a", "other": 1}\n') == ({"text": ["a"]}, [])
    assert given("label.jsonl", b'{"label": "a"}\n', text="label") == ({"text": ["a"]}, [])
    _, told = given("b.jsonl", b'{"text": "a", "label": "x"}\n{"text": "b"}\n')
    assert told == ["b.jsonl:2: no field `label`; there is `text`"]
    _, told = given("c.jsonl", b'{"text": "a"}\n{"text": "b", "label": "x"}\n')
    assert told == ["c.jsonl:2: has a field `label`, and the first row has none: label every row or none"]


def test_limit_stops_before_what_is_wrong(given: Any) -> None:
    assert given("a.jsonl", b'{"text": "a"}\n{"text": "b"}\nwrong\n', limit=2) == ({"text": ["a", "b"]}, [])
    assert given("a.csv", b"text,n\na,1\nb,2\nc,x\n", limit=2, keep=("n",))[0] == {"text": ["a", "b"], "n": [1, 2]}


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
def test_cells_of_csv_become_numbers_only_where_nothing_is_lost(given: Any, cells: list[str], want: list[Any]) -> None:
    content = "text,k\n" + "".join(f"a,{cell}\n" for cell in cells)
    columns, told = given("a.csv", content.encode(), keep=("k",))
    assert told == []
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
    columns, told = read(tmp_path / "a.parquet", keep=("f", "i", "b"))
    assert told == []
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


# --- what is refused, and where


def test_every_wrong_line_is_named_at_once(given: Any) -> None:
    lines = [
        b'{"text": "good", "label": "x"}',
        b"",
        b'{"text": " \\t", "label": "x"}',
        b"[1]",
        b'{"text": 1, "label": "x"}',
        b'{"text": "a\\udfff", "label": "x"}',
        b'{"text": "a\\u0000b", "label": "x"}',
        b'{"text": "a", "text": "b", "label": "x"}',
        b'{"text": "a"',
        b'{"txt": "a", "label": "x"}',
        b'{"text": "\xff", "label": "x"}',
        b'{"text": "a\x00", "label": "x"}',
        b'{"text": "\xed\xa0\x80", "label": "x"}',
        b'{"text": "a", "label": 0.5}',
        b'{"text": "a", "label": null}',
        b'{"text": "a", "label": ""}',
        b'{"text": "a", "label": "x", "n": ' + b"9" * 5000 + b"}",
        b'{"text": ' + b"[" * 200_000,
    ]
    columns, told = given("a.jsonl", b"\n".join(lines) + b"\n\n")
    assert columns == {}
    assert told == [
        "a.jsonl:2: is empty: every line must hold a row",
        "a.jsonl:3: field `text` is empty",
        "a.jsonl:4: is not a JSON object but an array",
        "a.jsonl:5: field `text` is not a string but an integer",
        "a.jsonl:6: field `text` holds half a surrogate pair, \\udfff; it cannot be written as UTF-8",
        "a.jsonl:7: field `text` holds a NUL character",
        "a.jsonl:8: names the field `text` twice",
        "a.jsonl:9: is not JSON: Expecting ',' delimiter (column 13)",
        "a.jsonl:10: no field `text`; there is `txt`, `label`",
        "a.jsonl:11: is not UTF-8: byte 0xff at byte 11 of the line",
        "a.jsonl:12: holds a NUL character",
        "a.jsonl:13: is not UTF-8: byte 0xed at byte 11 of the line",
        "a.jsonl:14: field `label` must be a string, an integer or a boolean, and is a fraction",
        "a.jsonl:15: field `label` must be a string, an integer or a boolean, and is null",
        "a.jsonl:16: field `label` is empty",
        "a.jsonl:17: holds a number too long to read",
        "a.jsonl:18: is nested too deeply",
    ]


@pytest.mark.parametrize("line", [b'"s"', b"3", b"1.5", b"null", b"true"])
def test_a_line_of_json_that_is_no_object(given: Any, line: bytes) -> None:
    (told,) = given("a.jsonl", b'{"text": "a"}\n' + line)[1]
    assert told.startswith("a.jsonl:2: is not a JSON object but ")


@pytest.mark.parametrize(
    ("name", "content", "want"),
    [
        ("a.csv", b'text\n"two\nlines"\n\nb\n', "a.csv:4: is empty: every line must hold a row"),
        ("b.csv", b'text,n\n"a\nb\nc",1\nd\n', "b.csv:5: has 1 fields where the header has 2"),
        ("c.csv", b'text,n\n"a\nb",1\nd,2,3\n', "c.csv:4: has 3 fields where the header has 2"),
        ("d.csv", b'text\na\n"never\nclosed\n', "d.csv:3: a quote is opened in this row and never closed"),
        ("e.csv", b'text\n"bad"x\n', "e.csv:2: a quote inside a quoted field must be doubled"),
        ("f.csv", b'text,n\n"",1\n', "f.csv:2: field `text` is empty"),
        ("g.csv", b"text,n,text\na,1,b\n", "g.csv:1: the header names `text` twice"),
        ("h.csv", b'text\n"a\nb"\n"c\n\xff"\n', "h.csv:5: is not UTF-8: byte 0xff at byte 1 of the line"),
        ("i.csv", b"text\ra\rb\r", "i.csv:1: holds a carriage return outside quotes; lines must end in LF or CRLF"),
        ("j.csv", b"words,n\na,1\nb,2\n", "j.csv: no field `text`; there is `words`, `n`"),
        ("k.csv", b"text,label\n", "k.csv: holds no sentence"),
        ("l.csv", b"", "l.csv: holds no sentence"),
        ("a.tsv", b"text\tlabel\na\n", "a.tsv:2: has 1 fields where the header has 2"),
        ("a.txt", b"a\n\nb\n", "a.txt:2: is empty: every line must hold a row"),
        ("b.txt", b"a\rb\n", "b.txt:1: holds a carriage return; lines must end in LF or CRLF"),
        ("c.txt", b"\n\n", "c.txt: holds no sentence"),
        ("d.txt", b"a\0b\n", "d.txt:1: holds a NUL character"),
        ("a.jsonl", b"", "a.jsonl: holds no sentence"),
        ("b.jsonl", "{}".encode("utf-16"), "b.jsonl: is UTF-16, not UTF-8: save it as UTF-8"),
        ("c.jsonl", gzip.compress(ROWS), "c.jsonl: is compressed with gzip: end its name in .gz"),
        ("d.jsonl", zstd(ROWS), "d.jsonl: is compressed with zstd: end its name in .zst"),
        ("f.jsonl", b"[", "f.jsonl:1: is not one JSON object: one a line is wanted, not an array"),
        ("e.jsonl.gz", gzip.compress(b""), "e.jsonl.gz: holds no sentence"),
    ],
)
def test_what_is_wrong_and_where(given: Any, name: str, content: bytes, want: str) -> None:
    assert given(name, content) == ({}, [want])


def test_a_field_named_in_the_job_is_in_every_row(given: Any) -> None:
    content = b'{"text": "a", "g": 1, "e": " x", "k": 1}\n{"text": "b"}\n{"text": "c", "g": 1, "e": "", "k": [1]}\n'
    told = given("a.jsonl", content, group="g", expected_next="e", keep=("k",))[1]
    assert told == [
        "a.jsonl:2: no field `g`, `e`, `k`; there is `text`",
        "a.jsonl:3: field `e` is empty",
        "a.jsonl:3: field `k` must be a string or a number to be kept, and is a list",
    ]
    assert given("a.txt", b"a\n", label="x")[1] == ["a.txt: no field `x`; there is `text`"]


@pytest.mark.parametrize("value", ["null", "NaN", "Infinity", "-1e999"])
def test_kept_values_are_there_and_finite(given: Any, value: str) -> None:
    content = f'{{"text": "a", "k": 1.5}}\n{{"text": "a", "k": {value}}}\n'
    (told,) = given("a.jsonl", content.encode(), keep=("k",))[1]
    assert told.startswith("a.jsonl:2: field `k` ")


def test_an_empty_cell_among_numbers_is_missing(given: Any) -> None:
    told = given("a.csv", b"text,k\na,1\nb,\n", keep=("k",))[1]
    assert told == ["a.csv:3: field `k` is empty in a column of numbers"]


def test_parquet_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", None, " "], "t": pa.array([1, 2, 3], pa.timestamp("ns"))}), path)
    assert read(path)[1] == [
        "a.parquet:2: field `text` is not a string but null",
        "a.parquet:3: field `text` is empty",
    ]
    assert read(path, text="words")[1] == ["a.parquet: no field `words`; there is `text`, `t`"]
    assert read(path, text="t")[1][0] == "a.parquet:1: field `t` is not a string but of the type timestamp[ns]"
    good = pa.array(["ab", "cd"])
    bad = pa.Array.from_buffers(pa.string(), 2, [*good.buffers()[:2], pa.py_buffer(b"ab\xff\xfe")])
    pq.write_table(pa.table({"text": bad}), path)
    assert read(path)[1] == ["a.parquet:2: field `text` is not a string but bytes (binary, or not UTF-8)"]
    pq.write_table(pa.table({"text": good[:0]}), path)
    assert read(path)[1] == ["a.parquet: holds no sentence"]
    pq.write_table(pa.Table.from_arrays([good, good], names=["text", "text"]), path)
    assert read(path)[1] == ["a.parquet: names the column `text` twice"]


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".parquet"])
@pytest.mark.parametrize("damage", ["cut", "emptied", "other"])
def test_damaged_files_end_in_one_message(given: Any, tmp_path: Path, suffix: str, damage: str) -> None:
    pq.write_table(pa.table({"text": ["a"] * 500}), tmp_path / "whole.parquet")
    whole = {
        ".jsonl.gz": gzip.compress(ROWS * 500),
        ".jsonl.zst": zstd(ROWS * 500),
        ".parquet": (tmp_path / "whole.parquet").read_bytes(),
    }[suffix]
    content = {"cut": whole[:-9], "emptied": whole[:4], "other": ROWS}[damage]
    columns, told = given(f"a{suffix}", content)
    assert columns == {}
    assert len(told) == 1
    assert told[0].startswith(
        f"a{suffix}: is not a {suffix.replace('.jsonl', '').strip('.').replace('gz', 'gzip')[:4]}"
    )


def test_a_checksum_that_fails_is_found_at_the_end(given: Any) -> None:
    content = bytearray(gzip.compress(ROWS))
    content[-7] ^= 1
    assert "CRC check failed" in given("a.jsonl.gz", bytes(content))[1][0]


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    assert read(tmp_path / "a.jsonl")[1] == ["a.jsonl: there is no such file"]
    (tmp_path / "b.csv").mkdir()
    assert read(tmp_path / "b.csv")[1] == ["b.csv: is a directory, not a file"]
    os.mkfifo(tmp_path / "c.txt")
    assert read(tmp_path / "c.txt")[1] == ["c.txt: is not an ordinary file"]
    (tmp_path / "d.txt").symlink_to("d.txt")
    (told,) = read(tmp_path / "d.txt")[1]
    assert told.startswith("d.txt: cannot be read: ")


@pytest.mark.parametrize("name", ["a", "a.json", "a.xlsx", "a.parquet.gz", "a.gz", ".jsonl", "a.jsonl.bz2"])
def test_an_unknown_ending_names_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(TextError, match="end of the name") as caught:
        read(tmp_path / name)
    assert ".parquet" in caught.value.hint


def test_a_line_beyond_the_limit_is_refused_before_it_is_held(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lines, "MAX_LINE_BYTES", 5 << 20)
    content = b"short\n" + b"x" * (8 << 20) + b"\n"
    assert given("a.txt", content) == ({}, ["a.txt:2: is longer than 5 MiB"])


def test_messages_are_safe_to_print_and_short(given: Any) -> None:
    row = {"\x1b[31m\u202e" + "x" * 1000: 1} | {f"f{i}": 1 for i in range(50)}
    (told,) = given("a.jsonl", json.dumps(row).encode())[1]
    assert told.isprintable()
    assert len(told) < 250
    assert told.endswith("`f8`, ...")


def test_the_process_keeps_a_larger_field_limit(given: Any) -> None:
    before = csv.field_size_limit(1 << 40)
    try:
        given("a.csv", b"text\na\n")
        assert csv.field_size_limit() == 1 << 40
    finally:
        csv.field_size_limit(before)


# --- Problems


def test_problems_keep_some_and_count_all() -> None:
    problems = Problems(limit=2)
    problems.raise_if_any()
    for line in (3, None, 5, 6):
        problems.add("f.jsonl", line, "wrong")
    assert problems.shown == [Problem("f.jsonl", 3, "wrong"), Problem("f.jsonl", None, "wrong")]
    with pytest.raises(TextError) as caught:
        problems.raise_if_any()
    assert str(caught.value) == "f.jsonl:3: wrong\nf.jsonl: wrong\n... and 2 more"
    assert caught.value.hint
    assert caught.value.exit_status == 2


def test_the_limit_is_twenty_and_later_files_are_still_checked(given: Any) -> None:
    problems = Problems()
    assert problems.limit == 20
    path = Path("nowhere.jsonl")
    for _ in range(25):
        list(read_batches(path, Dataset(name="d", path=""), problems))
    with pytest.raises(TextError, match=r"\.\.\. and 5 more$"):
        problems.raise_if_any()
