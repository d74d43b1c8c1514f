"""Whether the labels of a dataset are classes or numbers: found before rows are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from drillcore.job.inputs import Dataset
from drillcore.texts.columns import is_missing, kind_of
from drillcore.texts.readers.lines import quoted

NUMBERS = ("integer", "wide integer", "fraction")


@dataclass
class LabelKind:
    """What the labels are, by all rows.

    is_typed: the format tells numbers from strings. Where it does not, strings that are written as JSON writes numbers
    count as such. name: their field, by default that of the main label.

    >>> kind = LabelKind(Dataset(name="d", path="a.csv", label="score"), is_typed=False)
    >>> for score in ("1", "0.5", ""):
    ...     kind.see({"score": score})
    >>> kind.type, kind.is_decided
    (DataType(double), False)
    """

    dataset: Dataset
    is_typed: bool
    name: str | None = None
    is_decided: bool = field(init=False)
    _has_fraction: bool = False
    _is_class: bool = False

    def __post_init__(self) -> None:
        """Only where the job leaves it open do rows decide."""
        self.name = self.dataset.label_field if self.name is None else self.name
        self.is_decided = self.name is None or self.dataset.label_type != "auto"

    def see(self, row: dict[str, Any]) -> None:
        """One more row."""
        value: Any = row.get(self.name or "")
        if self.is_decided or is_missing(value, self.dataset.missing):
            return
        if kind_of(value, self.is_typed, ()) not in NUMBERS:
            # One label that is no number makes all of them classes.
            self.is_decided = self._is_class = True
        elif not self._has_fraction:
            number = float(value)
            # Not a number that is not finite, either: no label can be.
            self._has_fraction = not number.is_integer() and number - number == 0

    @property
    def type(self) -> Any:
        """The pyarrow type of the column."""
        is_number = self.dataset.label_type == "number" or (self._has_fraction and not self._is_class)
        return pa.float64() if is_number else pa.string()

    def note(self) -> str:
        """What to say of labels that are numbers where the job does not; empty otherwise."""
        if self.dataset.label_type != "auto" or self.type != pa.float64():
            return ""
        other = "" if self.is_typed else ", `classes` takes each value for a class"
        if self.dataset.labels:
            return f"the field {quoted(self.name or '')} holds numbers with fractions: this label is a number, no class"
        return (
            f"the field {quoted(self.name or '')} holds numbers with fractions, so that labels are "
            f"numbers and not classes; `label_type: number` says so in the job{other}"
        )
