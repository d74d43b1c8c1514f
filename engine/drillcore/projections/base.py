"""What every projection promises and shares: its result, one point for equal states, trustworthiness.

Shape legend: N sentences, U distinct states, H hidden size, S sampled sentences.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from drillcore.errors import RunError
from drillcore.job.stages import Project
from drillcore.neighbours import Graph, distinct, without_variance

# Points [U, 2] of distinct states [U, H]; the graph is None unless all states are distinct.
Embed = Callable[[NDArray[np.float32], Project, Graph | None], NDArray[np.float32]]
# Trustworthiness is quadratic in the number of sentences.
SAMPLE = 2000


@dataclass(frozen=True)
class Projected:
    """One layer in two dimensions.

    points_N2: float32; identical states lie on one point. degenerate: no two states differ (in direction, where the
    metric is cosine), and all points are 0.
    backend: library and version. trustworthiness: 0 to 1, see `trustworthiness`; NaN where degenerate, or for fewer
    than three distinct states. seconds: of projecting it. note: what a reader of the panel must know, or empty.
    """

    points_N2: NDArray[np.float32]
    degenerate: bool
    backend: str
    trustworthiness: float
    seconds: float
    note: str = ""


class Projection(Protocol):
    """A method of projecting one layer to two dimensions."""

    def fit(self, states_NH: NDArray[np.float32], settings: Project, graph: Graph | None) -> Projected:
        """Project a layer; the same states and settings give the same bytes.

        graph: its k-NN graph in `settings.metric`, if it exists already; it must not change.
        """


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

    Without this, UMAP spreads identical states into a plausible cloud. `instead` projects fewer than `fewest` distinct
    states. `graph` is that of all sentences, so it is used only where all of them differ. Raises RunError where the
    points are not finite.

    >>> states = np.float32([[0, 0, 1], [4, 2, 1], [0, 0, 1], [6, 6, 1]])
    >>> first_two = lambda states_UH, settings, graph: states_UH[:, :2]
    >>> projected = project_distinct(states, Project(), None, "the first two dimensions", first_two)
    >>> projected.points_N2.tolist(), projected.note
    ([[0.0, 0.0], [4.0, 2.0], [0.0, 0.0], [6.0, 6.0]], '3 distinct states among 4')
    """
    started = time.perf_counter()
    reason = _without_difference(states_NH, settings)
    if reason:
        zeros_N2 = np.zeros((len(states_NH), 2), np.float32)
        return Projected(zeros_N2, True, backend, float("nan"), time.perf_counter() - started, reason)
    first_U, place_N = distinct(states_NH)
    note = "" if len(first_U) == len(states_NH) else f"{len(first_U):,} distinct states among {len(states_NH):,}"
    if len(first_U) < fewest and instead is not None:
        embed, note = instead, f"{len(first_U)} distinct states: principal components"
    if len(first_U) < len(states_NH):
        states_NH, graph = states_NH[first_U], None
    points_U2 = embed(states_NH, settings, graph)
    if not np.isfinite(points_U2).all():
        raise RunError(
            f"{backend} gave points that are not finite for {len(states_NH):,} states", hint="Set project.method: pca."
        )
    trust = trustworthiness(states_NH, points_U2, settings)
    return Projected(points_U2[place_N], False, backend, trust, time.perf_counter() - started, note)


def _without_difference(states_NH: NDArray[np.float32], settings: Project) -> str:
    """Why a layer has nothing to project: no two states differ in the metric; empty where some do."""
    if without_variance(states_NH):
        return "all states are the same"
    if settings.method == "umap" and settings.metric == "cosine":
        lengths_N1 = np.linalg.norm(states_NH.astype(np.float64), axis=1, keepdims=True)
        if lengths_N1.min() > 0 and without_variance((states_NH / lengths_N1).astype(np.float32)):
            return "all states point the same way"
    return ""


def trustworthiness(states_NH: NDArray[np.float32], points_N2: NDArray[np.float32], settings: Project) -> float:
    """Trustworthiness (Venna and Kaski, 2001) on at most 2,000 sentences drawn by the seed.

    1 where every neighbour in the picture is one in the layer; NaN for fewer than three sentences.

    >>> states = np.float32(np.random.default_rng(0).normal(size=(50, 2)))
    >>> trustworthiness(states, 2 * states, Project())
    1.0
    """
    from sklearn.manifold import trustworthiness as exact  # imported where a projection is fitted, and not before

    if len(states_NH) > SAMPLE:
        rows_S = np.sort(np.random.default_rng(settings.seed).choice(len(states_NH), SAMPLE, replace=False))
        states_NH, points_N2 = states_NH[rows_S], points_N2[rows_S]
    num_neighbors = min(settings.n_neighbors, (len(states_NH) - 1) // 2)
    if num_neighbors < 1:
        return float("nan")
    return float(exact(states_NH, points_N2, n_neighbors=num_neighbors, metric=settings.metric))
