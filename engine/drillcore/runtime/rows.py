"""Reads the rows of a job's datasets, and checks the names that they would have in a store."""

from __future__ import annotations

from collections.abc import Mapping

from drillcore.errors import TextError
from drillcore.job.fields import LoadedJob
from drillcore.job.groups import by_template, positions_of, reading_of
from drillcore.job.inputs import Dataset
from drillcore.runtime.splits import check_splits
from drillcore.store.arrays import PLACE_COLUMNS, check_kept_names
from drillcore.store.layout import check_group_name
from drillcore.system.files import cache_dir
from drillcore.system.progress import ProgressListener
from drillcore.texts.notes import note_across, notes_on_job, said
from drillcore.texts.problems import Problems
from drillcore.texts.read import digest_of_places
from drillcore.texts.rows import RowTable, ingest


def read_tables(loaded: LoadedJob, listener: ProgressListener) -> dict[str, RowTable]:
    """The rows of every dataset by its name, read now or taken from the cache; says what is nearly right in them.

    Of a dataset with several templates, those of each by the name of its group. Raises TextError that names every
    problem with the rows, up to a limit, and StoreError or TextError for a model, dataset or column whose name no
    store can take; MissingExtraError where a data set of the hub needs a package.
    """
    _check_names(loaded)
    problems, tables = Problems(), dict[str, RowTable]()
    for dataset in loaded.job.datasets:
        commit = ""
        for each in by_template(dataset):
            found = Problems()
            try:
                reading = reading_of(each, positions_of(loaded.job, each))
                table = ingest(loaded.paths(each), reading, cache_dir() / "rows", found)
            except TextError as error:
                found.add(str(error), None, error.hint[:1].lower() + error.hint[1:])
                table = None
            # What is wrong with the file is so for each template.
            problems.take(found)
            if table is not None:
                tables[each.name] = table
                commit = table.commit
        if commit:
            listener.say(f"{dataset.name}: {loaded.called(dataset)} at commit {commit}")
        _refuse_other_rows(loaded, dataset, tables, problems)
    problems.raise_if_any()
    _say_notes(loaded, tables, listener)
    check_splits(loaded, tables, listener)
    return tables


def _refuse_other_rows(loaded: LoadedJob, dataset: Dataset, tables: Mapping[str, RowTable], problems: Problems) -> None:
    """Report templates of a dataset of which one leaves out rows that another one takes."""
    remedy = "templates of one dataset take the same rows; make it a dataset of its own, or write a text for each"
    counts = {each.name: tables[each.name].num_rows for each in by_template(dataset) if each.name in tables}
    if len({*counts.values()}) > 1:
        few, many = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
        what = f"{few} has {counts[few]:,} rows with a text and {many} has {counts[many]:,}"
        problems.add(loaded.called(dataset), None, f"{what} (`empty: drop`): {remedy}")
    elif len(counts) > 1 and dataset.empty == "drop":
        places = {digest_of_places(tables[d.name].files, d) for d in by_template(dataset) if d.name in tables}
        if len(places) > 1:
            what = f"{', '.join(counts)} leave out different rows"
            problems.add(loaded.called(dataset), None, f"{what} (`empty: drop`): {remedy}")


def _say_notes(loaded: LoadedJob, tables: Mapping[str, RowTable], listener: ProgressListener) -> None:
    """Say what is nearly right in the datasets and in what the job says of them."""
    for dataset in loaded.job.datasets:
        places: dict[str, list[str]] = {}
        for each in by_template(dataset):
            for note in [*said(tables[each.name].notes, each), *notes_on_job(each)]:
                places.setdefault(note, []).append(each.name)
        for note, names in places.items():
            listener.warn(f"{', '.join(names)}: {note}")
    for note in note_across({name: table.distinct("label") for name, table in tables.items()}):
        listener.warn(note)


def _check_names(loaded: LoadedJob) -> None:
    """Check that every group and column has a name that the store can take; raises StoreError, TextError."""
    for model in loaded.job.models:
        check_group_name(model.group, "model")
    for dataset in loaded.job.datasets:
        positions = positions_of(loaded.job, dataset)
        plain = dataset.messages is None and all(position.is_last for position in positions)
        more = () if plain else PLACE_COLUMNS
        check_group_name(dataset.name, "dataset")
        reading = reading_of(dataset, positions)
        check_kept_names(dataset, more)
        check_kept_names(dataset.model_copy(update={"keep": dataset.more_labels}), more, "labels")
        of_positions = [name for name in reading.keep if name not in dataset.keep]
        check_kept_names(dataset.model_copy(update={"keep": tuple(of_positions)}), more, "extract.positions")
        split = dataset.split_field
        if split is not None and split not in dataset.keep:
            check_kept_names(dataset.model_copy(update={"keep": (split,)}), more, "split")
            check_group_name(split, "column")
        for column in (*reading.keep, *dataset.more_labels):
            check_group_name(column, "column")
