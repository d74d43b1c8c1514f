"""What a store holds, and how complete it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import zarr

from drillcore.api.page import table
from drillcore.api.stores import AnyStore, address_of, num_sentences, said_of_rows
from drillcore.runtime.results import Measured, further_label, labels_of, read_prediction, read_separation
from drillcore.store.arrays import HEADLINES, is_headline, split_name
from drillcore.store.attributes import GROUPS, attributes_of
from drillcore.store.audits import read_audit
from drillcore.store.committed import fingerprints_of
from drillcore.store.freshness import is_asked_for, stale_results
from drillcore.store.layout import array_of
from drillcore.store.places.location import Location
from drillcore.store.reader import num_rows, open_root
from drillcore.system.files import without_nan

# Results that are named where they are stale.
NAMED = (*HEADLINES, "prediction", "candidate_logprob")


@dataclass(frozen=True)
class Audit:
    """The last audit. state: passed; pending where it did not end; outdated where the states changed since.

    sentences: that were read back and computed again. worst_relative_error: of all of them.
    """

    state: Literal["passed", "pending", "outdated"]
    sentences: int
    worst_relative_error: float


@dataclass(frozen=True)
class Curve:
    """A measure along the layers.

    values: NaN where it was skipped. low: what chance gives. best: its largest value. controls: what a probe reaches
    that needs no model, by name; empty for token prediction.
    """

    metric: str
    values: tuple[float, ...]
    low: float
    best: float
    best_layer: str
    controls: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Stale:
    """A result that does not belong to what it stands beside. asked: whether the job makes it again."""

    name: str
    why: str
    asked: bool


@dataclass(frozen=True)
class Group:
    """One model and dataset.

    sentences, rows: how many; as many of both unless a sentence has any number of rows. complete: share of committed
    shards, 0 to 1. in_job: whether it belongs to the job still. results: names of those that are there, stale ones
    included. separation: of the main label. by_label: of each label, by its field, where there are several. skipped:
    why measures were taken at no layer, by their names; of a label beside the main one after its field: `kind: probe`.
    """

    model: str
    dataset: str
    sentences: int = 0
    layers: int = 0
    hidden_size: int = 0
    complete: float = 0.0
    in_job: bool = True
    has_states: bool = False
    audit: Audit | None = None
    results: tuple[str, ...] = ()
    stale: tuple[Stale, ...] = ()
    separation: Curve | None = None
    prediction: Curve | None = None
    rows: int = 0
    skipped: Mapping[str, str] = field(default_factory=dict)
    by_label: Mapping[str, Curve | None] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Its path in the store."""
        return f"{self.model}/{self.dataset}"

    @property
    def said_of_size(self) -> str:
        """How many sentences, and rows where there are others."""
        return f"{self.sentences:,}" + (f" ({self.rows:,} rows)" if self.rows != self.sentences else "")

    @property
    def said_of_audit(self) -> str:
        """The audit in a few words."""
        if self.audit is None:
            return "none"
        if self.audit.state == "passed":
            return f"{self.audit.sentences} to {self.audit.worst_relative_error:.0e}"
        return "not of these states" if self.audit.state == "outdated" else "not ended"

    @property
    def said_of_results(self) -> str:
        """The names of the results."""
        stale = {each.name for each in self.stale}
        return ", ".join(f"{name} (stale)" if name in stale else name for name in self.results) or "none"

    @property
    def said_of_states(self) -> str:
        """How complete it is."""
        return f"{self.complete:.0%}" + ("" if self.in_job or not self.has_states else ", left the job")


@dataclass(frozen=True)
class Shown:
    """What a store holds. store: its address; job: the name of its job; format: number of the store's format."""

    store: str
    job: str
    format: int
    groups: tuple[Group, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; null where a number is not known."""
        facts: dict[str, Any] = without_nan(asdict(self))
        return facts

    def __repr__(self) -> str:
        lines = [
            f"{g.path}: {said_of_rows(g.sentences, g.rows)}, {g.layers} layers of {g.hidden_size}, {g.said_of_states}, "
            f"audit {g.said_of_audit}, results {g.said_of_results}"
            for g in self.groups
        ]
        return "\n".join([f"store {self.store}: job {self.job}", *lines])

    def _repr_html_(self) -> str:
        header = ("model", "dataset", "sentences", "layers", "hidden", "complete", "audit", "results", "best layer")
        rows = [
            (
                *(g.model, g.dataset, g.said_of_size, g.layers, g.hidden_size),
                *(g.said_of_states, g.said_of_audit, g.said_of_results),
                "" if g.separation is None else g.separation.best_layer,
            )
            for g in self.groups
        ]
        stale = [f"stale: {g.path}: {each.name}: {each.why}" for g in self.groups for each in g.stale]
        return table(f"store {self.store}: job {self.job}", header, rows, stale)


def show(store: AnyStore) -> Shown:
    """What a store holds, and how complete it is: a typed value that notebooks show as a table.

    Raises StoreError where there is no store, DamageError where it is damaged.

    >>> shown = drillcore.show("runs/job.zarr")
    >>> [(group.path, group.sentences, group.complete) for group in shown.groups]
    [('model/sentences', 12, 1.0)]
    """
    address = address_of(store)
    root = open_root(Location(address))
    attributes = attributes_of(root)
    job: list[str] | None = attributes.get(GROUPS)
    groups = tuple(
        _group(model, dataset, leaf, job is None or leaf.path in job)
        for model, group in sorted(root.groups())
        for dataset, leaf in sorted(group.groups())
    )
    return Shown(address, str(attributes["job"]), int(attributes["format"]), groups)


def _group(model: str, dataset: str, group: zarr.Group, in_job: bool) -> Group:
    stale = _stale(group, stale_results(group), in_job)
    curves: dict[str, Any] = {
        "separation": _curve(read_separation(group)),
        "prediction": _curve(read_prediction(group), "top1"),
        "by_label": {label: _curve(read_separation(group, further_label(group, label))) for label in labels_of(group)},
        "skipped": _skipped(group),
    }
    if "hidden_states" not in group:
        return Group(model, dataset, in_job=in_job, stale=stale, **curves)
    prints = fingerprints_of(group)
    results: Mapping[str, Any] = attributes_of(group).get("results", {})
    _, layers, hidden = array_of(group, "hidden_states").shape
    return Group(
        model=model,
        dataset=dataset,
        sentences=num_sentences(group),
        rows=num_rows(group),
        layers=layers,
        hidden_size=hidden,
        complete=sum(map(bool, prints)) / max(1, len(prints)),
        in_job=in_job,
        has_states=True,
        audit=_audit(group, prints),
        results=tuple(sorted(filter(is_headline, results), key=_place)),
        stale=stale,
        **curves,
    )


def _stale(group: zarr.Group, why: Mapping[str, str], in_job: bool) -> tuple[Stale, ...]:
    return tuple(
        Stale(name, reason, in_job and is_asked_for(group, name))
        for name, reason in why.items()
        if split_name(name)[0] in NAMED
    )


def _place(name: str) -> tuple[bool, int]:
    """Where a result is named: in the order of the table, and those of further labels last."""
    own, label = split_name(name)
    return bool(label), HEADLINES.index(own)


def _audit(group: zarr.Group, fingerprints: Sequence[str]) -> Audit | None:
    record = read_audit(group)
    if record is None:
        return None
    state: Literal["passed", "pending", "outdated"] = "outdated" if record.of else "pending"
    if record.is_of(fingerprints):
        state = "passed"
    return Audit(state, record.sentences, record.worst_relative_error)


def _skipped(group: zarr.Group) -> Mapping[str, str]:
    """Why measures were taken at no layer, by their names."""
    found = dict[str, str]()
    for label in labels_of(group) or ("",):
        further = further_label(group, label) if label else ""
        measured = read_separation(group, further)
        for name, why in {} if measured is None else measured.facts.get("skipped", {}).items():
            if measured is not None and measured.of(name) is None:
                found[f"{further}: {name}" if further else str(name)] = str(why)
    return found


def _curve(measured: Measured | None, metric: str = "") -> Curve | None:
    """metric: by default the primary one."""
    metric = metric or ("" if measured is None else measured.primary)
    by_bound, best = (None, None) if measured is None else (measured.of(metric), measured.best(metric))
    if measured is None or by_bound is None or best is None:
        return None
    low = 1 / measured.num_labels if measured.num_labels else 0.0
    values = tuple(by_bound["value"].tolist())
    return Curve(metric, values, low, best.value, best.layer_name, measured.controls())
