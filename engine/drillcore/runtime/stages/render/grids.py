"""Grids from the projections of the store: for a model each dataset and all of them, for a dataset all models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.job.fields import Project, Render
from drillcore.pictures.data import Grid, Panel, PanelRow
from drillcore.pictures.grid.layout import aligned_by_depth
from drillcore.runtime.context import Context
from drillcore.runtime.results import ProjectionFacts
from drillcore.runtime.stages.render.colors import coloring
from drillcore.runtime.stages.render.layers import model_title, slots_of
from drillcore.runtime.stages.render.points import ProjectedPoints
from drillcore.store.layout import attributes_of
from drillcore.store.writer import GroupWriter


@dataclass(frozen=True)
class GridSpec:
    """A grid to draw. name: of its file. members: heading and group of each row."""

    name: str
    title: str
    members: tuple[tuple[str, GroupWriter], ...]

    def inputs(self, method: str) -> list[Any]:
        """What the grid depends on, JSON-ready."""
        return [self.title, *([heading, *point_inputs(w, method)] for heading, w in self.members)]


def point_inputs(writer: GroupWriter, method: str) -> list[str]:
    """What a group's panels depend on."""
    columns = str(attributes_of(writer.group).get("columns_made_from"))
    return [writer.group.path, writer.result_made_from(method), columns]


def grid_specs(context: Context) -> list[GridSpec]:
    """All grids of a job."""
    models = [m.group for m in context.job.models]
    datasets = [d.name for d in context.job.datasets]
    group = context.store.dataset
    specs: list[GridSpec] = []
    for model in models:
        name = model_title(context, model)
        specs += [GridSpec(f"{model}--{d}", f"{name} · {d}", (("", group(model, d)),)) for d in datasets]
        if len(datasets) > 1:
            specs.append(GridSpec(f"{model}--all-datasets", name, tuple((d, group(model, d)) for d in datasets)))
    if len(models) > 1:
        specs += [over_models(context, d, f"all-models--{d}") for d in datasets]
    return specs


def over_models(context: Context, dataset: str, name: str) -> GridSpec:
    """A dataset with models as rows."""
    models = [m.group for m in context.job.models]
    rows = tuple((model_title(context, m), context.store.dataset(m, dataset)) for m in models)
    return GridSpec(name, dataset, rows)


def build_grid(spec: GridSpec, settings: Render, project: Project) -> Grid:
    """The grid; its points are read when they are drawn.

    Raises RunError where the job colours by a coordinate that does not exist.
    """
    projections = [ProjectedPoints(writer.group, project.method) for _, writer in spec.members]
    colors = coloring([writer.group for _, writer in spec.members], settings.color)
    rows = tuple(
        PanelRow(heading, _panels(projection, values_N, settings))
        for (heading, _), projection, values_N in zip(spec.members, projections, colors.values, strict=True)
    )
    grid = Grid(
        title=spec.title,
        subtitle=f"last-token hidden states, {project.method.upper()} of each layer; {colors.words}",
        rows=rows,
        categories=colors.categories,
        value_range=colors.value_range,
        value_name=colors.value_name,
        unlabelled=colors.unlabelled,
        panel_px=settings.panel_px,
        footer=_footer(projections, project),
    )
    if settings.align_depth and len(rows) > 1:
        grid = aligned_by_depth(grid)
        return replace(grid, subtitle=f"{grid.subtitle}; columns: relative depth")
    return grid


def _panels(projection: ProjectedPoints, values_N: NDArray[Any], settings: Render) -> tuple[Callable[[], Panel], ...]:
    return tuple(partial(_panel, projection, values_N, k) for k in slots_of(settings, projection.numbers))


def _panel(projection: ProjectedPoints, values_N: NDArray[Any], slot: int) -> Panel:
    values_N = values_N if values_N.dtype == np.float32 else values_N.astype(np.int32, copy=False)
    degenerate = bool(projection.degenerate_L[slot])
    return Panel(projection.names[slot], projection.layer(slot), values_N, degenerate)


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
    return ", ".join(words)
