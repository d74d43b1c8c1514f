"""What the report says first: at which layer the labels separate best, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from drillcore.measures import CONTROLS, PRIMARY
from drillcore.pictures.data import Answer, Chart
from drillcore.runtime.context import Context
from drillcore.runtime.results import BestLayer, Measured, p_in_words, read_separation
from drillcore.runtime.stages.render.charts import LOOKS
from drillcore.runtime.stages.render.curves import panels_of
from drillcore.runtime.stages.render.layers import model_title
from drillcore.store.reader import num_rows

NAMED = 4  # labels; of more there is the number


def answer_of(context: Context, charts: Sequence[Chart]) -> Answer | None:
    """The answer of a job; None where nothing was measured, or no chart shows it."""
    job = context.job
    found: list[tuple[str, str, Measured, BestLayer]] = []
    for model in job.models:
        for dataset in job.measured_groups:
            measured = read_separation(context.store.dataset(model.group, dataset.name).group)
            best = None if measured is None else measured.best(measured.primary)
            if measured is not None and best is not None and not model.random_weights:
                found.append((model.group, dataset.name, measured, best))
    if not found:
        return None
    model_name, dataset_name, measured, best = max(found, key=lambda each: _above_null(each[3]))
    shows = panels_of(context, model_name, dataset_name)
    look = LOOKS["separation", measured.primary]
    chart = next(
        (i for i, c in enumerate(charts) if look.title in c.title and any(s.shows == shows for s in c.series)), None
    )
    if chart is None:
        return None
    count = num_rows(context.store.dataset(model_name, dataset_name).group) - int(measured.facts.get("unlabelled", 0))
    layer = int(measured.layers_L[best.slot])
    title = model_title(context, model_name)
    among = f" of the {len(found)} pairs of model and dataset" if len(found) > 1 else ""
    models = sum(not model.random_weights for model in job.models)
    what = f"tell {_labels(measured)} apart" if measured.primary == PRIMARY else "hold the label's number"
    question = f"Which layers of the {_plural(models, 'model')} {what}?"
    where = f"Best{among} at {best.layer_name.replace('_', ' ')} of {title}, in {dataset_name} ({count:,} sentences)"
    alone = [f"{CONTROLS.get(name, name)} {value:.2f}" for name, value in measured.controls().items()]
    beaten = "" if all(value < best.value for value in measured.controls().values()) else ", which no layer beats"
    without = f" Without the model: {', '.join(alone)}{beaten}." if alone else ""
    value = f"{look.value_name} {best.value:.2f} (95 % interval {best.low:.2f} to {best.high:.2f})"
    return Answer((question, f"{where}: {value}{_verdict(best)}{without}"), chart, (*shows, layer))


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
    return " and ".join([", ".join(labels[:-1]), labels[-1]]) if len(labels) > 1 else "the labels"


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{count} {word}s"
