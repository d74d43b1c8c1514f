"""Projection along with the measures of a layer: one reading and one k-NN graph serve both.

Shape legend: N sentences, H hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from drillcore.job.fields import Measure, Project
from drillcore.measures import NEIGHBORS, chosen
from drillcore.neighbours import Graph, build
from drillcore.projections import choose, load
from drillcore.projections.base import Projected
from drillcore.runtime.context import Context
from drillcore.runtime.stages.project import Unit, is_there, units
from drillcore.store.group import GroupWriter


@dataclass(frozen=True)
class Along:
    """How a layer is projected while it is measured."""

    projection: str
    reason: str
    settings: Project

    def graph(self, states_NH: NDArray[np.float32]) -> Graph:
        """The graph that serves both, with columns for both."""
        num_neighbors = max(NEIGHBORS, self.settings.n_neighbors)
        return build(states_NH, num_neighbors, self.settings.metric, self.settings.seed)

    def project(self, states_NH: NDArray[np.float32], graph: Graph) -> Projected:
        """Project the layer by its graph."""
        projected: Projected = load(self.projection).fit(states_NH, self.settings, graph)
        return projected


def unit_of(context: Context, model: str, writer: GroupWriter) -> Unit:
    """The unit of the project stage that a dataset belongs to, written to through the same writer."""
    found = units(context, model, context.inputs.loaded.job.project)
    unit = next(u for u in found if writer.group.path in [w.group.path for w in u.writers])
    # Each writer keeps the group's attributes; two of them would undo each other's.
    return replace(unit, writers=[writer if w.group.path == writer.group.path else w for w in unit.writers])


def along_with(context: Context, unit: Unit) -> Along | None:
    """How to project a unit while its dataset is measured; None where that is not due, or the graphs differ."""
    job = context.inputs.loaded.job
    if "project" not in context.stages or len(unit.writers) > 1 or is_there(unit, job.project):
        return None
    projection, reason = choose(job.project, sum(unit.sizes))
    return (
        Along(projection, reason, job.project)
        if projection == "umap-learn" and _same_graph(job.measure, job.project)
        else None
    )


def _same_graph(measure: Measure, project: Project) -> bool:
    """Whether purity and UMAP look for the same neighbours; centring moves none."""
    same_space = project.metric == "euclidean" and measure.standardise != "zscore"
    return same_space and measure.seed == project.seed and "purity" in chosen(measure.metrics)
