"""Which curves a job has: a model's datasets as lines; a dataset's models as lines; controls beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from drillcore.job.model import Model
from drillcore.pictures.data import Chart, Charts
from drillcore.runtime.context import Context
from drillcore.runtime.stages.render import names
from drillcore.runtime.stages.render.charts import LineSource, chart_inputs, charts_of, small_print
from drillcore.runtime.stages.render.layers import drawn_models, model_title
from drillcore.runtime.stages.render.points import states_in_words

RANDOM = "control: random weights"


@dataclass(frozen=True)
class CurvesSpec:
    """A picture of charts. name: of its file. relative: drawn by relative depth, because the models' depths differ.

    over_models: the lines are models, not datasets.
    """

    name: str
    title: str
    subtitle: str
    sources: tuple[LineSource, ...]
    relative: bool = False
    over_models: bool = False

    def inputs(self) -> list[Any]:
        """What the picture depends on, JSON-ready."""
        return [self.title, self.subtitle, self.relative, [chart_inputs(s) for s in self.sources]]

    def charts(self) -> Charts | None:
        """The charts; None where nothing was measured."""
        charts = charts_of(self.sources)
        if not charts:
            return None
        return Charts(self.title, self.subtitle, charts, small_print(self.sources), self.relative)


def curve_specs(context: Context) -> list[CurvesSpec]:
    """All pictures of curves of a job, models first, without those for which nothing was measured."""
    models = context.job.models
    datasets = [d.name for d in context.job.measured_groups]
    specs = [_of_model(context, model, datasets) for model in models if not _is_control(model, models)]
    if sum(not _is_control(model, models) for model in models) > 1:
        specs += [_over_models(context, models, dataset) for dataset in datasets]
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
            notes[small_print(spec.sources)] = None
    return tuple(all_charts), " ".join(notes)


def panels_of(context: Context, model: str, dataset: str) -> tuple[str, str]:
    """Name of the dataset and title of the row that a model's panels have in the report."""
    title = model_title(context, model)
    group = next(g for g in context.job.measured_groups if g.name == dataset)
    # Rows are tokens, and those of another model are others.
    is_alone = group.position.is_ragged and len(drawn_models(context, dataset)) > 1
    return (f"{dataset} · {title}", "") if is_alone else (dataset, title)


def _is_control(model: Model, models: tuple[Model, ...]) -> bool:
    """Whether a model has random weights, and the job also has the same model with trained weights."""
    return model.random_weights and any(m.id == model.id and not m.random_weights for m in models)


def _of_model(context: Context, model: Model, datasets: list[str]) -> CurvesSpec:
    beside = [m for m in context.job.models if _is_control(m, (model,))]
    sources = [
        LineSource(d, context.store.dataset(model.group, d).group, shows=panels_of(context, model.group, d))
        for d in datasets
    ]
    for other in beside:
        groups = [context.store.dataset(other.group, d).group for d in datasets]
        sources += [LineSource(RANDOM, g, control=True, of=d) for d, g in zip(datasets, groups, strict=True)]
    what = states_in_words(source.group for source in sources)
    subtitle = f"measures of the {what}, layer by layer"
    return CurvesSpec(names.curves_of_model(model.group), model_title(context, model.group), subtitle, tuple(sources))


def _over_models(context: Context, models: tuple[Model, ...], dataset: str) -> CurvesSpec:
    sources = []
    for model in models:
        same = next((m for m in models if m.id == model.id and not m.random_weights), model)
        control = _is_control(model, models)
        group = context.store.dataset(model.group, dataset).group
        of = model_title(context, same.group) if control else ""
        name = RANDOM if control else model_title(context, model.group)
        sources.append(LineSource(name, group, control, of, panels_of(context, model.group, dataset)))
    depths = {context.inputs.layers[m.group][-1] for m in models}
    what = states_in_words(source.group for source in sources)
    subtitle = f"measures of the {what} of all models, layer by layer"
    return CurvesSpec(names.curves_of_all_models(dataset), dataset, subtitle, tuple(sources), len(depths) > 1, True)
