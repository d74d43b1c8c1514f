"""Grids from the projections of the store: for a model each dataset and all of them, for a dataset all models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.job.fields import Job
from drillcore.job.groups import Group
from drillcore.job.stages import Project, Render
from drillcore.measures import OF_NUMBERS, PRIMARY
from drillcore.pictures.data import Grid, Panel, PanelRow
from drillcore.pictures.grid.layout import aligned_by_depth
from drillcore.runtime.context import Context
from drillcore.runtime.results import ProjectionFacts, read_separation, result_facts
from drillcore.runtime.stages.render import names
from drillcore.runtime.stages.render.colors import Coloring, coloring
from drillcore.runtime.stages.render.layers import (
    MAIN,
    drawn_models,
    model_title,
    named_label,
    panels_name,
    slots_of,
    unprojected,
)
from drillcore.runtime.stages.render.points import ProjectedPoints, states_in_words
from drillcore.store.arrays import of_label
from drillcore.store.writer import GroupWriter

# What the figures beside layers' names are, by the primary measure.
FIGURES = {PRIMARY: "balanced accuracy", OF_NUMBERS: "R²"}


@dataclass(frozen=True)
class GridSpec:
    """A grid to draw. name: of its file. members: heading and group of each row.

    label: the further label that colours the points; "" for what the job colours by. named: the label's field, where a
    dataset of the grid has several.
    """

    name: str
    title: str
    members: tuple[tuple[str, GroupWriter], ...]
    label: str = ""
    named: str = ""

    def inputs(self, method: str) -> list[Any]:
        """What the grid depends on, JSON-ready."""
        measured = [result_facts(w.group, of_label("separation", self.label)) for _, w in self.members]
        label = [[self.label, self.named]] if self.named else []
        return [self.title, measured, *label, *([heading, *point_inputs(w, method)] for heading, w in self.members)]


def point_inputs(writer: GroupWriter, method: str) -> list[str]:
    """What a group's panels depend on."""
    columns = writer.columns_made_from() or "None"
    return [writer.group.path, writer.result_made_from(method), columns]


def grid_specs(context: Context) -> list[GridSpec]:
    """All grids of a job, of the models and datasets that are projected."""
    models, missing = [m.group for m in context.job.models], unprojected(context)
    specs: list[GridSpec] = []
    for label in colored_by(context.job, context.job.measured_groups):
        having = [d for d in context.job.measured_groups if not label or label in d.more_labels]
        for model in models:
            specs += _of_model(context, model, [d for d in having if (model, d.name) not in missing], label)
        if len(models) > 1:
            specs += [over_models(context, d, names.of_all_models(d.name, label), label) for d in having]
    return [spec for spec in specs if spec.members]


def colored_by(job: Job, datasets: Sequence[Group]) -> list[str]:
    """The further labels of datasets after "", the main one: each has grids. The main alone where the job names another
    coordinate that colours the points."""
    further = (label for dataset in datasets for label in dataset.more_labels)
    return ["", *(dict.fromkeys(further) if job.render.color == MAIN else ())]


def _of_model(context: Context, model: str, datasets: Sequence[Group], label: str) -> list[GridSpec]:
    """The grids of a model: of each dataset, and of all."""
    title, specs = model_title(context, model), list[GridSpec]()
    writers = {d.name: context.store.dataset(model, d.name) for d in datasets}
    for d in datasets:
        name, members = names.of_dataset(model, d.name, label), (("", writers[d.name]),)
        named = named_label(context, [d], label)
        specs.append(GridSpec(name, f"{title} · {panels_name(context, d, label)}", members, label, named))
    if len(datasets) > 1:
        named = named_label(context, datasets, label)
        name, called = names.of_all_datasets(model, label), f"{title} · {named}" if named else title
        specs.append(GridSpec(name, called, tuple(writers.items()), label, named))
    return specs


def over_models(context: Context, dataset: Group, name: str, label: str) -> GridSpec:
    """A dataset with the models as rows for which it is projected."""
    rows = tuple(
        (model_title(context, model), context.store.dataset(model, dataset.name))
        for model in drawn_models(context, dataset.name)
    )
    named = named_label(context, [dataset], label)
    return GridSpec(name, panels_name(context, dataset, label), rows, label, named)


def build_grid(spec: GridSpec, settings: Render, project: Project) -> Grid:
    """The grid; its points are read when they are drawn.

    Raises RunError where the job colours by a coordinate that does not exist.
    """
    projections = [ProjectedPoints(writer.group, project.method) for _, writer in spec.members]
    colors = coloring([writer.group for _, writer in spec.members], spec.label or settings.color, spec.named)
    figures = [_figures(writer, settings.color, spec.label) for _, writer in spec.members]
    rows = tuple(
        PanelRow(heading, _panels(projection, values_N, settings, of_layers))
        for (heading, _), projection, values_N, of_layers in zip(
            spec.members, projections, colors.values, figures, strict=True
        )
    )
    states = states_in_words(writer.group for _, writer in spec.members)
    grid = Grid(
        title=spec.title,
        subtitle=f"{states}, {project.method.upper()} of each layer; {colors.words}",
        rows=rows,
        categories=colors.categories,
        value_range=colors.value_range,
        value_name=colors.value_name,
        unlabelled=_unlabelled(spec, colors),
        panel_px=settings.panel_px,
        every_point=settings.outliers == "inside",
        footer=_footer(projections, project) + _about_figures(spec, figures),
    )
    if settings.align_depth and len(rows) > 1:
        grid = aligned_by_depth(grid)
        return replace(grid, subtitle=f"{grid.subtitle}; columns: relative depth")
    return grid


def _unlabelled(spec: GridSpec, colors: Coloring) -> int:
    """Sentences of the grid without label or value; a dataset that several models read counts once."""
    groups = [writer.group.path.rpartition("/")[2] for _, writer in spec.members]
    return sum(dict(zip(groups, colors.unlabelled, strict=False)).values())


def _panels(
    projection: ProjectedPoints, values_N: NDArray[Any], settings: Render, figures: dict[int, tuple[str, bool]]
) -> tuple[Callable[[], Panel], ...]:
    return tuple(partial(_panel, projection, values_N, figures, k) for k in slots_of(settings, projection.numbers))


def _panel(
    projection: ProjectedPoints, values_N: NDArray[Any], figures: dict[int, tuple[str, bool]], slot: int
) -> Panel:
    values_N = values_N if values_N.dtype == np.float32 else values_N.astype(np.int32, copy=False)
    degenerate, number = bool(projection.degenerate_L[slot]), projection.numbers[slot]
    figure, is_notable = figures.get(number, ("", False))
    return Panel(projection.names[slot], projection.layer(slot), values_N, degenerate, number, figure, is_notable)


def _figures(writer: GroupWriter, color: str, label: str) -> dict[int, tuple[str, bool]]:
    """The primary measure of each layer in words, and whether it is above the null; none where colours are others."""
    measured = read_separation(writer.group, label) if color == MAIN else None
    by_bound = None if measured is None else measured.of(measured.primary)
    if measured is None or by_bound is None:
        return {}
    value_L, high_L = by_bound["value"], by_bound["null_high"]
    return {
        int(layer): (f"{value:.2f}", bool(value > high))
        for layer, value, high in zip(measured.layers_L, value_L, high_L, strict=True)
        if np.isfinite(value)
    }


def _about_figures(spec: GridSpec, figures: Sequence[dict[int, tuple[str, bool]]]) -> str:
    """What the figures beside the names of layers are, as the end of the small print."""
    measured = [read_separation(w.group, spec.label) for (_, w), own in zip(spec.members, figures, strict=True) if own]
    kinds = sorted({FIGURES[m.primary] for m in measured if m is not None})
    return f" Beside a layer's name: {' or '.join(kinds)} of its linear probe, bold above the null." if kinds else ""


def _footer(projections: Sequence[ProjectedPoints], project: Project) -> str:
    """The small print: how the points were made, once where it is the same for all rows."""
    made_by = dict.fromkeys(_made_by(p.facts, project) for p in projections)
    return f"{'; '.join(made_by)}. Distances between clusters and their sizes mean nothing."


def _made_by(facts: ProjectionFacts | None, project: Project) -> str:
    if facts is None:
        return project.method
    words = [facts.backend]
    if project.method == "umap":
        settings = {name: getattr(facts, name) for name in ("seed", "n_neighbors", "min_dist", "metric")}
        # A store of an older version does not hold all of them.
        words += [f"{name} {value}" for name, value in settings.items() if value is not None]
    if facts.fit == "joint":
        words.append("datasets in one space")
    if facts.aligned:
        words.append("each layer turned onto the layer before")
    return "; ".join([", ".join(words), *_layer_notes(facts.notes)])


def _layer_notes(notes: dict[str, str]) -> list[str]:
    """What a reader must know of single layers, those of the same note together.

    >>> _layer_notes({"embed": "2 distinct states: principal components"})
    ['embed: 2 distinct states: principal components']
    """
    by_note: dict[str, list[str]] = {}
    for layer, note in notes.items():
        by_note.setdefault(note, []).append(layer.replace("_", " "))
    return [f"{', '.join(k) if len(k) < 4 else f'{len(k)} layers, {k[0]} to {k[-1]}'}: {n}" for n, k in by_note.items()]
