"""Rows on disk: a dataset's sentences and columns in one memory-mapped Arrow IPC file, written once for each content.

Owns the cache's names, its checksums and the content hash of a text. A cached file is `<key>.arrow` beside
`<key>.sha256`, the checksum of its bytes, and `<key>.notes`, what the user should know of the rows; where the first two
do not agree, or one is missing, the rows are read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from drillcore.errors import RunError
from drillcore.job.fields import Dataset
from drillcore.system.files import file_digest, map_file, release, replacing, write_atomic
from drillcore.texts.formats import Format, explain_damage, format_of, problem_with
from drillcore.texts.notes import NOTES_VERSION, Notes
from drillcore.texts.problems import Problems
from drillcore.texts.read import read_batches

FORMAT_VERSION = 1
"""Increase this whenever the same file and settings would give other rows."""
ALWAYS = {"text", "label", "group", "expected_next", "keep", "limit"}
OF_NO_ROW = {"name", "path", "candidates", "template", "chat", "cannot_follow"}
"""Fields of a dataset that decide no row."""
ROW_ID_BYTES = 16
STALE_SECONDS = 24 * 3600


@dataclass(frozen=True)
class RowTable:
    """The rows of one dataset. Cheap to send to another process, which gets the path and maps the file itself.

    `digest` is the SHA-256 (hex) of the source's bytes and of the settings that shape the rows. `notes`: what is nearly
    right in the file, a line each, for the user.
    """

    path: Path
    num_rows: int
    digest: str
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def _mapped(self) -> tuple[mmap.mmap, pa.Table]:
        return _map(self.path)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the map: pickling a pa.Table copies all of its rows."""
        return {name: value for name, value in self.__dict__.items() if name != "_mapped"}

    def slice(self, start: int, stop: int) -> pa.Table:
        """Rows start .. stop - 1 with all columns, as views of the mapped file.

        Raises:
            IndexError: not 0 <= start <= stop <= num_rows.
        """
        if not 0 <= start <= stop <= self.num_rows:
            raise IndexError(f"rows {start}..{stop} of {self.num_rows}")
        return self._mapped[1].slice(start, stop - start)

    def texts(self, start: int, stop: int) -> list[str]:
        """Sentences start .. stop - 1.

        Raises:
            IndexError: not 0 <= start <= stop <= num_rows.
        """
        sentences = list(self.slice(start, stop).column("text").to_pylist())
        self.release()
        return sentences

    def distinct(self, column: str) -> list[str]:
        """The distinct strings of a column; none where the rows do not have it."""
        if column not in self.columns:
            return []
        values = list(self._mapped[1].column(column).unique().to_pylist())
        self.release()
        return values

    def release(self) -> None:
        """Give back the memory of rows that were read; tables from `slice` stay valid."""
        release(self._mapped[0])


def row_ids(texts: Sequence[str]) -> list[str]:
    """Content hash of each text: the first 16 bytes of the SHA-256 of its UTF-8, as 32 hex digits.

    >>> row_ids(["a", "é"])
    ['ca978112ca1bbdcafac231b39a23dc4d', '4a99557e4033c3539de2eb65472017ca']
    """
    return [hashlib.sha256(text.encode()).hexdigest()[: 2 * ROW_ID_BYTES] for text in texts]


def ingest(path: Path, dataset: Dataset, cache: Path, problems: Problems) -> RowTable | None:
    """The rows of a dataset, read now or taken from the cache; None where `problems` says what is wrong.

    Raises:
        TextError: the file's name has no known ending.
        RunError: the cache cannot be written.
    """
    kind = format_of(path)
    problem = problem_with(path)
    if problem:
        problems.add(str(path), None, problem)
        return None
    try:
        state = _state(path)
        digest = _digest(path, kind, dataset)
    except OSError as error:
        problems.add(str(path), None, explain_damage(error, kind))
        return None
    target = cache / f"{digest}.arrow"
    if not _is_whole(target):
        before = problems.count
        _fill(target, path, dataset, problems)
        if problems.count == before and _state(path) != state:
            problems.add(str(path), None, "changed while it was read")
            target.unlink(missing_ok=True)
        if problems.count > before:
            return None
    _, table = _map(target)
    return RowTable(target, table.num_rows, digest, tuple(table.column_names), _read_notes(target) or ())


def _state(path: Path) -> tuple[int, ...]:
    """Inode, size and time of change of a file; empty when it is gone."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _digest(path: Path, kind: Format, dataset: Dataset) -> str:
    settings = {
        "version": FORMAT_VERSION,
        "kind": [kind.kind, kind.compression, *([kind.reader.rules] if kind.reader.rules > 1 else [])],
        "source": file_digest(path),
        **_settings(dataset),
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _settings(dataset: Dataset) -> dict[str, Any]:
    """The fields that decide rows: every one unless it is known not to.

    Those that came later are left out while they have their default, so that rows, and what was made of them, keep
    their digest.
    """
    fields = type(dataset).model_fields
    deciding = dataset.model_dump(exclude=OF_NO_ROW).items()
    kept = {name: value for name, value in deciding if name in ALWAYS or value != fields[name].get_default()}
    # The key of earlier versions, which could not ignore labels: null was what is auto now.
    return {**kept, "label": {"auto": None, None: False}.get(dataset.label, dataset.label)}


def _checksum_path(target: Path) -> Path:
    return target.with_suffix(".sha256")


def _read_notes(target: Path) -> tuple[str, ...] | None:
    """What was noted when the rows were read; None where that is not known."""
    try:
        version, *lines = json.loads(target.with_suffix(".notes").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return None
    return tuple(map(str, lines)) if version == NOTES_VERSION else None


def _is_whole(target: Path) -> bool:
    try:
        return _read_notes(target) is not None and _checksum_path(target).read_bytes() == file_digest(target).encode()
    except OSError:
        return False


class _RowsAreWrong(Exception):
    """The problems say what is wrong: nothing is written to the cache."""


def _fill(target: Path, path: Path, dataset: Dataset, problems: Problems) -> None:
    """Write the rows under a scratch name and rename the file, so that nobody ever reads a half-written one.

    Two processes may do so at the same moment: their bytes are the same, or the checksum shows that they are not.
    """
    before = problems.count
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent)
        handle, name = tempfile.mkstemp(prefix="rows-", suffix=".tmp", dir=target.parent)
        os.close(handle)
        notes = Notes(dataset, format_of(path).kind)
        with contextlib.suppress(_RowsAreWrong), replacing(target, Path(name)) as scratch:
            _write(scratch, read_batches(path, dataset, problems, notes))
            if problems.count > before:
                raise _RowsAreWrong
            write_atomic(target.with_suffix(".notes"), json.dumps([NOTES_VERSION, *notes.lines()]).encode())
            _checksum_path(target).write_text(file_digest(scratch))
    except OSError as error:
        hint = "Free some space, or name another folder in XDG_CACHE_HOME."
        raise RunError(f"{target.parent}: cannot write rows there: {error.strerror or error}", hint=hint) from error


def _write(target: Path, batches: Iterator[pa.RecordBatch]) -> None:
    first = next(batches, None)
    if first is None:
        return
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, first.schema) as writer:
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)


def _sweep(cache: Path) -> None:
    """Remove old scratch files, which killed runs left half-written."""
    for scratch in cache.glob("rows-*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if scratch.stat().st_mtime < time.time() - STALE_SECONDS:
                scratch.unlink()


def _map(path: Path) -> tuple[mmap.mmap, pa.Table]:
    try:
        mapped = map_file(path)
        return mapped, pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped))).read_all()
    except (OSError, ValueError, pa.ArrowException) as error:
        hint = "Run again: they will be created again."
        raise RunError(f"{path}: cannot read the cached rows: {error}", hint=hint) from error
