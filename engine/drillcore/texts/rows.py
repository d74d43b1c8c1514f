"""Rows on disk: a dataset's sentences and columns in one memory-mapped Arrow IPC file, written once for each content.

Owns the key of an entry, which is the rows' digest, and the content hash of a text. The entry's facts are what the user
should know of the rows. One that is wrong is never read: the rows are read from the dataset's file again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from drillcore.errors import RunError
from drillcore.job.inputs import Dataset
from drillcore.system.bounds import problem_with
from drillcore.system.cached import Draft, Entry, Opened, WrongEntry
from drillcore.system.files import file_digest, release
from drillcore.texts.files import files_of, format_for
from drillcore.texts.formats import explain_damage, format_of
from drillcore.texts.hub import commit_to_read, copy_of, place_of_copy
from drillcore.texts.notes import NOTES_VERSION, Notes
from drillcore.texts.problems import Problems
from drillcore.texts.prompts import RULES
from drillcore.texts.read import read_batches

FORMAT_VERSION = 1
"""Increase this whenever the same file and settings would give other rows."""
ALWAYS = {"text", "label", "group", "expected_next", "keep", "limit"}
OF_NO_ROW = {
    *("name", "path", "candidates", "template", "chat", "cannot_follow"),
    *("add_generation_prompt", "positions", "branches", "templates", "revision"),
}
"""Fields of a dataset that decide no row; of a template, only one of Jinja does."""
NUMBER_LABELS = "-number"
"""Ends the digest of rows whose labels are numbers: the same file and job had none, or strings, in earlier versions."""
ROW_ID_BYTES = 16


@dataclass(frozen=True)
class RowTable:
    """The rows of one dataset. Cheap to send to another process, which gets the path and maps the file itself.

    `digest` is the SHA-256 (hex) of the source's bytes, or its commit on the hub, and of the settings that shape the
    rows, and says whether labels are numbers. `notes`: what is nearly right in the file, a line each, for the user.
    `files`: that the rows stand in, of the hub a copy. `commit`: of the hub.
    """

    path: Path
    num_rows: int
    digest: str
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = field(default=(), compare=False)
    commit: str = ""

    @cached_property
    def _mapped(self) -> tuple[mmap.mmap, pa.Table]:
        entry = _entry(self.path.parent, self.digest.removesuffix(NUMBER_LABELS))
        try:
            return _map(entry.open())
        except (OSError, WrongEntry, ValueError) as error:
            hint = "Run again: they will be created again."
            raise RunError(f"{self.path}: cannot read the cached rows: {error}", hint=hint) from error

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
        """The distinct strings of a column; none where the rows do not have it, or it holds numbers."""
        if column not in self.columns or self.holds_numbers(column):
            return []
        values = list(self._mapped[1].column(column).unique().to_pylist())
        self.release()
        return values

    def holds_numbers(self, column: str) -> bool:
        """Whether a column is there and its values are numbers."""
        return column in self.columns and self._mapped[1].schema.field(column).type != pa.string()

    def release(self) -> None:
        """Give back the memory of rows that were read; tables from `slice` stay valid."""
        release(self._mapped[0])


def row_ids(texts: Sequence[str]) -> list[str]:
    """Content hash of each text: the first 16 bytes of the SHA-256 of its UTF-8, as 32 hex digits.

    >>> row_ids(["a", "é"])
    ['ca978112ca1bbdcafac231b39a23dc4d', '4a99557e4033c3539de2eb65472017ca']
    """
    return [hashlib.sha256(text.encode()).hexdigest()[: 2 * ROW_ID_BYTES] for text in texts]


def ingest(paths: Path | Sequence[Path], dataset: Dataset, cache: Path, problems: Problems) -> RowTable | None:
    """The rows of a dataset's files, read now or taken from the cache; None where `problems` says what is wrong.

    paths: none of a data set of the hub.

    Raises:
        TextError: a file's name has no known ending, or a path names no file or several that are no dataset; or there
            is no such data set on the hub.
        MissingExtraError: the package that reads the hub is not installed.
        RunError: the cache cannot be written.
    """
    if dataset.hub is not None:
        return _ingest_from_hub(dataset, cache, problems)
    files, before = files_of([paths] if isinstance(paths, Path) else paths), problems.count
    for file in files:
        format_of(file)
        if problem := problem_with(file):
            problems.add(str(file), None, problem)
    if problems.count > before:
        return None
    states, digests = [_state(file) for file in files], list[str]()
    for file in files:
        try:
            digests.append(file_digest(file))
        except OSError as error:
            problems.add(str(file), None, explain_damage(error, format_of(file)))
            return None
    entry = _entry(cache, _digest(*_source(files, digests), dataset))
    parse = partial(_table, entry, files)
    table = entry.read(parse)
    if table is None and _fill(entry, files, states, dataset, problems):
        table = entry.read_back(parse)
    return table


def _ingest_from_hub(dataset: Dataset, cache: Path, problems: Problems) -> RowTable | None:
    """The same for a data set of the hub, at the commit that its revision names now."""
    commit, hub = commit_to_read(dataset), dataset.hub
    assert hub is not None
    entry = _entry(cache, _digest("hub", [hub.repo, commit, hub.config, hub.split], dataset))
    parse = partial(_table, entry, [place_of_copy(dataset, commit)], commit=commit)
    table = entry.read(parse)
    if table is None:
        file = copy_of(dataset, commit)
        if _fill(entry, [file], [_state(file)], dataset, problems):
            table = entry.read_back(parse)
    return table


def _entry(cache: Path, digest: str) -> Entry:
    return Entry(cache, digest, "rows", NOTES_VERSION)


def _table(entry: Entry, files: Sequence[Path], opened: Opened, commit: str = "") -> RowTable:
    """The rows of an entry; raises ValueError where it holds something else."""
    if not isinstance(opened.facts, list):
        raise ValueError
    mapped, rows = _map(opened)
    names, notes = tuple(rows.column_names), tuple(map(str, opened.facts))
    found = "label" in names and rows.schema.field("label").type == pa.float64()
    digest = entry.key + NUMBER_LABELS * found
    table = RowTable(entry.path, rows.num_rows, digest, names, notes, files=tuple(files), commit=commit)
    vars(table)["_mapped"] = mapped, rows  # checked already
    return table


def _state(path: Path) -> tuple[int, ...]:
    """Inode, size and time of change of a file; empty when it is gone."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _source(files: Sequence[Path], digests: Sequence[str]) -> tuple[Any, Any]:
    """What the files of rows are, and the digests of their bytes. digests: of the files, in their order."""
    kinds = [
        [kind.kind, kind.compression, *([kind.reader.rules] if kind.reader.rules > 1 else [])]
        for kind in map(format_of, files)
    ]
    # Of a single file as earlier versions wrote it.
    return (kinds[0], digests[0]) if len(files) == 1 else (kinds, list(digests))


def _digest(kind: Any, source: Any, dataset: Dataset) -> str:
    """The digest of rows."""
    settings = {"version": FORMAT_VERSION, "kind": kind, "source": source, **_settings(dataset)}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _settings(dataset: Dataset) -> dict[str, Any]:
    """The fields that decide rows: every one unless it is known not to.

    Those that came later are left out while they have their default, so that rows, and what was made of them, keep
    their digest.
    """
    fields = type(dataset).model_fields
    # Another dataset that a probe is tested on decides no row.
    aside = OF_NO_ROW if dataset.tested_on is None else {*OF_NO_ROW, "split"}
    deciding = dataset.model_dump(exclude=aside).items()
    kept = {name: value for name, value in deciding if name in ALWAYS or value != fields[name].get_default()}
    if dataset.prompt is not None:
        kept["template"] = [RULES, dataset.prompt]
    # The key of earlier versions, which could not ignore labels: null was what is auto now.
    return {**kept, "label": {"auto": None, None: False}.get(dataset.label, dataset.label)}


class _RowsAreWrong(Exception):
    """The problems say what is wrong: nothing is written to the cache."""


def _fill(
    entry: Entry, files: Sequence[Path], states: Sequence[tuple[int, ...]], dataset: Dataset, problems: Problems
) -> bool:
    """Write the rows of files; False where something is wrong. states: of the files when their digests were taken.

    Two processes may do so at the same moment: what they write is the same.
    """
    before, notes = problems.count, Notes(dataset, format_for(dataset, files[0]).kind)
    with contextlib.suppress(_RowsAreWrong), entry.writing() as draft:
        _write(draft, read_batches(files, dataset, problems, notes))
        if problems.count == before:
            for file in (f for f, state in zip(files, states, strict=True) if _state(f) != state):
                problems.add(str(file), None, "changed while it was read")
        if problems.count > before:
            raise _RowsAreWrong
        draft.facts = list(notes.lines())
    return problems.count == before


def _write(draft: Draft, batches: Iterable[pa.RecordBatch]) -> None:
    with contextlib.ExitStack() as closing:
        writer = None
        for batch in batches:
            writer = writer or closing.enter_context(pa.ipc.new_file(draft, batch.schema))
            writer.write_batch(batch)


def _map(opened: Opened) -> tuple[mmap.mmap, pa.Table]:
    """The mapped file and its rows; raises pa.ArrowInvalid, a ValueError, where there is no table in it."""
    return opened.mapped, pa.ipc.open_file(pa.BufferReader(pa.py_buffer(opened.data))).read_all()
