"""Where labels come from, the types of kept columns, and how many rows lack a value: found before rows are made."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from drillcore.job.inputs import Dataset
from drillcore.system.nearly import looks_like, shown
from drillcore.texts.columns import WRITTEN, describe, is_missing, kind_of, type_of
from drillcore.texts.label_kind import NUMBERS, LabelKind
from drillcore.texts.readers.lines import Row, quoted


@dataclass(frozen=True)
class Survey:
    """What a first reading found.

    label: the field that labels come from, None where there are none. types: pyarrow types of the kept columns, and of
    those of labels. first: the first row, None where there is none. absent: why the rows cannot be
    used at all, or empty. notes: what the user should know of the kept columns, and of labels that are numbers.
    """

    label: str | None
    types: dict[str, Any]
    first: dict[str, Any] | None
    absent: str
    notes: tuple[str, ...]


def survey(rows: Iterable[Row], dataset: Dataset, is_typed: bool, has_columns: bool) -> Survey:
    """Read the rows that the dataset takes, no further than something is left to find out.

    is_typed: the format tells numbers from strings. has_columns: all rows have the same fields.
    """
    labels = Labels(dataset)
    kinds = {each.name: LabelKind(dataset, is_typed, each.name) for each in (labels, *labels.more)}
    kept = {name: _Kept(name, is_typed, dataset.missing) for name in dataset.keep}
    first, num_taken, is_decided = None, 0, False
    for _, row in rows:
        if dataset.empty == "drop" and (row is None or is_empty(row, dataset)):
            first = row if first is None else first
            continue
        if row is not None:
            first = row if first is None else first
            if not is_decided:
                labels.see(row)
                is_decided = labels.are_decided or (has_columns and not labels.is_there)
            for label_kind in kinds.values():
                if not label_kind.is_decided:
                    label_kind.see(row)
            are_known = all(label_kind.is_decided for label_kind in kinds.values())
            if is_decided and (are_known or not labels.is_there) and not kept:
                break
            if is_dropped(row, dataset):
                continue
            for name, column in kept.items():
                if name in row:
                    column.see(row[name])
        num_taken += 1
        if num_taken == dataset.limit:
            break
    notes = tuple(note for column in kept.values() for note in column.notes())
    of_kinds = (label_kind.note() for label_kind in kinds.values())
    notes += tuple(filter(None, of_kinds)) if labels.field is not None else ()
    types = {name: column.type for name, column in kept.items()}
    types |= {"label" if name == labels.name else str(name): label_kind.type for name, label_kind in kinds.items()}
    return Survey(labels.field, types, first, labels.absent(), notes)


def taken(rows: Iterable[Row], dataset: Dataset, labels: Labels) -> Iterator[Row]:
    """The rows that the dataset takes: up to its limit, without those that it leaves out for want of a label.

    labels: sees all rows, those that are left out too.
    """
    num_taken = 0
    for line, row in rows:
        if dataset.empty == "drop" and (row is None or is_empty(row, dataset)):
            labels.num_empty += 1
            continue
        if row is not None:
            labels.see(row)
        if row is None or not is_dropped(row, dataset):
            num_taken += 1
            yield line, row
        # Rows beyond the limit may be wrong: they are not even read.
        if num_taken == dataset.limit:
            return


def is_empty(row: dict[str, Any], dataset: Dataset) -> bool:
    """Whether a row has no text; one without the field itself is wrong."""
    field = dataset.text if dataset.prompt is None else WRITTEN
    value = row.get(dataset.messages or field, 0)
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def is_dropped(row: dict[str, Any], dataset: Dataset) -> bool:
    """Whether `unlabelled: drop` leaves a row out: one that lacks its label, or any of several."""
    if dataset.unlabelled != "drop" or dataset.label_field is None:
        return False
    fields = (dataset.label_field, *dataset.more_labels)
    return any(is_missing(row.get(name), dataset.missing) for name in fields)


@dataclass
class Labels:
    """The field that labels may come from, over all rows, and those of further labels.

    num_empty: rows without a text, which are left out. more: the further fields. name: the field; by default that of
    the main label.
    """

    dataset: Dataset
    name: str | None = None
    num_rows: int = 0
    num_missing: int = 0
    num_empty: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    fractions: int = 0
    near: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Any] = field(default_factory=dict)
    is_there: bool = False
    more: list[Labels] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Look the fields' names up once, not for each row."""
        if self.name is None:
            self.name = self.dataset.label_field
            self.more = [Labels(self.dataset, name) for name in self.dataset.more_labels]

    def see(self, row: dict[str, Any]) -> None:
        """One more row."""
        for each in (self, *self.more):
            each._see_own(row)

    def _see_own(self, row: dict[str, Any]) -> None:
        name = self.name
        if name is None:
            return
        self.num_rows += 1
        if name not in row:
            self.num_missing += 1
            for other in row:
                if looks_like(other, name):
                    self.near[other] += 1
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
        if kind == "other":
            self.examples.setdefault(describe(value), None)

    @property
    def are_decided(self) -> bool:
        """Whether no further row can change where labels come from."""
        return all(each._is_decided for each in (self, *self.more))

    @property
    def _is_decided(self) -> bool:
        return self.name is None or self.kinds["word"] > 0 or (self.dataset.label_is_named and bool(self.kinds))

    @property
    def field(self) -> str | None:
        """The field of the labels: the one that is named, or `label` where rows have it and it can be one."""
        return self.name if self.dataset.label_is_named or (self.is_there and not self._why_none()) else None

    def _why_none(self) -> str:
        """Why a field that the job does not name holds no labels; empty where it does, or some rows could."""
        if not self.kinds:
            return "is empty in all rows"
        if set(self.kinds) == {"number"} and self.fractions and self.dataset.label_type == "classes":
            return f"holds numbers of many values (a fraction in {_of(self.fractions, self.num_rows)})"
        if set(self.kinds) == {"other"}:
            described = (f"values {d}" if d.startswith("of ") else d for d in self.examples)
            return f"holds {' or '.join(described)} in {_of(self.kinds['other'], self.num_rows)}"
        return ""

    def absent(self) -> str:
        """Why the job's wish cannot be met: no row has the named field, or none has a label and such rows go."""
        return next(filter(None, (each._absent() for each in (self, *self.more))), "")

    def _absent(self) -> str:
        name, unlabelled = self.name, self.dataset.unlabelled
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
        notes = list[str]()
        if self.num_empty:
            have = "row has" if self.num_empty == 1 else "rows have"
            field = f"in the field {quoted(self.dataset.messages or self.dataset.text)}"
            field = "by `template`" if self.dataset.prompt is not None else field
            notes.append(f"{self.num_empty:,} {have} no text {field}: left out (`empty: drop`)")
        return notes if self.absent() else [*notes, *(note for each in (self, *self.more) for note in each._notes())]

    def _notes(self) -> list[str]:
        name, notes = self.name, list[str]()
        if name is None:
            return notes
        if self.near:
            near, count = self.near.most_common(1)[0]
            where = "" if not self.is_there else " there"
            remedy = f"`label: {json.dumps(near)}` names it, `label: null` ignores it"
            notes.append(
                f"{_of(count, self.num_rows)} {_have(count)} no field {quoted(name)} but a field {shown(near)}: "
                f"no label is taken from it{where}; {'name it in `labels`' if self.dataset.labels else remedy}"
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
