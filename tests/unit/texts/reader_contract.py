"""What every reader of text files promises; a suite for one says its kind, its suffix, and how to write a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drillcore.job.fields import Dataset
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
        found = list(read_rows(path, format_of(path), ("text",), lambda line, what: problems.append((line, what))))
        return found, problems

    def test_its_suffix_leads_to_it(self, path: Path) -> None:
        assert format_of(path).kind == self.kind and self.suffix in READERS[self.kind].suffixes

    def test_rows_come_back_in_order_with_rising_lines(self, path: Path, seed: int) -> None:
        rows = self.rows(seed)
        self.write(path, rows)
        found, problems = self.read(path)
        assert [fields for _, fields in found] == rows and problems == []
        lines = [line for line, _ in found]
        assert lines == sorted(set(lines)) and lines[0] >= 1

    def test_a_dataset_is_read_through_it(self, path: Path, seed: int) -> None:
        rows, problems = self.rows(seed), Problems()
        self.write(path, rows)
        batches = list(read_batches(path, Dataset(name="d", path=path.name), problems))
        assert [t for b in batches for t in b.column("text").to_pylist()] == [row["text"] for row in rows]
        assert problems.count == 0

    def test_a_missing_or_damaged_file_is_a_problem_and_never_raises(self, path: Path, seed: int) -> None:
        assert self.read(path) == ([], [(None, "there is no such file")])
        path.write_bytes(b"\xff\xfe\x00\x01" * 50)
        found, problems = self.read(path)
        assert problems and all(fields is None for _, fields in found)
