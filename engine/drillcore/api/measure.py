"""Stored measures of a group as a table, and two groups side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr

from drillcore.api.page import table
from drillcore.api.stores import AnyStore, address_of, find_group, group_names
from drillcore.api.tables import frame
from drillcore.errors import CommitError, InputError
from drillcore.measures import BOUNDS, CONTROLS, OF_NUMBERS, PRIMARY, ROWS
from drillcore.measures.comparison import Difference, Side, as_csv
from drillcore.measures.comparison import compare as compare_sides
from drillcore.runtime.results import Measured, further_label, labels_of, read_separation
from drillcore.store.arrays import of_label
from drillcore.store.freshness import stale
from drillcore.store.places.location import Location
from drillcore.store.reader import open_root
from drillcore.system.files import without_nan, write_atomic

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("layer", "layer_name", "metric", "value", "low", "high", "null_mean", "null_high", "p")


@dataclass(frozen=True)
class Measure:
    """One measure at one layer. low, high: its 95 % interval; null_mean, null_high, p: NaN without a null."""

    layer: int
    layer_name: str
    metric: str
    value: float
    low: float
    high: float
    null_mean: float
    null_high: float
    p: float


@dataclass(frozen=True)
class Control:
    """A probe on what needs no model: `tfidf`, the words, or `last_token_and_length`. Figures as in `Measure`."""

    name: str
    value: float
    low: float
    high: float
    null_mean: float
    null_high: float
    p: float


@dataclass(frozen=True)
class Measures:
    """How well each layer of a group separates its labels. rows: by layer, then by measure; NaN where it was skipped.

    labels: that were told apart; none where they are numbers. notes: what a reader must know. controls: what the probe
    of a layer has to beat. skipped: why a measure was, by its name. label: the field of the labels, where the group has
    several; else "".
    """

    store: str
    group: str
    rows: tuple[Measure, ...]
    labels: tuple[str, ...]
    notes: tuple[str, ...]
    controls: tuple[Control, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    label: str = ""

    @property
    def primary(self) -> str:
        """The measure that claims rest on: `probe`, or `r2` where the labels are numbers."""
        return OF_NUMBERS if OF_NUMBERS in self.metrics else PRIMARY

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the measures."""
        return tuple(dict.fromkeys(row.metric for row in self.rows))

    def best(self, metric: str = "") -> Measure | None:
        """The best layer by a measure; None where it was skipped everywhere. Raises InputError.

        metric: by default the primary one: `probe`, the balanced accuracy of a linear probe, or `r2` of one that
        predicts numbers. Of a dispersion the smallest is best.
        """
        metric = metric or self.primary
        if metric not in self.metrics:
            raise InputError(f"{self.group} has no measure {metric}", hint=f"It has {', '.join(self.metrics)}.")
        found = [row for row in self.rows if row.metric == metric and row.value == row.value]
        return max(found, key=lambda row: ROWS[metric].sign * row.value, default=None)

    def to_pandas(self) -> pd.DataFrame:
        """A row for each layer and measure; raises MissingExtraError where pandas is not installed."""
        return frame(self.rows, COLUMNS)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; null where a number is not known."""
        best = None if self.primary not in self.metrics else self.best()
        facts: dict[str, Any] = without_nan({**asdict(self), "best": None if best is None else asdict(best)})
        return facts

    def __repr__(self) -> str:
        best = None if self.primary not in self.metrics else self.best()
        words = "no layer has a probe" if best is None else f"best {best.metric} {best.value:.2f} at {best.layer_name}"
        known = [f"{CONTROLS.get(c.name, c.name)} {c.value:.2f}" for c in self.controls if c.value == c.value]
        controls = f"; without the model: {', '.join(known)}" if known else ""
        of = f"{self.group}, label {self.label}" if self.label else self.group
        return f"measures of {of}: {', '.join(self.metrics)}; {words}{controls}"

    def _repr_html_(self) -> str:
        rows = [[row.layer, row.layer_name, row.metric, *_numbers(row.value, row.low, row.high)] for row in self.rows]
        rows += [["", "", f"control: {c.name}", *_numbers(c.value, c.low, c.high)] for c in self.controls]
        notes = [*self.notes, *(f"{name} not measured: {why}" for name, why in self.skipped.items())]
        return table(repr(self), ("layer", "name", "measure", "value", "low", "high"), rows, notes)


@dataclass(frozen=True)
class Comparison:
    """Two groups of a store, layer by layer. rows: of each layer and measure, see `measures.comparison.Difference`.

    label: the label by which both were measured, where one was named; else "".
    """

    store: str
    a: str
    b: str
    rows: tuple[Difference, ...]
    label: str = ""

    @property
    def note(self) -> str:
        """What to know of the rows; empty where both groups have the same layers."""
        if all(row.layer_a == row.layer_b for row in self.rows):
            return ""
        return "the groups have different layers: they are paired by relative depth, as `layer of A ~ layer of B`"

    def to_pandas(self) -> pd.DataFrame:
        """A row for each layer and measure; raises MissingExtraError where pandas is not installed."""
        return frame(self.rows, tuple(Difference.__dataclass_fields__))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; null where a number is not known."""
        facts: dict[str, Any] = without_nan(asdict(self))
        return facts

    def to_csv(self, path: str | PathLike[str]) -> Path:
        """Write the rows, safe for spreadsheets; returns the path. Raises CommitError where that fails."""
        file = Path(path)
        try:
            write_atomic(file, as_csv(self.rows).encode())
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise CommitError(f"{file} could not be written: {why}", hint="Name another file.") from None
        return file

    def __repr__(self) -> str:
        verdicts = [row.verdict or "not known" for row in self.rows]
        counts = {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)}
        said = ", ".join(f"{verdict} ({count})" for verdict, count in counts.items())
        of = f", label {self.label}" if self.label else ""
        return f"A = {self.a}, B = {self.b}{of}: {said}" + (f"; {self.note}" if self.note else "")

    def _repr_html_(self) -> str:
        rows = [
            [row.layer_name, row.metric, *_numbers(row.a, row.b, row.difference, row.low, row.high), row.verdict]
            for row in self.rows
        ]
        header, notes = ("layer", "measure", "A", "B", "A - B", "low", "high", ""), [self.note] if self.note else []
        of = f", label {self.label}" if self.label else ""
        return table(f"A = {self.a}, B = {self.b}{of}", header, rows, notes)


def measure(store: AnyStore, group: str | None = None, *, label: str | None = None) -> Measures:
    """The stored measures of a group, `model/dataset`, which need not be named where the store has one.

    Nothing is computed: the stage `measure` of a run has done that. They are those of the main label by default, and
    `label` is the field of another of several (`labels` of a dataset). Raises StoreError where there is no store or no
    such group, InputError where the group has no such label, has not been measured, or was measured before its states
    or labels changed.

    >>> measures = drillcore.measure("runs/job.zarr")
    >>> measures.metrics[0], measures.best().metric
    ('probe', 'probe')
    >>> list(measures.to_pandas().columns[:4])
    ['layer', 'layer_name', 'metric', 'value']
    """
    found = find_group(store, group)
    further = further_label(found, label)
    measured = _measured(found, found.path, further)
    rows = []
    for slot, (number, name) in enumerate(zip(measured.layers_L.tolist(), measured.layer_names, strict=True)):
        for place, metric in enumerate(measured.metrics):
            at = dict(zip(measured.bounds, measured.values_LMB[slot, place].tolist(), strict=True))
            rows.append(Measure(number, name, metric, **{bound: at[bound] for bound in COLUMNS[3:]}))
    labels, notes = (tuple(map(str, measured.facts.get(name, ()))) for name in ("labels", "notes"))
    recorded: dict[str, dict[str, float | None]] = measured.facts.get("controls", {})
    controls = [Control(name, *map(_known, (each.get(bound) for bound in BOUNDS))) for name, each in recorded.items()]
    skipped = {str(name): str(why) for name, why in measured.facts.get("skipped", {}).items()}
    of = further or next(iter(labels_of(found)), "")
    return Measures(address_of(store), found.path, tuple(rows), labels, notes, tuple(controls), skipped, of)


def compare(store: AnyStore, a: str, b: str, metrics: Sequence[str] = (), *, label: str | None = None) -> Comparison:
    """Two groups of a store, each `model/dataset`, layer by layer; by default by every measure that both have.

    Groups with different layers are paired by relative depth, and each row names both layers. Works from stored
    measures, by default those of the main label of each; `label` is the field of another of several, which both have.
    Raises InputError where a group is missing, has no such label or has not been measured, StoreError where there is no
    store.

    >>> compared = drillcore.compare("runs/job.zarr", "model/sentences", "model/sentences", ["probe"])
    >>> compared.rows[1].layer_name, compared.rows[1].difference
    ('block_1', 0.0)
    """
    address, named = address_of(store), [metrics] if isinstance(metrics, str) else metrics
    root = open_root(Location(address))
    sides = [_side(root, path, label) for path in (a, b)]
    return Comparison(address, a, b, tuple(compare_sides(sides[0], sides[1], named)), label or "")


def _side(root: zarr.Group, path: str, label: str | None) -> Side:
    names = group_names(root)
    group = root[path.strip("/")] if path.strip("/") in names else None
    if not isinstance(group, zarr.Group) or "hidden_states" not in group:
        raise InputError(f"the store has no {path}", hint=f"It has {', '.join(names)}." if names else "It is empty.")
    measured = _measured(group, path, further_label(group, label))
    numbers = tuple(measured.layers_L.tolist())
    return Side(path, numbers, measured.layer_names, measured.metrics, measured.values_LMB)


def _measured(group: zarr.Group, path: str, label: str) -> Measured:
    why = stale(group, of_label("separation", label))
    if why:
        raise InputError(f"{path}: its measures are stale: {why}", hint="Run `drillcore measure` on its job first.")
    measured = read_separation(group, label)
    if measured is None:
        raise InputError(f"{path} has not been measured", hint="Run `drillcore measure` on its job first.")
    return measured


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _numbers(*values: float) -> list[str]:
    return ["" if value != value else f"{value:.3f}" for value in values]
