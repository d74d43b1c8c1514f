"""The contract of readers, on every row of the table and on a reader that a user adds."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reader_contract import ReaderContract

from drillcore.texts.formats import READERS, Reader


class TestJsonl(ReaderContract):
    kind, suffix = "jsonl", ".jsonl"

    def write(self, path: Path, rows: list[dict[str, str]]) -> None:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


class TestCsv(ReaderContract):
    kind, suffix = "csv", ".csv"

    def write(self, path: Path, rows: list[dict[str, str]]) -> None:
        with path.open("w", encoding="utf-8", newline="") as stream:
            table = csv.DictWriter(stream, self.fields)
            table.writeheader()
            table.writerows(rows)


class TestTsv(ReaderContract):
    kind, suffix = "tsv", ".tsv"

    def write(self, path: Path, rows: list[dict[str, str]]) -> None:
        lines = ["\t".join(map(str, record)) for record in [self.fields, *(row.values() for row in rows)]]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


class TestPlain(ReaderContract):
    kind, suffix, fields = "txt", ".txt", ("text",)

    def write(self, path: Path, rows: list[dict[str, str]]) -> None:
        path.write_text("".join(row["text"] + "\n" for row in rows), encoding="utf-8")


class TestParquet(ReaderContract):
    kind, suffix = "parquet", ".parquet"

    def write(self, path: Path, rows: list[dict[str, str]]) -> None:
        pq.write_table(pa.Table.from_pylist(rows), path)


class TestJsonArray(ReaderContract):
    kind, suffix = "json", ".json"

    def write(self, path: Path, rows: list[dict[str, str]]) -> None:
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


class TestArrow(ReaderContract):
    kind, suffix = "arrow", ".arrow"

    def write(self, path: Path, rows: list[dict[str, str]]) -> None:
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=7)


class TestArrowStream(TestArrow):
    """As `datasets` writes its files."""

    def write(self, path: Path, rows: list[dict[str, str]]) -> None:
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=7)


TOY = '''
"""Records as blocks of `field: value` lines, with a blank line between two."""


def read_records(file, wanted, on_problem):
    fields, begin = {}, 0
    for number, line in [*file.lines(on_problem), (0, "")]:
        if line:
            name, colon, value = line.partition(": ")
            if not colon:
                on_problem(number, "has no colon")
                yield number, None
                return
            begin = begin or number
            fields[name] = value
        elif fields:
            yield begin, fields
            fields, begin = {}, 0
'''


class TestAReaderThatIsAdded(ReaderContract):
    """One file and one row in the table."""

    kind, suffix = "records", ".rec"

    @pytest.fixture(autouse=True)
    def add(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "toy_reader.py").write_text(TOY, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        row = Reader((".rec",), "toy_reader:read_records", is_typed=False, has_columns=False)
        monkeypatch.setitem(READERS, "records", row)

    def write(self, path: Path, rows: list[dict[str, str]]) -> None:
        blocks = ["".join(f"{name}: {value}\n" for name, value in row.items()) for row in rows]
        path.write_text("\n".join(blocks), encoding="utf-8")


def test_every_reader_of_the_table_is_held_to_the_contract() -> None:
    suites = [TestJsonl, TestCsv, TestTsv, TestPlain, TestParquet, TestJsonArray, TestArrow]
    assert [suite.kind for suite in suites] == list(READERS)
