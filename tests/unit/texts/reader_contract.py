"""What every reader of text files promises; a suite for one says its kind, its suffix, and how to write a file."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reading import zstd

from drillcore.errors import TextError
from drillcore.job.inputs import Dataset
from drillcore.texts.formats import READERS, format_of, read_rows
from drillcore.texts.problems import Problems
from drillcore.texts.read import read_batches

TEXTS = ["plain", "with , and ;", "größe ✓ 漢字", "trailing space ", "x" * 5000]


class ReaderContract:
    """kind: a row of READERS. fields: names of the fields that its files can hold, `text` among them."""

    kind = ""
    suffix = ""
    fields: tuple[str, ...] = ("text", "label")

    def write(self, path: Path, rows: list[dict[str, str]]) -> None:
        """Write rows as a file of this kind."""
        raise NotImplementedError

    def rows(self, seed: int, count: int = 50) -> list[dict[str, str]]:
        draw = np.random.default_rng(seed)
        return [{f: f"{draw.choice(TEXTS)}{i}" for f in self.fields} for i in range(count)]

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / f"rows{self.suffix}"

    def read(self, path: Path) -> tuple[list[tuple[int, Any]], list[tuple[int | None, str]]]:
        problems: list[tuple[int | None, str]] = []
        rows = list(read_rows(path, format_of(path), ("text",), lambda line, what: problems.append((line, what))))
        return rows, problems

    def test_its_suffix_leads_to_it(self, path: Path) -> None:
        assert format_of(path).kind == self.kind and self.suffix in READERS[self.kind].suffixes

    def test_rows_come_back_in_order_with_rising_lines(self, path: Path, seed: int) -> None:
        written = self.rows(seed)
        self.write(path, written)
        rows, problems = self.read(path)
        assert [fields for _, fields in rows] == written and problems == []
        lines = [line for line, _ in rows]
        assert lines == sorted(set(lines)) and lines[0] >= 1
        assert self.read(path) == (rows, [])

    def test_its_row_in_the_table_tells_of_types_and_columns(self, path: Path) -> None:
        written = [dict.fromkeys(self.fields, i) | {"text": f"sentence {i}"} for i in range(5)]
        self.write(path, written)
        rows = [fields for _, fields in self.read(path)[0]]
        as_read = int if READERS[self.kind].is_typed else str
        assert [row.get("label") for row in rows] == [as_read(i) if "label" in self.fields else None for i in range(5)]
        if READERS[self.kind].has_columns:
            assert {tuple(row) for row in rows} == {tuple(rows[0])}

    def test_compressed_files_are_read_where_the_table_says_so(self, path: Path, seed: int) -> None:
        self.write(path, self.rows(seed))
        content = path.read_bytes()
        for suffix, pack in ((".gz", gzip.compress), (".zst", zstd)):
            compressed = path.with_name(path.name + suffix)
            compressed.write_bytes(pack(content))
            if READERS[self.kind].is_compressible:
                assert self.read(compressed) == self.read(path)
            else:
                with pytest.raises(TextError, match="end of the name"):
                    format_of(compressed)

    def test_a_dataset_is_read_through_it(self, path: Path, seed: int) -> None:
        rows, problems = self.rows(seed), Problems()
        self.write(path, rows)
        batches = list(read_batches(path, Dataset(name="d", path=path.name), problems))
        assert [t for b in batches for t in b.column("text").to_pylist()] == [row["text"] for row in rows]
        assert problems.count == 0

    def test_an_empty_sentence_is_named_by_the_line_of_its_row(self, path: Path, seed: int) -> None:
        written, problems = self.rows(seed), Problems()
        self.write(path, written)
        lines = [line for line, _ in self.read(path)[0]]
        wrong = int(np.random.default_rng(seed).integers(len(written) - 1))
        written[wrong]["text"] = " "
        self.write(path, written)
        assert list(read_batches(path, Dataset(name="d", path=path.name), problems)) == []
        assert [problem.line for problem in problems.shown] == [lines[wrong]]

    def test_a_reader_that_is_left_early_closes_its_file(self, path: Path, seed: int) -> None:
        self.write(path, self.rows(seed))
        rows = read_rows(path, format_of(path), ("text",), lambda line, what: None)
        next(rows)
        rows.close()
        if Path("/proc/self/fd").is_dir():
            assert str(path) not in map(os.path.realpath, Path("/proc/self/fd").iterdir())

    def test_a_missing_or_damaged_file_is_a_problem_and_never_raises(self, path: Path, seed: int) -> None:
        assert self.read(path) == ([], [(None, "there is no such file")])
        path.write_bytes(b"\xff\xfe\x00\x01" * 50)
        rows, problems = self.read(path)
        assert problems and all(fields is None for _, fields in rows)

    def test_files_with_damaged_bytes_are_read_or_refused(self, path: Path, seed: int) -> None:
        draw = np.random.default_rng(seed)
        self.write(path, self.rows(seed))
        whole = path.read_bytes()
        for _ in range(30):
            damaged = bytearray(whole[: draw.integers(len(whole))])
            for place in draw.integers(len(damaged), size=3) if damaged else ():
                damaged[place] = draw.integers(256)
            path.write_bytes(damaged)
            rows, problems = self.read(path)
            assert problems or all(fields is not None for _, fields in rows)
