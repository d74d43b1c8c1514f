"""What is refused in a file, and on which line."""

from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading import ROWS, read, read_content, zstd

from drillcore.errors import TextError
from drillcore.texts.readers import lines as text_lines

IGNORES = "`label: null` ignores the field"
SAVE = "save the file as UTF-8, or name its `encoding`, such as cp1252"
DROP = "`empty: drop` leaves such rows out"
REMEDY = f"`unlabelled: keep` or `drop` allows rows without a label, {IGNORES}"
CSV = "; a field that holds what separates fields stands in double quotes"
TSV = "; TSV has no quotes: no field can hold a tab or a line end (CSV and JSONL can)"


def test_all_wrong_lines_are_reported_at_once() -> None:
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
    columns, messages = read_content("a.jsonl", b"\n".join(lines) + b"\n\n")
    assert columns == {}
    assert messages == [
        "a.jsonl:2: is empty: every line must hold a row",
        "a.jsonl:3: field `text` is empty; `empty: drop` leaves such rows out",
        "a.jsonl:4: is not a JSON object but an array",
        "a.jsonl:5: field `text` is not a string but an integer",
        "a.jsonl:6: field `text` holds half a surrogate pair, \\udfff; it cannot be written as UTF-8",
        "a.jsonl:7: field `text` holds a NUL character",
        "a.jsonl:8: names the field `text` twice",
        "a.jsonl:9: is not JSON: a comma or a closing bracket is missing (column 13)",
        "a.jsonl:10: no field `text`; there is `txt`, `label`; did you mean `txt`?",
        f"a.jsonl:11: is not UTF-8: byte 0xff at byte 11 of the line; {SAVE}",
        "a.jsonl:12: holds a NUL character",
        f"a.jsonl:13: is not UTF-8: byte 0xed at byte 11 of the line; {SAVE}",
        f"a.jsonl:14: field `label` must be a string, an integer or a boolean, and is a fraction; {IGNORES}",
        f"a.jsonl:15: field `label` is null; {REMEDY}",
        f"a.jsonl:16: field `label` is empty; {REMEDY}",
        "a.jsonl:17: holds a number too long to read",
        "a.jsonl:18: is nested too deeply",
    ]


@pytest.mark.parametrize("line", [b'"s"', b"3", b"1.5", b"null", b"true"])
def test_a_line_of_json_that_is_not_an_object(line: bytes) -> None:
    (message,) = read_content("a.jsonl", b'{"text": "a"}\n' + line)[1]
    assert message.startswith("a.jsonl:2: is not a JSON object but ")


@pytest.mark.parametrize(
    ("name", "content", "want"),
    [
        ("a.csv", b'text\n"two\nlines"\n\nb\n', "a.csv:4: is empty: every line must hold a row"),
        ("b.csv", b'text,n\n"a\nb\nc",1\nd\n', "b.csv:5: has 1 field where the header has 2" + CSV),
        ("c.csv", b'text,n\n"a\nb",1\nd,2,3\n', "c.csv:4: has 3 fields where the header has 2" + CSV),
        ("d.csv", b'text\na\n"never\nclosed\n', "d.csv:3: a quote is opened in this row and never closed"),
        ("e.csv", b'text\n"bad"x\n', "e.csv:2: a quote inside a quoted field must be doubled"),
        ("f.csv", b'text,n\n"",1\n', "f.csv:2: field `text` is empty; `empty: drop` leaves such rows out"),
        ("g.csv", b"text,n,text\na,1,b\n", "g.csv:1: the header names `text` twice"),
        (
            "h.csv",
            b'text\n"a\nb"\n"c\n\xff"\n',
            f"h.csv:5: is not UTF-8: byte 0xff at byte 1 of the line; {SAVE}",
        ),
        ("i.csv", b"text\ra\rb\r", "i.csv:1: holds a carriage return outside quotes; lines must end in LF or CRLF"),
        ("j.csv", b"words,n\na,1\nb,2\n", "j.csv: no field `text`; the file has `words`, `n`"),
        ("k.csv", b"text,label\n", "k.csv: holds no sentence"),
        ("l.csv", b"", "l.csv: holds no sentence"),
        ("a.tsv", b"text\tlabel\na\n", "a.tsv:2: has 1 field where the header has 2" + TSV),
        ("b.tsv", b'text\tlabel\n"two\nlines"\tx\n', "b.tsv:2: has 1 field where the header has 2" + TSV),
        ("c.tsv", b"text\tlabel\ra\tx\r", "c.tsv:1: holds a carriage return; lines must end in LF or CRLF"),
        ("d.tsv", b"text\tlabel\n\na\tx\n", "d.tsv:2: is empty: every line must hold a row"),
        ("a.txt", b"a\n\nb\n", "a.txt:2: is empty: every line must hold a row"),
        ("b.txt", b"a\rb\n", "b.txt:1: holds a carriage return; lines must end in LF or CRLF"),
        ("c.txt", b"\n\n", "c.txt: holds no sentence"),
        ("d.txt", b"a\0b\n", "d.txt:1: holds a NUL character"),
        ("a.jsonl", b"", "a.jsonl: holds no sentence"),
        ("b.jsonl", "{}".encode("utf-16"), "b.jsonl: is UTF-16, not UTF-8: save it as UTF-8"),
        ("c.jsonl", gzip.compress(ROWS, mtime=0), "c.jsonl: is compressed with gzip: end its name in .gz"),
        ("d.jsonl", zstd(ROWS), "d.jsonl: is compressed with zstd: end its name in .zst"),
        ("f.jsonl", b"[", "f.jsonl:1: is not one JSON object: one a line is wanted, not an array"),
        (
            "g.jsonl",
            b"{\n",
            "g.jsonl:1: is not one JSON object: a whole one on each line is wanted, not one over several lines",
        ),
        ("e.jsonl.gz", gzip.compress(b"", mtime=0), "e.jsonl.gz: holds no sentence"),
    ],
)
def test_each_problem_is_reported_with_its_line(name: str, content: bytes, want: str) -> None:
    assert read_content(name, content) == ({}, [want])


def test_a_field_named_in_the_job_is_in_every_row() -> None:
    content = b'{"text": "a", "g": 1, "e": " x", "k": 1}\n{"text": "b"}\n{"text": "c", "g": 1, "e": "", "k": [1]}\n'
    messages = read_content("a.jsonl", content, group="g", expected_next="e", keep=("k",))[1]
    assert messages == [
        "a.jsonl:2: no field `g`, `e`, `k`; there is `text`",
        "a.jsonl:3: field `e` is empty",
        "a.jsonl:3: field `k` must be a string or a number to be kept, and is a list",
    ]
    assert read_content("a.txt", b"a\n", label="x")[1] == ["a.txt: no field `x`; the file has `text`"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1e999"])
def test_kept_numbers_must_be_finite(value: str) -> None:
    content = f'{{"text": "a", "k": 1.5}}\n{{"text": "a", "k": {value}}}\n'
    (message,) = read_content("a.jsonl", content.encode(), keep=("k",))[1]
    assert message.startswith("a.jsonl:2: field `k` ")


def test_a_field_that_is_nearly_the_wanted_one_is_named() -> None:
    (message,) = read_content("a.csv", b"Text ,label\na,x\n")[1]
    assert message == 'a.csv: no field `text`; the file has `Text `, `label`: set `text: "Text "`'
    (message,) = read_content("a.jsonl", '{"text": "a", "city\u200b": "x"}\n'.encode(), label="city")[1]
    assert "did you mean `city\\u200b`?" in message


@pytest.mark.parametrize(
    ("name", "mark", "word", "remedy"),
    [
        ("a.csv", ";", "semicolons", "set `delimiter: ';'`"),
        ("a.csv", "\t", "tabs", "set `delimiter: tab`"),
        ("a.tsv", ",", "commas", "end its name in .csv"),
        ("a.tsv", ";", "semicolons", "end its name in .csv and set `delimiter: ';'`"),
    ],
)
def test_fields_that_are_separated_by_another_character_are_told_so(
    name: str, mark: str, word: str, remedy: str
) -> None:
    (message,) = read_content(name, f"text{mark}city\na{mark}x\n".encode(), label="city")[1]
    assert message.endswith(f"; its fields are separated by {word}: {remedy}")


def test_semicolons_in_the_header_and_commas_in_the_sentences() -> None:
    (first, second) = read_content("a.csv", b"text;city\none, two;x\nthree, four;y\n")[1]
    assert first == (
        "a.csv:2: has 2 fields where the header has 1; the header's fields are separated by semicolons: set "
        "`delimiter: ';'`"
    )
    assert second.startswith("a.csv:3: has 2 fields")


@pytest.mark.parametrize(
    ("content", "fields", "wanted"),
    [
        (b"sentence,city\na,b\n", {}, "no field `text`; the file has `sentence`, `city`: set `text: sentence`"),
        (b"words\na\n", {}, "no field `text`; the file has `words`: set `text: words`"),
        (b"a,b\na,b\n", {}, "no field `text`; the file has `a`, `b`"),
        (b"text,City\na,b\n", {"label": "city"}, "no field `city`; the file has `text`, `City`: set `label: City`"),
        (b"text,the city\na,b\n", {"group": "city"}, '`the city`: set `group: "the city"`'),
        (b"text,years\na,1\n", {"keep": ("year",)}, "`years`: set `keep: [years]`"),
    ],
)
def test_a_column_that_is_not_there_leads_to_the_one_that_is(
    content: bytes, fields: dict[str, Any], wanted: str
) -> None:
    (message,) = read_content("a.csv", content, **fields)[1]
    assert message.endswith(wanted), message


def test_parquet_files_with_wrong_columns_or_values(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", None, " "], "t": pa.array([1, 2, 3], pa.timestamp("ns"))}), path)
    assert read(path)[1] == [
        f"a.parquet:2: field `text` is null; {DROP}",
        "a.parquet:3: field `text` is empty; `empty: drop` leaves such rows out",
    ]
    assert read(path, text="words")[1] == ["a.parquet: no field `words`; the file has `text`, `t`"]
    assert read(path, text="t")[1][0] == "a.parquet:1: field `t` is not a string but of the type timestamp[ns]"
    good = pa.array(["ab", "cd"])
    bad = pa.Array.from_buffers(pa.string(), 2, [*good.buffers()[:2], pa.py_buffer(b"ab\xff\xfe")])
    pq.write_table(pa.table({"text": bad}), path)
    assert read(path)[1] == ["a.parquet:2: field `text` is not a string but bytes (binary, or not UTF-8)"]
    pq.write_table(pa.table({"text": good[:0]}), path)
    assert read(path)[1] == ["a.parquet: holds no sentence"]
    pq.write_table(pa.Table.from_arrays([good, good], names=["text", "text"]), path)
    assert read(path)[1] == ["a.parquet: names the column `text` twice"]
    pq.write_table(pa.Table.from_arrays([good, good, good], names=["text", "label", "label"]), path)
    assert read(path)[1] == ["a.parquet: names the column `label` twice"]


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".parquet"])
@pytest.mark.parametrize("damage", ["cut", "emptied", "other"])
def test_a_damaged_file_is_one_problem(tmp_path: Path, suffix: str, damage: str) -> None:
    pq.write_table(pa.table({"text": ["a"] * 500}), tmp_path / "whole.parquet")
    whole = {
        ".jsonl.gz": gzip.compress(ROWS * 500),
        ".jsonl.zst": zstd(ROWS * 500),
        ".parquet": (tmp_path / "whole.parquet").read_bytes(),
    }[suffix]
    content = {"cut": whole[:-9], "emptied": whole[:4], "other": ROWS}[damage]
    columns, messages = read_content(f"a{suffix}", content)
    assert columns == {}
    assert len(messages) == 1
    assert messages[0].startswith(
        f"a{suffix}: is not a {suffix.replace('.jsonl', '').strip('.').replace('gz', 'gzip')[:4]}"
    )


def test_a_wrong_gzip_checksum_is_reported() -> None:
    content = bytearray(gzip.compress(ROWS))
    content[-7] ^= 1
    assert "is not a gzip file, or is damaged" in read_content("a.jsonl.gz", bytes(content))[1][0]


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    assert read(tmp_path / "a.jsonl")[1] == ["a.jsonl: there is no such file"]
    (tmp_path / "b.csv").mkdir()
    assert read(tmp_path / "b.csv")[1] == ["b.csv: is a directory, not a file"]
    os.mkfifo(tmp_path / "c.txt")
    assert read(tmp_path / "c.txt")[1] == ["c.txt: is not an ordinary file"]
    (tmp_path / "d.txt").symlink_to("d.txt")
    (message,) = read(tmp_path / "d.txt")[1]
    assert message.startswith("d.txt: cannot be read: ")


@pytest.mark.parametrize("name", ["a", "a.doc", "a.parquet.gz", "a.gz", ".jsonl", "a.jsonl.bz2"])
def test_an_unknown_suffix_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(TextError, match="end of the name") as caught:
        read(tmp_path / name)
    assert ".parquet" in caught.value.hint


def test_a_line_beyond_the_limit_is_refused_before_it_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lines, "MAX_LINE_BYTES", 5 << 20)
    content = b"short\n" + b"x" * (8 << 20) + b"\n"
    assert read_content("a.txt", content) == ({}, ["a.txt:2: is longer than 5 MiB"])


def test_messages_are_safe_to_print_and_short() -> None:
    row = {"\x1b[31m\u202e" + "x" * 1000: 1} | {f"f{i}": 1 for i in range(50)}
    (message,) = read_content("a.jsonl", json.dumps(row).encode())[1]
    assert message.isprintable()
    assert len(message) < 250
    assert message.endswith("`f8`, ...")


def test_a_larger_csv_field_limit_of_the_process_is_kept() -> None:
    before = csv.field_size_limit(1 << 40)
    try:
        read_content("a.csv", b"text\na\n")
        assert csv.field_size_limit() == 1 << 40
    finally:
        csv.field_size_limit(before)
