"""Adds rows at the end of a dataset's file: all of them checked beside it, then put in its place in one step."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drillcore.errors import CommitError, InputError, JobError, TextError
from drillcore.job.choices import did_you_mean
from drillcore.job.fields import LoadedJob
from drillcore.job.groups import by_template, positions_of, reading_of
from drillcore.job.inputs import Dataset
from drillcore.store.places.folder_lock import locked
from drillcore.system.bounds import problem_with, real_path
from drillcore.system.files import cache_dir, flush, replacing
from drillcore.texts.adding.convert import converted, exactly
from drillcore.texts.adding.given import NewRow
from drillcore.texts.adding.standing import Standing, look, names_in
from drillcore.texts.adding.write import check_encoding, lines_added, write_added
from drillcore.texts.files import files_of, format_for
from drillcore.texts.problems import Problems
from drillcore.texts.readers.lines import quoted
from drillcore.texts.rows import RowTable, ingest

PACKAGE = real_path(Path(__file__)).parents[1]
# Reads the rows to add, given the dataset, the fields of its file (None for any), and where problems go.
Reader = Callable[[Dataset, Sequence[str] | None, Problems], list[NewRow]]
# Raises what a run of the job would be refused for.
Check = Callable[[LoadedJob], None]


@dataclass(frozen=True)
class Added:
    """What was added. file: as the job names it. rows: added, 0 where they stood there already; before: in the file.

    left_out: of those added, rows that the dataset's settings leave out. also: other datasets of the job in that file.
    """

    file: Path
    rows: int
    before: int
    left_out: int = 0
    also: tuple[str, ...] = ()


def add_rows(loaded: LoadedJob, name: str, read: Reader, check: Check, *, again: bool = False) -> Added:
    """Add rows to the file of a dataset, the last of several; where its last rows are just these, nothing is done.

    again: add them all the same. check: gets the job as if the rows were there. The file is replaced in one step, and
    its bytes are on disk when this returns. Raises InputError, before anything is written, for rows or a dataset that
    cannot be; CommitError where the file cannot be written.
    """
    dataset = _named(loaded, name)
    file = _last_file(loaded, dataset)
    path = real_path(file)
    with _only_one(path, file):
        state = _state(path)
        rows, standing, written = _converted(dataset, file, read)
        also = tuple(d.name for d in loaded.job.datasets if d.name != name and path in _real(loaded, d))
        if not again and [*map(exactly, standing.tail)] == [*map(exactly, written)]:
            return Added(file, 0, standing.num_rows, also=also)
        with _saying(file, "It is as it was."), replacing(path, path.with_name(f".appending-{file.name}")) as scratch:
            write_added(standing, written, scratch)
            _like(path, scratch)
            flush(scratch)
            lines = lines_added(standing, written, rows, scratch)
            left_out = _Staged(loaded, file, scratch, rows, lines).check(dataset, check)
            if _state(path) != state:
                raise TextError(f"{file} changed meanwhile", hint="Run again once nothing else writes to it.")
        with _saying(file, "Its rows were added, and may be lost where the power fails now."):
            flush(path.parent)
    return Added(file, len(rows), standing.num_rows, left_out, also)


def _converted(dataset: Dataset, file: Path, read: Reader) -> tuple[list[NewRow], Standing, list[dict[str, Any]]]:
    """The new rows, the file that they are added to, and the rows as it is to hold them; raises TextError."""
    kind, problems = format_for(dataset, file), Problems()
    rows = read(dataset, names_in(file, kind), problems)
    problems.raise_if_any()
    standing = look(file, kind, len(rows), problems)
    problems.raise_if_any()
    written = converted(rows, standing, problems)
    problems.raise_if_any()
    check_encoding(written, rows, standing, problems)
    problems.raise_if_any()
    return rows, standing, written


@contextmanager
def _saying(file: Path, how_it_is: str) -> Iterator[None]:
    """Inside, what the system refuses is a CommitError on the file. how_it_is: then, in words."""
    try:
        yield
    except OSError as error:
        raise CommitError(
            f"{file} could not be written: {error.strerror or error}",
            hint=f"{how_it_is} Free space or fix its folder, then run the same command again.",
        ) from error


def _named(loaded: LoadedJob, name: str) -> Dataset:
    """The dataset of a name; raises JobError where there is none, TextError where its rows are in no file to add to."""
    names = [dataset.name for dataset in loaded.job.datasets]
    if name not in names:
        near = did_you_mean(name.partition("~")[0], names)
        raise JobError(f"{loaded.source} has no dataset {name}{near}", hint=f"It has {', '.join(names)}.")
    dataset = loaded.job.datasets[names.index(name)]
    if dataset.hub is not None:
        raise TextError(
            f"{name}: {dataset.hub.address} is on the hub, and rows are added to files only",
            hint="Add them there, or save the data set as a file (to_parquet of datasets) and name that in the job.",
        )
    return dataset


def _last_file(loaded: LoadedJob, dataset: Dataset) -> Path:
    """The file at the end of a dataset; raises TextError where no rows can be added to it."""
    paths = loaded.paths(dataset)
    file = files_of(paths)[-1]
    if problem := problem_with(file):
        raise TextError(f"{file}: {problem}", hint="Rows are added to a file that is there.")
    if paths[-1].is_dir():
        raise TextError(
            f"{paths[-1]} is a folder that save_to_disk wrote, to which no rows can be added",
            hint="Save it as one file (to_parquet of datasets) and name that in the job.",
        )
    if format_for(dataset, file).kind == "arrow":
        raise TextError(
            f"{file} is an Arrow file, to which no rows can be added",
            hint="Save it as .parquet (pandas.read_feather(...).to_parquet(...)) and name that in the job.",
        )
    if real_path(file).is_relative_to(PACKAGE):
        raise TextError(
            f"{file} belongs to drillcore itself, and no rows are added to it",
            hint="`drillcore demo` writes a copy into a folder of yours, or copy the file and the job.",
        )
    return file


def _real(loaded: LoadedJob, dataset: Dataset) -> list[Path]:
    """The files of a dataset, links followed; none where they cannot be told, which a check of the job says."""
    try:
        return [real_path(file) for file in files_of(loaded.paths(dataset))]
    except TextError:
        return []


@contextmanager
def _only_one(path: Path, file: Path) -> Iterator[None]:
    """Keep a second command from adding rows to the same file; raises TextError where one does."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except PermissionError:
            raise TextError(f"{file} may not be written", hint="Change its mode (chmod u+w), or its owner.") from None
        try:
            try:
                is_mine = locked(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                raise TextError(
                    f"{file} cannot be locked: {error.strerror or error}; two commands could add rows at once",
                    hint="Put it on a file system with locks, or add the rows by hand and run the job.",
                ) from None
            if not is_mine:
                raise TextError(f"another command is adding rows to {file}", hint="Wait for it, then run this again.")
            # Another one may have replaced it between opening and locking.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                yield
                return
        finally:
            os.close(descriptor)


def _state(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _like(path: Path, scratch: Path) -> None:
    """Give a file the owner, where that is allowed, and the mode of another one."""
    found = path.stat()
    with suppress(PermissionError):
        os.chown(scratch, found.st_uid, found.st_gid)
    scratch.chmod(stat.S_IMODE(found.st_mode))


@dataclass(frozen=True)
class _Staged:
    """The job as if the rows were there. lines: of the new rows in `scratch`, which is to take the place of `file`."""

    loaded: LoadedJob
    file: Path
    scratch: Path
    rows: Sequence[NewRow]
    lines: Sequence[int]

    def check(self, dataset: Dataset, check: Check) -> int:
        """How many new rows the dataset leaves out; raises InputError for what a run would be refused for."""
        job = self.loaded.job
        staged = tuple(self._with_scratch(each) for each in job.datasets)
        left_out = num_before = 0
        for before, after in zip(job.datasets, staged, strict=True):
            for old, new in zip(by_template(before), by_template(after), strict=True) if before != after else ():
                found = self._check_rows(old, new)
                num_before, left_out = found if before.name == dataset.name else (num_before, left_out)
        try:
            check(self.loaded.model_copy(update={"job": job.model_copy(update={"datasets": staged})}))
        except InputError as error:
            which = f" Of {dataset.name}, sentences from {num_before:,} on are the new rows."
            hint = self._in_words(error.hint) + (which if ": sentence " in str(error) else "")
            raise type(error)(self._in_words(str(error)), hint=hint) from None
        return left_out

    def _with_scratch(self, dataset: Dataset) -> Dataset:
        """A dataset with the file as it is to be; itself where it has no such file."""
        path = real_path(self.file)
        if path not in _real(self.loaded, dataset):
            return dataset
        files = files_of(self.loaded.paths(dataset))
        named = tuple(str(self.scratch if real_path(file) == path else file) for file in files)
        return dataset.model_copy(update={"path": named})

    def _check_rows(self, old: Dataset, new: Dataset) -> tuple[int, int]:
        """How many sentences a dataset had, and how many new rows it leaves out.

        Raises TextError where it cannot be read, or columns change between numbers and text.
        """
        problems, rows = _Places(self), list[RowTable | None]()
        for dataset, found in ((old, Problems()), (new, problems)):
            reading = reading_of(dataset, positions_of(self.loaded.job, dataset))
            files = [Path(path) for path in new.paths] if dataset is new else self.loaded.paths(dataset)
            rows.append(ingest(files, reading, cache_dir() / "rows", found))
        problems.raise_if_any()
        before, after = rows
        assert after is not None  # there is no problem
        if before is None:  # it had no row yet
            return 0, len(self.rows) - after.num_rows
        for column in before.columns:
            if before.holds_numbers(column) and not after.holds_numbers(column):
                raise self._changed(new, column, "numbers", "text")
            if after.holds_numbers(column) and not before.holds_numbers(column):
                raise self._changed(new, column, "text", "numbers")
        if new.limit is not None and before.num_rows + len(self.rows) > new.limit:
            raise TextError(
                f"{new.name}: the dataset takes its first {new.limit:,} rows, and would not take all of these",
                hint=f"Raise `limit` of {new.name}, or leave it out.",
            )
        return before.num_rows, before.num_rows + len(self.rows) - after.num_rows

    def _changed(self, dataset: Dataset, column: str, before: str, after: str) -> TextError:
        return TextError(
            f"{dataset.name}: {quoted(column)} holds {before}, and with these rows it would hold {after}",
            hint="Look for a value of the other kind in the new rows; where it is meant, add them by hand.",
        )

    def place(self, line: int | None) -> tuple[str, int | None]:
        """Where a line of the scratch file is for the user: in the file, or in that of the new rows."""
        if line is None or not self.lines or line < self.lines[0]:
            return str(self.file), line
        new = self.rows[bisect_right(self.lines, line) - 1]
        return new.source.called, new.line

    def _in_words(self, message: str) -> str:
        def named(found: re.Match[str]) -> str:
            file, line = self.place(int(found[1]) if found[1] else None)
            return file if line is None else f"{file}:{line}"

        return re.sub(re.escape(str(self.scratch)) + r"(?::(\d+))?", named, message)


class _Places(Problems):
    """Problems with a file that is not in its place yet, each with the place that the user knows."""

    def __init__(self, staged: _Staged) -> None:
        super().__init__()
        self._staged = staged

    def add(self, file: str, line: int | None, message: str) -> None:
        """Keep or count one more problem."""
        if file == str(self._staged.scratch):
            file, line = self._staged.place(line)
        super().add(file, line, message)
