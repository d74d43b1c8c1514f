"""Readers under drawn input: good rows come back as they were, and bad bytes never end in a traceback."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import zstd

from drillcore.errors import TextError
from drillcore.job.inputs import Dataset
from drillcore.texts.problems import Problems
from drillcore.texts.read import read_batches

SEED = secrets.randbits(32)
QUICK = settings(max_examples=60, deadline=None, database=None)

Row = dict[str, Any]
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40).filter(
    lambda text: not text.isspace()
)
# What plain text cannot tell from its own line ends and byte order mark.
lines = texts.filter(lambda text: "\n" not in text and "\r" not in text and not text.startswith("\ufeff"))
rows = st.lists(
    st.fixed_dictionaries(
        {
            "text": texts,
            "label": texts,
            "whole": st.integers(-(2**63), 2**63 - 1),
            "number": st.floats(allow_nan=False, allow_infinity=False),
            "note": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=10),
        }
    ),
    min_size=1,
    max_size=12,
)
KEPT = ("whole", "number", "note")


@pytest.fixture(autouse=True)
def _say_seed() -> None:
    print("seed", SEED)


def read(name: str, content: bytes, keep: tuple[str, ...] = (), **fields: Any) -> tuple[list[Row], Problems]:
    problems = Problems()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        batches = list(read_batches(path, Dataset(name="d", path="x", keep=keep, **fields), problems))
    return [row for batch in batches for row in batch.to_pylist()], problems


def jsonl(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=bool(i % 2)) + "\n" for i, row in enumerate(rows)).encode()


def commas(rows: list[Row], end: str) -> bytes:
    out = io.StringIO()
    # Ended by a bare line feed, Python's writer leaves a carriage return inside a field unquoted before 3.13.
    quoting = csv.QUOTE_MINIMAL if end == "\r\n" else csv.QUOTE_ALL
    writer = csv.DictWriter(out, list(rows[0]), lineterminator=end, quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def tabs(rows: list[Row]) -> bytes:
    names = list(rows[0])
    records = [names, *([str(row[name]) for name in names] for row in rows)]
    return "".join("\t".join(record) + "\n" for record in records).encode()


def parquet(rows: list[Row], **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, **options)
    return out.getvalue()


WRITERS: dict[str, Callable[[list[Row]], bytes]] = {
    "a.jsonl": jsonl,
    "b.jsonl.gz": lambda rows: gzip.compress(jsonl(rows)),
    "c.jsonl.zst": lambda rows: zstd(jsonl(rows)),
    "d.csv": lambda rows: commas(rows, "\r\n"),
    "e.csv": lambda rows: commas(rows, "\n"),
    "f.tsv": tabs,
    "g.parquet": parquet,
    "h.parquet": lambda rows: parquet(rows, row_group_size=2, use_dictionary=False, compression="zstd"),
}


@pytest.mark.parametrize("name", WRITERS)
@hypothesis.seed(SEED)
@QUICK
@given(rows)
def test_rows_come_back_exactly(name: str, rows: list[Row]) -> None:
    # A cell of CSV has no type: notes that are all written like numbers would be read as numbers.
    wanted = [row | {"note": f"n{row['note']}"} for row in rows]
    if name.endswith(".tsv"):  # which cannot hold its own delimiters
        wanted = [{k: re.sub("[\t\r\n]", "", v) if isinstance(v, str) else v for k, v in row.items()} for row in wanted]
    got, problems = read(name, WRITERS[name](wanted), keep=KEPT)
    assert problems.shown == []
    assert got == wanted
    assert [repr(row["number"]) for row in got] == [repr(row["number"]) for row in wanted]


@hypothesis.seed(SEED)
@QUICK
@given(st.lists(lines, min_size=1, max_size=20), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans())
def test_plain_lines_come_back_exactly(sentences: list[str], end: str, mark: bool, ended: bool) -> None:
    content = ("\ufeff" if mark else "") + end.join(sentences) + (end if ended else "")
    got, problems = read("a.txt", content.encode())
    assert problems.shown == []
    assert [row["text"] for row in got] == sentences


@hypothesis.seed(SEED)
@QUICK
@given(rows, st.data())
def test_a_wrong_row_of_csv_is_named_by_the_line_it_begins_on(rows: list[Row], data: st.DataObject) -> None:
    wrong = data.draw(st.integers(0, len(rows) - 1))
    rows[wrong]["text"] = " "
    line = 1 + commas(rows[:wrong], "\r\n").count(b"\n") if wrong else 2
    _, problems = read("a.csv", commas(rows, "\r\n"))
    assert [(problem.line, problem.message) for problem in problems.shown] == [
        (line, "field `text` is empty; `empty: drop` leaves such rows out")
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from(["text", "label", "k", "other"])


@hypothesis.seed(SEED)
@QUICK
@given(st.lists(st.dictionaries(fields, json_values) | json_values, max_size=6), st.booleans())
def test_any_json_is_read_or_refused(values: list[Any], keep: bool) -> None:
    got, problems = read("a.jsonl", "\n".join(map(json.dumps, values)).encode(), keep=("k",) if keep else ())
    assert len(got) == (0 if problems.count else len(values))
    assert problems.count or all(isinstance(row["text"], str) for row in got)


ENDINGS = ["a.jsonl", "a.csv", "a.tsv", "a.txt", "a.parquet", "a.jsonl.gz", "a.csv.zst"]


def accepted_or_refused(name: str, content: bytes) -> None:
    """Either rows or problems, and problems that can be printed a line each."""
    got, problems = read(name, content, keep=() if name == "a.txt" else ("whole",))
    assert bool(got) != bool(problems.count)
    for row in got:
        assert row["text"].strip()
        assert "\0" not in row["text"]
        row["text"].encode()
    if problems.count:
        with pytest.raises(TextError) as caught:
            problems.raise_if_any()
        lines = str(caught.value).split("\n")
        more = [
            int(found[1].replace(",", "")) for line in lines if (found := re.match(r"\.\.\. and ([\d,]+) more", line))
        ]
        assert len(lines) - len(more) + sum(more) == problems.count


@pytest.mark.parametrize("name", ENDINGS)
@hypothesis.seed(SEED)
@QUICK
@given(st.binary(max_size=200))
def test_random_bytes_are_read_or_refused(name: str, content: bytes) -> None:
    accepted_or_refused(name, content)


SAMPLE = [{"text": f'a "{i}"\n é', "label": "x", "whole": i} for i in range(30)]
WHOLE = {
    "a.jsonl": jsonl(SAMPLE),
    "a.csv": commas(SAMPLE, "\r\n"),
    "a.tsv": tabs(SAMPLE),
    "a.txt": "one\ntwo é\n".encode(),
    "a.parquet": parquet(SAMPLE),
    "a.jsonl.gz": gzip.compress(jsonl(SAMPLE)),
    "a.csv.zst": zstd(commas(SAMPLE, "\n")),
}
edits = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 3),
        st.binary(max_size=3) | st.sampled_from([b'"', b"\n", b"\r", b"\0", b"\xff", b",", b"{", b"\\ud800"]),
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("name", ENDINGS)
@hypothesis.seed(SEED)
@QUICK
@given(edits)
def test_damaged_files_are_read_or_refused(name: str, edits: list[tuple[float, int, bytes]]) -> None:
    content = bytearray(WHOLE[name])
    for where, num_removed, put in edits:
        at = int(where * len(content))
        content[at : at + num_removed] = put
    accepted_or_refused(name, bytes(content))
