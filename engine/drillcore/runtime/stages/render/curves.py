"""Which curves a job has: a model's datasets as lines; a dataset's models as lines; controls beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from drillcore.job.groups import Group
from drillcore.job.model import Model
from drillcore.pictures.data import Chart, Charts
from drillcore.runtime.context import Context
from drillcore.runtime.stages.render import names
from drillcore.runtime.stages.render.charts import LineSource, chart_inputs, charts_of, small_print
from drillcore.runtime.stages.render.layers import drawn_models, label_fields, model_title, panels_name
from drillcore.runtime.stages.render.points import states_in_words

RANDOM = "control: random weights"


@dataclass(frozen=True)
class CurvesSpec:
    """A picture of charts. name: of its file. relative: drawn by relative depth, because the models' depths differ.

    over_models: the lines are models, not datasets. label: that is named, where a dataset has several.
    """

    name: str
    title: str
    subtitle: str
    sources: tuple[LineSource, ...]
    relative: bool = False
    over_models: bool = False
    label: str = ""

    def inputs(self) -> list[Any]:
        """What the picture depends on, JSON-ready."""
        label = [self.label] if self.label else []
        return [self.title, self.subtitle, self.relative, [chart_inputs(s) for s in self.sources], *label]

    def charts(self) -> Charts | None:
        """The charts; None where nothing was measured."""
        charts = charts_of(self.sources, self.label)
        if not charts:
            return None
        return Charts(self.title, self.subtitle, charts, small_print(self.sources, self.label), self.relative)


def curve_specs(context: Context) -> list[CurvesSpec]:
    """All pictures of curves of a job, models first, without those for which nothing was measured."""
    models, datasets = context.job.models, context.job.measured_groups
    further = dict.fromkeys(label for dataset in datasets for label in dataset.more_labels)
    specs = list[CurvesSpec]()
    for label in ("", *further):
        having = [d for d in datasets if not label or label in d.more_labels]
        specs += [_of_model(context, model, having, label) for model in models if not _is_control(model, models)]
        if sum(not _is_control(model, models) for model in models) > 1:
            specs += [_over_models(context, models, dataset, label) for dataset in having]
    return [spec for spec in specs if charts_of(spec.sources)]


def report_charts(specs: list[CurvesSpec]) -> tuple[tuple[Chart, ...], str]:
    """The report's charts, over models where there are several, else the one model's; and their small print."""
    over_models = [spec for spec in specs if spec.over_models]
    all_charts: list[Chart] = []
    notes: dict[str, None] = {}
    for spec in over_models or specs:
        charts = spec.charts()
        for chart in charts.charts if charts else ():
            title = f"{spec.title} · {chart.title}" if over_models else chart.title
            all_charts.append(replace(chart, title=title, relative_depth=spec.relative))
            notes[small_print(spec.sources, spec.label)] = None
    return tuple(all_charts), " ".join(notes)


def panels_of(context: Context, model: str, dataset: Group, label: str = "") -> tuple[str, str]:
    """Name of the dataset and title of the row that a model's panels have in the report.

    label: a further label that colours them; "" is the main one.
    """
    title, name = model_title(context, model), panels_name(context, dataset, label)
    # Rows are tokens, and those of another model are others.
    is_alone = dataset.position.is_ragged and len(drawn_models(context, dataset.name)) > 1
    return (f"{name} · {title}", "") if is_alone else (name, title)


def _is_control(model: Model, models: tuple[Model, ...]) -> bool:
    """Whether a model has random weights, and the job also has the same model with trained weights."""
    return model.random_weights and any(m.id == model.id and not m.random_weights for m in models)


def _of_model(context: Context, model: Model, datasets: Sequence[Group], label: str) -> CurvesSpec:
    sources = []
    for d in datasets:
        group, shows = context.store.dataset(model.group, d.name).group, panels_of(context, model.group, d, label)
        sources.append(LineSource(d.name, group, shows=shows, label=label))
    for other in (m for m in context.job.models if _is_control(m, (model,))):
        for d in datasets:
            group = context.store.dataset(other.group, d.name).group
            sources.append(LineSource(RANDOM, group, control=True, of=d.name, label=label))
    what, named = states_in_words(source.group for source in sources), label_fields(datasets, label)
    subtitle, name = f"{_measures(named)} of the {what}, layer by layer", names.curves_of_model(model.group, label)
    return CurvesSpec(name, model_title(context, model.group), subtitle, tuple(sources), label=named)


def _over_models(context: Context, models: tuple[Model, ...], dataset: Group, label: str) -> CurvesSpec:
    sources = []
    for model in models:
        same = next((m for m in models if m.id == model.id and not m.random_weights), model)
        control = _is_control(model, models)
        group = context.store.dataset(model.group, dataset.name).group
        of = model_title(context, same.group) if control else ""
        title = RANDOM if control else model_title(context, model.group)
        sources.append(LineSource(title, group, control, of, panels_of(context, model.group, dataset, label), label))
    depths = {context.inputs.layers[m.group][-1] for m in models}
    what, named = states_in_words(source.group for source in sources), label_fields([dataset], label)
    subtitle = f"{_measures(named)} of the {what} of all models, layer by layer"
    name = names.curves_of_all_models(dataset.name, label)
    return CurvesSpec(name, dataset.name, subtitle, tuple(sources), len(depths) > 1, over_models=True, label=named)


def _measures(label: str) -> str:
    return f"measures by {label}" if label else "measures"
