"""What every projection promises and shares: its result, distinct states, trustworthiness.

Shape legend: N sentences, H hidden size.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.manifold import trustworthiness as exact

from drillcore.job.fields import Project
from drillcore.neighbours import Graph, distinct, without_variance

Embed = Callable[[NDArray[np.float32], Project, Graph | None], NDArray[np.float32]]
# Trustworthiness is quadratic in the number of sentences.
SAMPLE = 2000


@dataclass(frozen=True)
class Projected:
    """One layer in two dimensions.

    points_N2: float32; identical states lie on one point. degenerate: the layer has no variance, all points are 0.
    backend: library and version. trustworthiness: share of near neighbours kept (Venna and Kaski, 2001), NaN where
    degenerate or too few sentences. note: what a reader of the panel must know, or empty.
    """

    points_N2: NDArray[np.float32]
    degenerate: bool
    backend: str
    trustworthiness: float
    seconds: float
    note: str = ""


class Projection(Protocol):
    """A method of projecting one layer. name: of its array in the store, `umap` or `pca`."""

    name: str

    def fit(self, states_NH: NDArray[np.float32], settings: Project, graph: Graph | None) -> Projected:
        """Project a layer; `graph`: its k-NN graph in `settings.metric`, if it exists already."""


def trustworthiness(states_NH: NDArray[np.float32], points_N2: NDArray[np.float32], settings: Project) -> float:
    """Trustworthiness (Venna and Kaski, 2001) on at most 2,000 sentences drawn by the seed.

    1 where every neighbour in the picture is one in the layer; NaN where there are too few sentences to say.
    """
    if len(states_NH) > SAMPLE:
        rows_S = np.sort(np.random.default_rng(settings.seed).choice(len(states_NH), SAMPLE, replace=False))
        states_NH, points_N2 = states_NH[rows_S], points_N2[rows_S]
    num_neighbors = min(settings.n_neighbors, (len(states_NH) - 1) // 2)
    if num_neighbors < 1:
        return float("nan")
    return float(exact(states_NH, points_N2, n_neighbors=num_neighbors, metric=settings.metric))


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
    states. `graph` is that of all sentences, so it is used only where all of them differ.
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
