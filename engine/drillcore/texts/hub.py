"""Rows of a data set of the Hugging Face hub: a split at one commit, read through `datasets`, copied into the cache.

The copy holds the columns and the rows that the job takes, as Arrow; what is read further on is the copy. Digests of
rows name the commit, so that neither the copy nor the hub is needed where the rows themselves are in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from drillcore.errors import DrillcoreError, MissingExtraError, TextError
from drillcore.job.hub import COMMIT, HubRows
from drillcore.job.inputs import Dataset
from drillcore.system.cached import Entry, Opened
from drillcore.system.files import cache_dir, digest
from drillcore.system.hub import OF_NETWORK, TOKEN_HINT, asking, commit_of
from drillcore.system.logs import take_over_logs
from drillcore.system.progress import tell
from drillcore.texts.columns import fields_named
from drillcore.texts.nested import with_nested
from drillcore.texts.readers.parquet import columns_of_table, rows_of_batch
from drillcore.texts.survey import Labels, taken

# Increase this where the same commit would give another copy.
VERSION = 1
ROWS_AT_A_TIME = 1000
# What decides how many rows are taken, beside the fields that are read.
TAKING = {"limit", "empty", "unlabelled", "label", "missing", "text", "messages"}


def commit_to_read(dataset: Dataset) -> str:
    """The commit that a dataset's revision names: asked of the hub, or, offline, as it was when the hub last answered.

    Raises TextError where the hub has none or cannot be asked.
    """
    hub, revision = _hub(dataset), dataset.revision or "main"
    if COMMIT.fullmatch(revision):
        return revision
    with asking(hub.repo, revision, TextError) as library:
        endpoint, is_offline = library.constants.ENDPOINT, library.constants.HF_HUB_OFFLINE
    key = digest([endpoint, hub.repo, revision])
    entry = Entry(cache_dir() / "hub-commits", key, "the commit of a revision")
    known = entry.read(_commit)
    if not is_offline:
        commit = commit_of(hub.repo, revision, TextError)
        if commit != known:
            entry.write(commit)
        return commit
    if known is None:
        raise TextError(
            f"{hub.address}: HF_HUB_OFFLINE is set, and no earlier run asked which commit {revision} is",
            hint="Unset HF_HUB_OFFLINE, or name a commit in `revision:` whose rows an earlier run has read.",
        )
    tell(f"{hub.address}: HF_HUB_OFFLINE is set: {revision} is taken to be the commit that it was when last asked")
    return known


def copy_of(dataset: Dataset, commit: str) -> Path:
    """The file in the cache, a stream of Arrow, that holds the rows of a dataset; made where it is not there yet.

    Raises TextError where they cannot be read, MissingExtraError where `datasets` is not installed, RunError where the
    cache cannot be written.
    """
    entry = _entry(dataset, commit)
    if entry.read(_whole) is None:
        with entry.writing() as draft:
            _write(draft, _tables(dataset, commit), _hub(dataset))
        entry.read_back(_whole)
    return entry.path


def place_of_copy(dataset: Dataset, commit: str) -> Path:
    """Where that file is, or would be."""
    return _entry(dataset, commit).path


def _hub(dataset: Dataset) -> HubRows:
    hub = dataset.hub
    assert hub is not None
    return hub


def _entry(dataset: Dataset, commit: str) -> Entry:
    hub, taking = _hub(dataset), dataset.model_dump(mode="json", include=TAKING) if dataset.limit else None
    key = digest([VERSION, hub.repo, commit, hub.config, hub.split, sorted(set(fields_named(dataset))), taking])
    return Entry(cache_dir() / "hub-rows", key, "rows of the hub", VERSION)


def _commit(opened: Opened) -> str:
    if not isinstance(opened.facts, str) or not COMMIT.fullmatch(opened.facts):
        raise ValueError
    return opened.facts


def _whole(opened: Opened) -> bool:
    """Whether an entry is there: its bytes were checked when it was opened."""
    return bool(opened.facts == "rows")


def _write(draft: Any, tables: Iterator[pa.Table], hub: HubRows) -> None:
    """Write tables as one stream of Arrow; raises TextError where there is no row, or a column changes its type."""
    first = next(tables, None)
    if first is None:
        raise TextError(f"{hub.address} holds no row", hint="Name another split.")
    with pa.ipc.new_stream(draft, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(_as(table, first.schema, hub))
    draft.facts = "rows"


def _as(table: pa.Table, schema: pa.Schema, hub: HubRows) -> pa.Table:
    """A table with the columns of the first one; those that it lacks are null."""
    columns = []
    for field in schema:
        column = table.column(field.name) if field.name in table.column_names else pa.nulls(len(table))
        try:
            columns.append(column.cast(field.type))
        except pa.ArrowException:
            raise TextError(
                f"{hub.address}: the column {field.name} is of type {field.type} in the first rows and "
                f"{column.type} in later ones",
                hint="Choose another column, or a `limit:` before those rows.",
            ) from None
    return pa.table(columns, schema=schema)


def _tables(dataset: Dataset, commit: str) -> Iterator[pa.Table]:
    """The rows, with the columns that are read, up to the last one that the dataset takes."""
    hub, fields = _hub(dataset), fields_named(dataset)
    with asking(hub.repo, commit, TextError) as of_hub:
        if of_hub.constants.HF_HUB_OFFLINE:
            raise TextError(
                f"{hub.address}: HF_HUB_OFFLINE is set, and the cache does not have the rows of commit {commit}",
                hint="Unset HF_HUB_OFFLINE; further runs then need the hub no more.",
            )
    library = _library(hub)
    tell(f"{hub.address}: reading the rows of commit {commit} from the hub")
    # Rows are asked for until there are so many, be they of the next file.
    at_a_time = min(ROWS_AT_A_TIME, dataset.limit or ROWS_AT_A_TIME)
    with _reading(library, hub, commit) as folder:
        builder = _builder(library, hub, commit, folder)
        split = _split(builder, hub, fields, at_a_time)
        labels, left = Labels(dataset), dataset.limit
        for table in split.with_format("arrow").iter(batch_size=at_a_time):
            columns, inside = columns_of_table(table.column_names, fields)
            if columns is None:
                # The reader of the copy says which field is missing.
                yield table.slice(0, 1)
                return
            table = table.select(columns)
            if left is not None:
                rows = enumerate(
                    with_nested(row, [f for f in fields if "." in f])
                    for batch in table.to_batches()
                    for row in rows_of_batch(batch, inside)
                )
                numbers = [number for number, _ in taken(rows, dataset.model_copy(update={"limit": left}), labels)]
                left -= len(numbers)
                if not left:
                    yield table.slice(0, numbers[-1] + 1)
                    return
            yield table


def _library(hub: HubRows) -> Any:
    """The package `datasets`, which says nothing by itself; raises MissingExtraError."""
    try:
        import datasets

        builder = datasets.load_dataset_builder
    except (ImportError, AttributeError) as error:
        # A folder of that name in the working directory is a package without anything in it.
        missing = getattr(error, "name", None) if isinstance(error, ImportError) else None
        raise MissingExtraError(
            f"{hub.address} needs {missing or 'datasets'}, which is not installed",
            hint="pip install 'drillcore[datasets]'",
        ) from None
    assert builder
    for name in ("datasets", "huggingface_hub"):
        take_over_logs(name)
    return datasets


def _builder(library: Any, hub: HubRows, commit: str, folder: str) -> Any:
    """What `datasets` knows of a configuration; raises TextError where there is no such one."""
    try:
        return library.load_dataset_builder(hub.repo, hub.config or None, revision=commit, cache_dir=folder)
    except ValueError:
        names = library.get_dataset_config_names(hub.repo, revision=commit)
        if hub.config in names or (not hub.config and len(names) == 1):
            raise
        what = f"has no configuration {hub.config}" if hub.config else "has several configurations"
        hint = f"Name one: hf://datasets/{hub.repo}/{names[0]}/{hub.split}."
        raise TextError(f"the data set {hub.repo} {what}; it has {', '.join(names)}", hint=hint) from None


def _split(builder: Any, hub: HubRows, fields: list[str], at_a_time: int) -> Any:
    """The rows of the split as `datasets` streams them; raises TextError where there is no such split.

    Of Parquet files only the columns that are read are fetched, `at_a_time` rows after the other.
    """
    splits = builder.as_streaming_dataset()
    if hub.split not in splits:
        near = next(iter(splits), "SPLIT")
        hint = f"Name one: hf://datasets/{hub.repo}/{hub.config}{'/' if hub.config else ''}{near}."
        raise TextError(f"the data set {hub.repo} has no split {hub.split}; it has {', '.join(splits)}", hint=hint)
    names = list(splits[hub.split].features or ())
    columns = columns_of_table(names, fields)[0] if names else None
    if columns is None or not hasattr(builder.config, "columns"):
        return splits[hub.split]
    builder.config.columns, builder.config.batch_size = columns, at_a_time
    return builder.as_streaming_dataset(hub.split)


@contextmanager
def _reading(library: Any, hub: HubRows, commit: str) -> Iterator[str]:
    """Inside, `datasets` reads, without progress bars; its errors become a TextError in plain words.

    Yields a folder for what it keeps: in its own it might find rows of another commit, and take them.
    """
    bars = library.are_progress_bars_disabled()
    library.disable_progress_bars()
    try:
        with asking(hub.repo, commit, TextError), TemporaryDirectory() as folder:
            try:
                yield folder
            except DrillcoreError:
                raise
            except Exception as error:
                raise _explained(error, hub, commit) from None
    finally:
        if not bars:
            library.enable_progress_bars()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__


def _explained(error: Exception, hub: HubRows, commit: str) -> BaseException:
    """An error of `datasets` in plain words; one of the hub or the network as it is, for `asking`."""
    for packages in (("huggingface_hub",), OF_NETWORK):
        for cause in _causes(error):
            if type(cause).__module__.split(".")[0] in packages:
                return cause
    said = next(iter(str(error).splitlines()), "")
    if "scripts are no longer supported" in said:
        return TextError(
            f"the data set {hub.repo} is a program ({said.rsplit(' ', 1)[-1]}), and no program of a data set is run",
            hint="Name a data set of Parquet, JSON or CSV files, such as another one with the same rows.",
        )
    if type(error).__name__ in ("DataFilesNotFoundError", "EmptyDatasetError"):
        return TextError(f"the data set {hub.repo} has no files of rows", hint="Look at its files on the hub.")
    if type(error).__name__ == "DatasetNotFoundError":
        what = (
            f"the data set {hub.repo} is gated"
            if "gated" in said
            else f"the hub has no data set {hub.repo} at {commit}"
        )
        return TextError(what, hint=f"Ask for access on its page. {TOKEN_HINT}" if "gated" in said else TOKEN_HINT)
    return TextError(
        f"{hub.address}: its rows cannot be read: {type(error).__name__}: {said}",
        hint="Run again; if it stays so, the files of that data set are wrong: take another commit with `revision:`.",
    )
