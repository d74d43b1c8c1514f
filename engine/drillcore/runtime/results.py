"""The results of a group as typed values: its measures, and the facts of its projection. The one place that reads them.

Shape legend: L layers (as stored), M measures, B bounds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from drillcore.errors import InputError
from drillcore.measures import PRIMARY
from drillcore.store.arrays import of_label
from drillcore.store.attributes import attributes_of
from drillcore.store.freshness import LABELS, WANTED, stale
from drillcore.store.layout import read_array

DECISIONS = "probe_decision"


def p_in_words(p: float) -> str:
    """A p value as it is read: no more digits than the number of permutations gives.

    >>> p_in_words(1 / 1001), p_in_words(0.0123456), p_in_words(1.0)
    ('< 0.001', '= 0.012', '= 1.000')
    """
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


@dataclass(frozen=True)
class BestLayer:
    """Where a measure is largest. slot: position of the layer in the store. null_high, p: NaN without a null."""

    slot: int
    layer_name: str
    value: float
    low: float
    high: float
    null_high: float
    p: float


@dataclass(frozen=True, eq=False)
class Measured:
    """Stored measures of one group: `separation` or `prediction`.

    layers_L: numbers of the layer contract. values_LMB: float32, NaN where a measure was skipped. facts: the record of
    the array (settings, notes, labels, controls), JSON-ready.
    """

    layers_L: NDArray[np.int64]
    layer_names: tuple[str, ...]
    metrics: tuple[str, ...]
    bounds: tuple[str, ...]
    values_LMB: NDArray[np.float32]
    facts: dict[str, Any]

    @property
    def num_labels(self) -> int:
        """Distinct labels that were measured; 0 for token prediction."""
        return len(self.facts.get("labels", ()))

    @property
    def primary(self) -> str:
        """The measure that claims rest on: `probe`, or `r2` where the labels are numbers."""
        return str(self.facts.get("primary", PRIMARY))

    def of(self, metric: str) -> dict[str, NDArray[np.float32]] | None:
        """Values [L] of one measure by bound; None where it was not chosen, or skipped at every layer."""
        if metric not in self.metrics:
            return None
        values_LB = self.values_LMB[:, self.metrics.index(metric)]
        by_bound = {bound: values_LB[:, b] for b, bound in enumerate(self.bounds)}
        return None if np.isnan(by_bound["value"]).all() else by_bound

    def best(self, metric: str) -> BestLayer | None:
        """The layer at which a measure is largest; None where `of` gives None."""
        by_bound = self.of(metric)
        if by_bound is None:
            return None
        slot = int(np.nanargmax(by_bound["value"]))
        at = {bound: float(values_L[slot]) for bound, values_L in by_bound.items()}
        return BestLayer(slot, self.layer_names[slot], at["value"], at["low"], at["high"], at["null_high"], at["p"])

    def controls(self) -> dict[str, float]:
        """Value of each control that could be measured, by its name."""
        recorded = self.facts.get("controls", {})
        return {name: float(c["value"]) for name, c in recorded.items() if c.get("value") is not None}


def read_separation(group: zarr.Group, label: str = "") -> Measured | None:
    """How well the layers of a group separate its labels; None where it has not been measured.

    label: a further label; "" is the main one.
    """
    return _read_measured(group, of_label("separation", label), of_label("metric", label))


@dataclass(frozen=True, eq=False)
class Decisions:
    """What the probe takes the sentences [N] of a group for.

    codes_LN: place in `labels` of the label that the probe of a layer, which has not seen the sentence, gives it; -1
    where it gives none.
    """

    labels: tuple[str, ...]
    codes_LN: NDArray[np.int16]


def read_decisions(group: zarr.Group, label: str = "") -> Decisions | None:
    """The decisions of a group by a further label, "" for the main one; None where it has none, or stale ones."""
    name = of_label(DECISIONS, label)
    facts = result_facts(group, name)
    return None if facts is None else Decisions(tuple(facts["labels"]), read_array(group, name))


def labels_of(group: zarr.Group) -> tuple[str, ...]:
    """The fields of a group's labels, the main one first; none where it has one label, or no label, alone."""
    return tuple(map(str, attributes_of(group).get(WANTED, {}).get(LABELS, ())))


def columns_of_labels(group: zarr.Group) -> dict[str, str]:
    """The coordinate of each label by its field, the main one first; empty where there are not several."""
    return {field: field if place else "label" for place, field in enumerate(labels_of(group))}


def further_label(group: zarr.Group, wanted: str | None) -> str:
    """The further label that a reader names; "" for the main one: None, its field, or `label`.

    Raises InputError where the group has no such label.
    """
    fields = labels_of(group)
    if wanted in (None, "label", *fields[:1]):
        return ""
    if wanted in fields:
        return str(wanted)
    has = f"It has {', '.join(fields)}." if fields else "Several are named by `labels` of a dataset; leave this out."
    raise InputError(f"{group.path} has no label {wanted} beside others", hint=has)


def read_prediction(group: zarr.Group) -> Measured | None:
    """How well the layers of a group predict its expected tokens; None where that has not been measured."""
    return _read_measured(group, "prediction", "prediction_metric")


def _read_measured(group: zarr.Group, array: str, coordinate: str) -> Measured | None:
    facts = result_facts(group, array)
    if facts is None:
        return None
    return Measured(
        read_array(group, "layer"),
        tuple(map(str, read_array(group, "layer_name"))),
        tuple(map(str, read_array(group, coordinate))),
        tuple(map(str, read_array(group, "bound"))),
        read_array(group, array),
        facts,
    )


def result_facts(group: zarr.Group, array: str) -> dict[str, Any] | None:
    """The record of a result, JSON-ready; None where the group does not have the result, or it is stale.

    A stale result does not belong to the states, labels and settings that it stands beside: `freshness.stale` says why.
    """
    facts: dict[str, Any] | None = attributes_of(group).get("results", {}).get(array)
    if facts is None or array not in group or stale(group, array):
        return None
    return {name: value for name, value in facts.items() if name != "inputs"}


@dataclass(frozen=True)
class ProjectionFacts:
    """How the points of a group were made.

    backend: library and version; reason: why it was chosen. n_neighbors, min_dist, metric: those of UMAP. fit: each or
    joint. degenerate: layers without variance. notes: what a reader of a panel must know, by the layer's name. Fields
    that older versions did not record are None.
    """

    backend: str
    reason: str = ""
    seed: int | None = None
    n_neighbors: int | None = None
    min_dist: float | None = None
    metric: str | None = None
    fit: str = "each"
    aligned: bool = False
    degenerate: int = 0
    notes: dict[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """JSON-ready, without the fields that are None and without `notes` where there are none."""
        facts = {name: value for name, value in asdict(self).items() if value is not None}
        return facts if self.notes else {name: value for name, value in facts.items() if name != "notes"}


def read_projection_facts(group: zarr.Group, method: str) -> ProjectionFacts | None:
    """Facts of a group's projection; None where the group has not been projected by this method."""
    facts = result_facts(group, method)
    if facts is None:
        return None
    known = {f.name for f in fields(ProjectionFacts)}
    return ProjectionFacts(**{name: value for name, value in facts.items() if name in known})
