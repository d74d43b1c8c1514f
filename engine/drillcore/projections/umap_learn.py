"""UMAP on the CPU by umap-learn (McInnes, Healy and Melville, 2018), with bit-identical repeats.

Shape legend: N sentences, H hidden size, U distinct states.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from drillcore.job.stages import Project
from drillcore.neighbours import Graph, build
from drillcore.projections.base import Projected, project_distinct
from drillcore.projections.pca import principal_components

with warnings.catch_warnings():
    # It warns that TensorFlow is missing, which only its parametric variant needs.
    warnings.filterwarnings("ignore", message="Tensorflow not installed", category=ImportWarning)
    import umap

# With fewer distinct states its spectral initialisation has no eigenvectors, and there are no neighbourhoods to keep.
FEWEST = 4
# Harmless umap warnings: the graph has no search index, or a layer's graph has several components.
HARMLESS = (
    r"precomputed_knn\[2\] \(knn_search_index\)",
    "Spectral initialisation failed!",
    "Graph is not fully connected",
)


class UmapLearn:
    """umap-learn with a fixed seed and one thread."""

    def fit(self, states_NH: NDArray[np.float32], settings: Project, graph: Graph | None) -> Projected:
        """Project a layer; fewer than four distinct states by principal components."""
        backend = f"umap-learn {umap.__version__}"
        return project_distinct(states_NH, settings, graph, backend, _embed, FEWEST, principal_components)


def _embed(states_UH: NDArray[np.float32], settings: Project, graph: Graph | None) -> NDArray[np.float32]:
    num_neighbors = min(settings.n_neighbors, len(states_UH) - 1)
    graph = graph or build(states_UH, num_neighbors, settings.metric, settings.seed)
    graph = graph.first(num_neighbors)
    model = umap.UMAP(
        n_neighbors=num_neighbors,
        min_dist=settings.min_dist,
        metric=settings.metric,
        n_epochs=None if settings.n_epochs == "auto" else settings.n_epochs,
        random_state=settings.seed,
        n_jobs=1,
        # Copies: it writes into them.
        precomputed_knn=(np.array(graph.indices_NK), np.array(graph.distances_NK), None),
    )
    with warnings.catch_warnings():
        for message in HARMLESS:
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        return np.asarray(model.fit_transform(states_UH), np.float32)
