"""What all projections share: states without variance, identical states, and too few of them.

Shape legend: N sentences, H hidden size, U distinct states.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from drillcore.job.fields import Project
from drillcore.neighbours import Graph, distinct, without_variance
from drillcore.projections.base import Projected
from drillcore.projections.trust import trustworthiness

Embed = Callable[[NDArray[np.float32], Project, Graph | None], NDArray[np.float32]]


def project_distinct(
    states_NH: NDArray[np.float32],
    settings: Project,
    graph: Graph | None,
    backend: str,
    embed: Embed,
    fewest: int = 1,
    instead: Embed | None = None,
) -> Projected:
    """Project the distinct states by `embed` and give equal states equal points.

    Left to themselves, UMAP spreads identical states into a plausible cloud. With fewer than `fewest` distinct states
    `instead` serves. `graph` is of all sentences, so it is used only where all differ.
    """
    started = time.perf_counter()
    if without_variance(states_NH):
        zeros_N2 = np.zeros((len(states_NH), 2), np.float32)
        seconds = time.perf_counter() - started
        return Projected(zeros_N2, True, backend, float("nan"), seconds, "all states are the same")
    first_U, place_N = distinct(states_NH)
    note = "" if len(first_U) == len(states_NH) else f"{len(first_U):,} distinct states among {len(states_NH):,}"
    if len(first_U) < fewest and instead is not None:
        embed, note = instead, f"{len(first_U)} distinct states: principal components"
    if len(first_U) < len(states_NH):
        states_NH, graph = states_NH[first_U], None
    points_U2 = embed(states_NH, settings, graph)
    trust = trustworthiness(states_NH, points_U2, settings)
    return Projected(points_U2[place_N], False, backend, trust, time.perf_counter() - started, note)
