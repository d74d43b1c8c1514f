"""Rows added to a dataset from Python, and the run that computes them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from drillcore.api.given import AnyPath
from drillcore.api.job import Job, asked_job, nearby
from drillcore.api.progress import listener
from drillcore.api.run import Run, chosen_stages, ended
from drillcore.api.texts import are_files, column, list_of_texts
from drillcore.errors import InputError, RunError, TextError
from drillcore.job.fields import LoadedJob
from drillcore.job.inputs import Dataset
from drillcore.runtime.appending import Added, add_rows
from drillcore.runtime.rows import read_tables
from drillcore.runtime.runner import check_run, run_stages
from drillcore.runtime.session import Session
from drillcore.store.places.location import Location
from drillcore.system.progress import ProgressListener, Silent, counted
from drillcore.texts.adding.given import NewRow, Source, read_files
from drillcore.texts.problems import Problems


@dataclass(frozen=True)
class Appended:
    """What was added to a dataset's file, and the run that followed.

    file: that the rows are in. rows: added, 0 where they stood at its end already; before: rows that it had. left_out:
    of those added, rows that the dataset's settings leave out. also: other datasets of the job that are in this file.
    run: None where none was asked for.
    """

    file: Path
    rows: int
    before: int
    left_out: int = 0
    also: tuple[str, ...] = ()
    run: Run | None = None

    def lines(self) -> Iterator[str]:
        """As the terminal shows it."""
        yield from lines_on(Added(self.file, self.rows, self.before, self.left_out, self.also))

    def __repr__(self) -> str:
        return "\n".join(self.lines())


def append(
    job: Job | AnyPath | Mapping[str, Any],
    dataset: str,
    rows: AnyPath | Sequence[str] | Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]] | Any,
    *,
    again: bool = False,
    run: bool = True,
    set: Sequence[str] = (),
    store: AnyPath | None = None,
    overwrite: bool = False,
    stages: Literal["all"] | Sequence[str] = "all",
    progress: bool | ProgressListener | None = None,
) -> Appended:
    """Add rows at the end of a dataset's file, the last of several, and run the job, which computes only those.

    rows: a file with the same fields, in any format that a dataset may have; or a table (pandas, polars, pyarrow), a
    mapping of columns, a list of rows by field, or a list of texts. Where the file ends in just these rows already,
    nothing is added, so that a call can be repeated. again: add them all the same. run: whether the job runs
    afterwards. set, store, overwrite, stages, progress: as for `run`. The file is replaced in one step.

    Raises InputError, before anything is written, for rows that the dataset cannot take, or a job that would be
    refused; and the other errors of `drillcore.errors`.

    >>> drillcore.append("job.yaml", "sentences", [{"text": "the sea is", "label": "a"}])
    added 1 row to sentences.jsonl (12 before)
    >>> drillcore.open("runs/job.zarr")["model/sentences"].sizes["sentence"]
    13
    """
    chosen, heard = chosen_stages(stages), listener(progress, logged=False)
    asked = asked_job(job, set, store, None)
    loaded = asked.loaded

    def read(to: Dataset, names: Sequence[str] | None, problems: Problems) -> list[NewRow]:
        if isinstance(rows, str | os.PathLike):
            return read_files([Path(rows)], to, names, problems)
        return rows_in_memory(rows)

    if not run:
        added = add_rows(loaded, dataset, read, check_rows, again=again)
        return Appended(**vars(added))
    with closing(Session()) as session:

        def check(staged: LoadedJob) -> None:
            check_run(staged, chosen, session, overwrite=overwrite)

        added = add_rows(loaded, dataset, read, check, again=again)
        heard.say("; ".join([*lines_on(added), what_follows(loaded, added)]))
        with after_adding(added):
            folder = run_stages(loaded, chosen, heard, overwrite=overwrite, session=session)
    return Appended(**vars(added), run=ended(asked, chosen, folder))


@contextmanager
def after_adding(added: Added) -> Iterator[None]:
    """Inside, what refuses a run is no refusal of the whole command: the rows stay where they are."""
    try:
        yield
    except InputError as error:
        if not added.rows:
            raise
        what = f"{counted(added.rows, 'rows')} were added to {added.file}, and then the run was refused"
        raise RunError(f"{what}: {error}", hint=error.hint) from error


def check_rows(staged: LoadedJob) -> None:
    """Raise what the rows of a job would be refused for."""
    read_tables(staged, Silent())


def lines_on(added: Added) -> Iterator[str]:
    """What was added, in words."""
    file = nearby(str(added.file))
    if not added.rows:
        yield f"{file} ends in these rows already: nothing was added (--again, or again=True, adds them all the same)"
        return
    yield f"added {counted(added.rows, 'rows')} to {file} ({added.before:,} before)"
    if added.left_out:
        yield f"{added.left_out:,} of them are left out, as the dataset says"
    if added.also:
        yield f"{', '.join(added.also)} read this file too"


def what_follows(loaded: LoadedJob, added: Added) -> str:
    """What the run will compute, in words."""
    location = Location(loaded.store)
    if not location.is_s3 and not location.path.exists():
        return "there is no store yet, so that all rows are computed"
    return "computing only those" if added.rows else "computing what is not there yet"


def rows_in_memory(rows: Any) -> list[NewRow]:
    """Rows as a notebook holds them; raises TypeError or TextError for anything else.

    >>> [row.fields for row in rows_in_memory({"text": ["a", "b"], "label": [1, None]})]
    [{'text': 'a', 'label': 1}, {'text': 'b', 'label': None}]
    """
    names = getattr(rows, "column_names", getattr(rows, "columns", None))
    if isinstance(rows, Mapping) or names is not None:
        names = list(rows if names is None else names)
        if not all(isinstance(name, str) for name in names) or len({*names}) < len(names):
            raise TypeError("the columns of rows must have names, each its own")
        count = max((len(rows[name]) for name in names if isinstance(rows[name], Sized)), default=0)
        columns = [column(name, rows[name], count) for name in names]
        fields = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    elif isinstance(rows, list | tuple) and rows and all(isinstance(row, Mapping) for row in rows):
        fields = [dict(row) for row in rows]
        wrong = next((name for row in fields for name in row if not isinstance(name, str)), None)
        if wrong is not None:
            raise TypeError(f"the fields of a row must have names, not {wrong!r}")
    else:
        if isinstance(rows, list | tuple) and rows and are_files(rows):
            raise TextError(f"{rows[0]} is a file, and its name would be taken as a text", hint="Pass one path alone.")
        fields = [{"text": text} for text in list_of_texts(rows)]
    if not fields:
        raise TextError("there is no row to add", hint="Pass at least one.")
    return [NewRow(Source(f"rows[{number}]"), None, each) for number, each in enumerate(fields)]
