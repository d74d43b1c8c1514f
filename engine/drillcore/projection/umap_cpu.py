"""UMAP on the CPU by umap-learn (McInnes, Healy and Melville, 2018), with bit-identical repeats.

Shape legend: N sentences, H hidden size.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.job import Project
from drillcore.projection.base import Projected, without_variance
from drillcore.projection.trust import trustworthiness

with warnings.catch_warnings():
    # It warns that TensorFlow is missing, which only its parametric variant wants.
    warnings.filterwarnings("ignore", message="Tensorflow not installed", category=ImportWarning)
    import umap

# With fewer sentences the spectral start has no eigenvectors to take.
FEW = 5


class UmapLearn:
    """umap-learn with a fixed seed and one thread."""

    name = "umap"

    def fit(self, states_NH: NDArray[np.float32], settings: Project, graph: Any) -> Projected:
        """Project a layer."""
        started, backend = time.perf_counter(), f"umap-learn {umap.__version__}"
        if without_variance(states_NH):
            points_N2 = np.zeros((len(states_NH), 2), np.float32)
            return Projected(points_N2, True, backend, float("nan"), time.perf_counter() - started)
        points_N2 = self._points(states_NH, settings)
        trust = trustworthiness(states_NH, points_N2, settings)
        return Projected(points_N2, False, backend, trust, time.perf_counter() - started)

    def _points(self, states_NH: NDArray[np.float32], settings: Project) -> NDArray[np.float32]:
        if len(states_NH) < 3:
            # Two sentences have one distance and nothing else.
            return np.stack([np.arange(len(states_NH)), np.zeros(len(states_NH))], axis=1).astype(np.float32)
        model = umap.UMAP(
            n_neighbors=min(settings.n_neighbors, len(states_NH) - 1),
            min_dist=settings.min_dist,
            metric=settings.metric,
            n_epochs=None if settings.n_epochs == "auto" else settings.n_epochs,
            init="random" if len(states_NH) < FEW else "spectral",
            random_state=settings.seed,
            n_jobs=1,
        )
        with warnings.catch_warnings():
            # Layers whose graph falls into parts start from another layout; umap-learn says so at each.
            warnings.filterwarnings("ignore", message="Spectral initialisation failed")
            warnings.filterwarnings("ignore", message="Graph is not fully connected")
            found: NDArray[np.float32] = np.asarray(model.fit_transform(states_NH), np.float32)
        return found
