"""A first reading of a file: where labels come from, the types of kept columns, and how many rows lack a value."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from drillcore.job.fields import Dataset
from drillcore.system.nearly import looks_like, shown
from drillcore.texts.columns import describe, is_missing, kind_of, type_of
from drillcore.texts.readers.lines import Row, quoted

# Distinct labels that are remembered, and what counts as a great many.
MOST_LABELS = 10_000
MANY_LABELS = 20
NUMBERS = ("integer", "wide integer", "fraction")


@dataclass(frozen=True)
class Survey:
    """What a first reading found.

    label: the field that labels come from, None where there are none. types: pyarrow types of the kept columns.
    first: the first row, None where there is none. absent: why the rows cannot be used at all, or empty. notes: what
    the user should know.
    """

    label: str | None
    types: dict[str, Any]
    first: dict[str, Any] | None
    absent: str
    notes: tuple[str, ...]


def survey(rows: Iterable[Row], dataset: Dataset, is_typed: bool) -> Survey:
    """Read all rows that the dataset takes. is_typed: the format tells numbers from strings."""
    labels = _Labels(dataset)
    kept = {name: _Kept(name, is_typed, dataset.missing) for name in dataset.keep}
    first, num_taken = None, 0
    for _, row in rows:
        if row is not None:
            first = row if first is None else first
            labels.see(row)
            if is_dropped(row, dataset):
                continue
            for name, column in kept.items():
                if name in row:
                    column.see(row[name])
        num_taken += 1
        if num_taken == dataset.limit:
            break
    notes = [*labels.notes(), *(note for column in kept.values() for note in column.notes())]
    types = {name: column.type for name, column in kept.items()}
    return Survey(labels.field, types, first, labels.absent(), tuple(notes))


def taken(rows: Iterable[Row], dataset: Dataset) -> Iterator[Row]:
    """The rows that the dataset takes: up to its limit, without those that it leaves out for want of a label."""
    num_taken = 0
    for line, row in rows:
        if row is None or not is_dropped(row, dataset):
            num_taken += 1
            yield line, row
        # Rows beyond the limit may be wrong: they are not even read.
        if num_taken == dataset.limit:
            return


def is_dropped(row: dict[str, Any], dataset: Dataset) -> bool:
    """Whether `unlabelled: drop` leaves a row out."""
    if dataset.unlabelled != "drop" or dataset.label_field is None:
        return False
    return is_missing(row.get(dataset.label_field), dataset.missing)


@dataclass
class _Labels:
    """The field that labels may come from, over all rows."""

    dataset: Dataset
    num_rows: int = 0
    num_missing: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    fractions: int = 0
    distinct: set[str] = field(default_factory=set)
    near: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Any] = field(default_factory=dict)
    is_there: bool = False

    def see(self, row: dict[str, Any]) -> None:
        """One more row."""
        name = self.dataset.label_field
        if name is None:
            return
        self.num_rows += 1
        if name not in row:
            self.num_missing += 1
            self.near.update(other for other in row if isinstance(other, str) and looks_like(other, name))
            return
        self.is_there = True
        value = row[name]
        if is_missing(value, self.dataset.missing):
            self.num_missing += 1
            return
        kind = "number" if isinstance(value, int | float) and not isinstance(value, bool) else "word"
        kind = kind if isinstance(value, str | int | float) else "other"
        self.kinds[kind] += 1
        self.fractions += isinstance(value, float) and not value.is_integer()
        if kind == "other" or (isinstance(value, float) and not value.is_integer()):
            self.examples.setdefault(describe(value), None)
        elif len(self.distinct) <= MOST_LABELS:
            self.distinct.add(str(value))

    @property
    def field(self) -> str | None:
        """The field of the labels: the one that is named, or `label` where rows have it and it can be one."""
        dataset = self.dataset
        return dataset.label_field if dataset.label_is_named or (self.is_there and not self._why_none()) else None

    def _why_none(self) -> str:
        """Why a field that the job does not name holds no labels; empty where it does, or some rows could."""
        if not self.kinds:
            return "is empty in all rows"
        if set(self.kinds) == {"number"} and self.fractions:
            return f"holds numbers of many values (a fraction in {_of(self.fractions, self.num_rows)})"
        if set(self.kinds) == {"other"}:
            described = (f"values {d}" if d.startswith("of ") else d for d in self.examples)
            return f"holds {' or '.join(described)} in {_of(self.kinds['other'], self.num_rows)}"
        return ""

    def absent(self) -> str:
        """Why the job's wish cannot be met: no row has the named field, or none has a label and such rows go."""
        name, unlabelled = self.dataset.label_field, self.dataset.unlabelled
        if name is None or unlabelled == "error" or not self.num_rows:
            return ""
        if not self.is_there and (self.dataset.label_is_named or unlabelled == "drop"):
            near = f"; did you mean {shown(next(iter(self.near)))}?" if self.near else ""
            return f"no row has a field {quoted(name)}{near} (unlabelled: {unlabelled})"
        if unlabelled == "drop" and self.num_missing == self.num_rows:
            return f"no row has a label in the field {quoted(name)}, and `unlabelled: drop` leaves such rows out"
        return ""

    def notes(self) -> list[str]:
        """What to say of the labels."""
        name = self.dataset.label_field
        if name is None or self.absent():
            return []
        notes = []
        if self.near:
            near, count = self.near.most_common(1)[0]
            where = "" if not self.is_there else " there"
            notes.append(
                f"{_of(count, self.num_rows)} {_have(count)} no field {quoted(name)} but a field {shown(near)}: "
                f"no label is taken from it{where}; `label: {json.dumps(near)}` names it, `label: null` ignores it"
            )
        if self.is_there and self.field is None:
            notes.append(
                f"the field {quoted(name)} {self._why_none()} and is ignored; `label: null` says so in the job"
            )
        if self.field is None:
            return notes
        if self.num_missing and self.dataset.unlabelled != "error":
            done = "drawn grey and left out of measures" if self.dataset.unlabelled == "keep" else "left out"
            notes.append(
                f"{_of(self.num_missing, self.num_rows)} {_have(self.num_missing)} no label in the field "
                f"{quoted(name)}: {done} (`unlabelled: {self.dataset.unlabelled}`)"
            )
        labelled = self.num_rows - self.num_missing
        if len(self.distinct) > MANY_LABELS and 2 * len(self.distinct) > labelled:
            first, second = sorted(self.distinct)[:2]
            number = f"more than {MOST_LABELS:,}" if len(self.distinct) > MOST_LABELS else f"{len(self.distinct):,}"
            notes.append(
                f"the field {quoted(name)} holds {number} different labels in {labelled:,} rows, such as "
                f"{shown(first)} and {shown(second)}; `label: null` ignores it"
            )
        return notes


@dataclass
class _Kept:
    """The values of a kept column."""

    name: str
    is_typed: bool
    missing: tuple[str, ...]
    kinds: Counter[str] = field(default_factory=Counter)
    others: list[str] = field(default_factory=list)

    def see(self, value: Any) -> None:
        """One more value."""
        kind = kind_of(value, self.is_typed, self.missing)
        self.kinds[kind] += 1
        if kind == "other" and len(self.others) < 2 and str(value)[:60] not in self.others:
            self.others.append(str(value)[:60])

    @property
    def type(self) -> Any:
        """The narrowest type that holds all values."""
        return type_of(set(self.kinds))

    def notes(self) -> list[str]:
        """What to say of a column of numbers in which some are missing or no numbers."""
        numbers, total = sum(self.kinds[kind] for kind in NUMBERS), sum(self.kinds.values())
        if numbers and self.kinds["other"]:
            others = " and ".join(map(shown, self.others))
            return [
                f"keep: {quoted(self.name)}: {_of(self.kinds['other'], total, 'values')} are no numbers ({others}), so "
                "that all are kept as strings; `missing: [...]` names those that stand for nothing"
            ]
        if numbers and self.kinds["missing"]:
            return [f"keep: {quoted(self.name)}: missing in {_of(self.kinds['missing'], total)}"]
        return []


def _of(count: int, total: int, what: str = "rows") -> str:
    """Words for so many of so many.

    >>> _of(1, 1200)
    '1 of 1,200 rows'
    """
    return f"{count:,} of {total:,} {what}"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"
