"""Checks what a job tests its probes on, before anything is extracted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from drillcore.errors import JobError, TextError
from drillcore.job.fields import Job, LoadedJob
from drillcore.job.groups import by_template, column_of
from drillcore.job.inputs import Dataset
from drillcore.system.nearly import shown
from drillcore.system.progress import ProgressListener
from drillcore.texts.rows import RowTable, row_ids

if TYPE_CHECKING:
    from drillcore.runtime.preflight import Input

# Rows that are looked at together, and labels that a message names.
PIECE, NAMED = 65_536, 5


def check_splits(loaded: LoadedJob, tables: Mapping[str, RowTable], listener: ProgressListener) -> None:
    """Look at the rows that probes learn from and are tested on; says what of them cannot be, or should not.

    Raises TextError where a dataset cannot be tested on another one: one has no labels, theirs are of another type, or
    they have fewer than two labels in common.
    """
    for dataset in loaded.job.datasets:
        if dataset.split is None:
            continue
        for each in by_template(dataset):
            tested = (dataset.tested_on or dataset.name) + each.name.removeprefix(dataset.name)
            # `check_tested` says where the other dataset has no such template.
            if tested not in tables:
                continue
            own, other = tables[each.name], tables[tested]
            for pair in _label_columns(loaded.job, dataset):
                for note in _notes_on_labels(each, tested, own, other, pair):
                    listener.warn(f"{each.name}: {note}")
            both = num_straddling(each, own, other)
            if both:
                listener.warn(f"{each.name}: {straddling_in_words(both)}")


def check_tested(pairs: Sequence[Input], key: Callable[[Input], str], layers: Callable[[Input], Sequence[int]]) -> None:
    """Raise JobError where the states of two datasets, of which one tests the other's probe, cannot be compared.

    key: what decides the tokens of a pair's sentences. layers: that a pair's group stores.
    """
    by_path = {pair.path: pair for pair in pairs}
    for pair in pairs:
        name = pair.dataset.tested_group
        if name is None or not pair.dataset.position.is_measured:
            continue
        where = f"datasets: {pair.dataset.of}: split: {pair.path} would be tested on {pair.model.group}/{name}"
        other = by_path.get(f"{pair.model.group}/{name}")
        if other is None:
            kind = "branch" if pair.dataset.branch else "position"
            raise JobError(f"{where}, which the job does not have", hint=f"Give both datasets this {kind}.")
        if key(pair) != key(other) or pair.recorded_policy != other.recorded_policy:
            raise JobError(
                f"{where}, whose sentences become tokens in another way",
                hint="Give both datasets the same template, chat settings and position.",
            )
        if tuple(layers(pair)) != tuple(layers(other)):
            raise JobError(f"{where}, which has other layers", hint="Let both positions name the same layers.")


def _label_columns(job: Job, dataset: Dataset) -> Iterator[tuple[str, str, str]]:
    """The columns of each label in a dataset and in the one that it is tested on; and its field, where it has several.

    There are none where it is tested on its own rows.
    """
    other = next((each for each in job.datasets if each.name == dataset.tested_on), None)
    if other is None:
        return
    if not (dataset.more_labels or other.more_labels):
        yield "label", "label", ""
        return
    for field in (dataset.label_field, *dataset.more_labels):
        yield column_of(dataset, str(field)), column_of(other, str(field)), str(field)


def num_straddling(dataset: Dataset, own: RowTable, other: RowTable) -> int:
    """Number of groups, or of equal texts where there are none, that a probe learns from and is tested on."""
    if dataset.tested_on is not None:
        learned, tested = ({key for key, _ in _keys(table, None, dataset)} for table in (own, other))
        return len(learned & tested)
    sides: dict[str, set[str]] = {"train": set(), "test": set()}
    for key, side in _keys(own, dataset.split_field, dataset):
        sides[side].add(key)
    return len(sides["train"] & sides["test"])


def straddling_in_words(count: int) -> str:
    """Words for so many groups on both sides of a split.

    >>> straddling_in_words(2)[:52]
    '2 groups have sentences on both sides of the split ('
    """
    groups = "group has" if count == 1 else "groups have"
    return (
        f"{count:,} {groups} sentences on both sides of the split (`group`, or the same text): the probe may have seen "
        "what it is tested on"
    )


def _keys(table: RowTable, field: str | None, dataset: Dataset) -> Iterator[tuple[str, str]]:
    """The group of each row that has a label of a dataset, or its text's hash, and its value of a field."""
    of_labels = [name for name in ("label", *dataset.more_labels) if name in table.columns]
    read = [*of_labels, *(name for name in ("group", field) if name in table.columns)]
    for start in range(0, table.num_rows, PIECE):
        piece = table.slice(start, min(start + PIECE, table.num_rows))
        columns = {name: piece.column(name).to_pylist() for name in read}
        keys = columns.get("group") or row_ids(piece.column("text").to_pylist())
        labels = [columns[name] for name in of_labels] or [[None] * len(keys)]
        values = columns.get(field or "", [""] * len(keys))
        for key, value, *of_row in zip(keys, values, *labels, strict=True):
            if any(label != "" and (label is None or label == label) for label in of_row):
                yield key, value
        table.release()


def _notes_on_labels(
    dataset: Dataset, test: str, own: RowTable, other: RowTable, columns: tuple[str, str, str]
) -> Iterator[str]:
    """Labels that only one of two datasets has, which cannot be tested; raises TextError where nothing can.

    columns: as `_label_columns` gives them.
    """
    here, there, field = columns
    of = f": label {field}" if field else ""
    where = f"datasets: {dataset.name}: split{of}"
    for name, table, column in ((dataset.name, own, here), (test, other, there)):
        if column not in table.columns:
            raise TextError(f"{where}: {name} has no labels, and both need them", hint="Name their field with `label`.")
    numbers = [own.holds_numbers(here), other.holds_numbers(there)]
    if numbers[0] != numbers[1]:
        kinds = ["numbers" if number else "classes" for number in numbers]
        raise TextError(
            f"{where}: the labels of {dataset.name} are {kinds[0]}, those of {test} {kinds[1]}",
            hint="`label_type` of both datasets says which they are.",
        )
    if numbers[0]:
        return
    learned, tested = (set(filter(None, labels)) for labels in (own.distinct(here), other.distinct(there)))
    if len(learned & tested) < 2:
        raise TextError(
            f"{where}: {dataset.name} and {test} have fewer than two labels in common: {_some(learned)} there, "
            f"{_some(tested)} here",
            hint="Labels are compared as they are written.",
        )
    for labels, has, lacks in ((learned - tested, dataset.name, test), (tested - learned, test, dataset.name)):
        if labels:
            yield (
                f"split{of}: {has} has labels that {lacks} lacks: {_some(labels)}; their rows are left out of what the "
                "probe learns from and is tested on"
            )


def _some(labels: set[str]) -> str:
    named = [shown(label) for label in sorted(labels)]
    return ", ".join(named[:NAMED]) + (f" and {len(named) - NAMED} more" if len(named) > NAMED else "")
