"""What separates the fields of a .csv file: a comma, what the job says, or what its first line says."""

from __future__ import annotations

from pathlib import Path

import pytest
from reading import read_content

from drillcore.job.inputs import Dataset
from drillcore.texts.problems import Problems
from drillcore.texts.read import lines_of
from drillcore.texts.rows import ingest

ROWS = {"text": ["one, two", "a;b|c\nd"], "label": ["x", "y"]}


def table(delimiter: str, before: str = "") -> bytes:
    return f'{before}text{delimiter}label\n"one, two"{delimiter}x\n"a;b|c\nd"{delimiter}y\n'.encode()


@pytest.mark.parametrize(("name", "sign"), [(";", ";"), ("tab", "\t"), ("|", "|"), (",", ","), ("\t", "\t")])
def test_the_job_names_what_separates_fields(name: str, sign: str) -> None:
    assert read_content("a.csv", table(sign), delimiter=name) == (ROWS, [])


@pytest.mark.parametrize("sign", [";", "\t", "|", ","])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_first_line_names_it(sign: str, end: str) -> None:
    assert read_content("a.csv", table(sign, f"sep={sign}{end}")) == (ROWS, [])
    named = {"\t": "tab"}.get(sign, sign)
    assert read_content("a.csv", table(sign, f"sep={sign}{end}"), delimiter=named) == (ROWS, [])


def test_they_must_agree() -> None:
    (message,) = read_content("a.csv", table(";", "sep=;\n"), delimiter=",")[1]
    assert message == "a.csv:1: says that `;` separates fields, and the job's `delimiter` is `,`"


def test_lines_are_counted_with_the_one_that_names_it(tmp_path: Path) -> None:
    content = b"sep=;\ntext;label\na;x\n ;y\nc;z;w\n"
    messages = read_content("a.csv", content)[1]
    assert [message.partition(": ")[0] for message in messages] == ["a.csv:4", "a.csv:5"]
    path = tmp_path / "a.csv"
    path.write_bytes(b"sep=;\ntext;label\na;x\nb;y\n")
    assert lines_of([path], Dataset(name="d", path="a.csv"), {0, 1}) == {0: (path, 3), 1: (path, 4)}
    path.write_bytes(b"text;label\na;x\nb;y\n")
    assert lines_of([path], Dataset(name="d", path="a.csv", delimiter=";"), {1}) == {1: (path, 3)}


def test_it_is_part_of_what_decides_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text\none;two|three\n")
    found = {}
    for name in (None, ";", "|"):
        dataset = Dataset(name="d", path="a.csv", text="text", delimiter=name)
        path.write_bytes(b"text\none\n")
        table = ingest(path, dataset, tmp_path / "cache", Problems())
        assert table is not None
        found[name] = table.digest
    assert len(set(found.values())) == 3


@pytest.mark.parametrize("content", [b"", b"sep=;\n", b"sep=;"])
def test_a_file_without_a_header(content: bytes) -> None:
    assert read_content("a.csv", content)[1] == ["a.csv: holds no sentence"]
