"""What the report says first: at which layer the labels separate best, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from drillcore.job.groups import Group
from drillcore.measures import CONTROLS, PRIMARY
from drillcore.pictures.data import Answer, Chart
from drillcore.runtime.context import Context
from drillcore.runtime.results import BestLayer, Measured, p_in_words, read_separation
from drillcore.runtime.stages.render.charts import LOOKS, SPLIT, title_of
from drillcore.runtime.stages.render.curves import panels_of
from drillcore.runtime.stages.render.layers import label_fields, model_title
from drillcore.store.reader import num_rows

NAMED = 4  # labels; of more there is the number


@dataclass(frozen=True)
class _Best:
    """Where the probe of a label is best. model: its group. label: a further one. named: its field, where not alone."""

    model: str
    dataset: Group
    label: str
    named: str
    measured: Measured
    best: BestLayer


def answer_of(context: Context, charts: Sequence[Chart]) -> Answer | None:
    """The answer of a job, for each label; None where nothing was measured, or no chart shows it."""
    found: dict[str, list[_Best]] = {}
    for each in _found(context):
        found.setdefault(each.named, []).append(each)
    told: list[tuple[int, _Best]] = []
    for every in found.values():
        top = max(every, key=lambda each: _above_null(each.best))
        chart = _chart_of(context, top, charts)
        if chart is not None:
            told.append((chart, top))
    if not told:
        return None
    chart, first = told[0]
    models = sum(not model.random_weights for model in context.job.models)
    question = f"Which layers of the {_plural(models, 'model')} {_what([top for _, top in told])}?"
    shows = panels_of(context, first.model, first.dataset, first.label)
    words = [_said(context, top, len(found[top.named])) for _, top in told]
    return Answer((question, *words), chart, (*shows, int(first.measured.layers_L[first.best.slot])))


def _found(context: Context) -> Iterator[_Best]:
    """The best layer of every model and dataset by each of its labels, without those of random weights."""
    for model in context.job.models:
        for dataset in context.job.measured_groups:
            for label in ("", *dataset.more_labels):
                measured = read_separation(context.store.dataset(model.group, dataset.name).group, label)
                best = None if measured is None else measured.best(measured.primary)
                if measured is not None and best is not None and not model.random_weights:
                    yield _Best(model.group, dataset, label, label_fields([dataset], label), measured, best)


def _chart_of(context: Context, top: _Best, charts: Sequence[Chart]) -> int | None:
    """Number of the chart that shows a best layer; None where there is none."""
    shows = panels_of(context, top.model, top.dataset, top.label)
    title = f"{SPLIT}{title_of(top.measured.primary, top.label)}{SPLIT}"
    for number, chart in enumerate(charts):
        # Those of the main label come first.
        if title in f"{SPLIT}{chart.title}{SPLIT}" and any(series.shows == shows for series in chart.series):
            return number
    return None


def _what(told: Sequence[_Best]) -> str:
    """What the layers do, as the end of a question."""
    if len(told) > 1:
        named = [top.named for top in told if top.named]
        return f"hold {_listed(named)}" if 1 < len(named) <= NAMED else "hold the labels"
    measured = told[0].measured
    return f"tell {_labels(measured)} apart" if measured.primary == PRIMARY else "hold the label's number"


def _said(context: Context, top: _Best, among: int) -> str:
    """A paragraph on the best layer of a label. among: pairs of model and dataset that have it."""
    measured, best, dataset = top.measured, top.best, top.dataset.name
    count = num_rows(context.store.dataset(top.model, dataset).group) - int(measured.facts.get("unlabelled", 0))
    title, of = model_title(context, top.model), f" of the {among} pairs of model and dataset" if among > 1 else ""
    start = f"{top.named}: best" if top.named else "Best"
    where = f"{start}{of} at {best.layer_name.replace('_', ' ')} of {title}, in {dataset} ({count:,} sentences)"
    alone = [f"{CONTROLS.get(name, name)} {value:.2f}" for name, value in measured.controls().items()]
    beaten = "" if all(value < best.value for value in measured.controls().values()) else ", which no layer beats"
    without = f" Without the model: {', '.join(alone)}{beaten}." if alone else ""
    look = LOOKS["separation", measured.primary]
    value = f"{look.value_name} {best.value:.2f} (95 % interval {best.low:.2f} to {best.high:.2f})"
    return f"{where}: {value}{_verdict(best)}{without}"


def _above_null(best: BestLayer) -> float:
    return best.value - (best.null_high if np.isfinite(best.null_high) else 0.0)


def _verdict(best: BestLayer) -> str:
    """Whether the best layer is more than chance."""
    if not np.isfinite(best.null_high):
        return "; no null was measured."
    reach = f"reaches {best.null_high:.2f} over all layers (p {p_in_words(best.p)})"
    if best.value > best.null_high:
        return f", more than chance: the null, with permuted labels, {reach}."
    return f", no more than chance: the null, with permuted labels, {reach}."


def _labels(measured: Measured) -> str:
    labels = [str(label) for label in measured.facts.get("labels", ())]
    if len(labels) > NAMED:
        return f"{len(labels)} labels"
    return _listed(labels) if len(labels) > 1 else "the labels"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]])


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{count} {word}s"
