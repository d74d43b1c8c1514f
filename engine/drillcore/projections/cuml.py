"""UMAP on the GPU by cuML (Nolet and others, 2020).

Shape legend: N sentences, H hidden size, U distinct states.
"""

from __future__ import annotations

import cuml
import numpy as np
from cuml.manifold import UMAP
from numpy.typing import NDArray

from drillcore.job.stages import Project
from drillcore.neighbours import Graph, build
from drillcore.projections.base import Projected, project_distinct
from drillcore.projections.pca import principal_components

FEWEST = 4


class CumlUmap:
    """cuML's UMAP with a fixed seed and an exact k-NN graph; repeats agree on one device."""

    def fit(self, states_NH: NDArray[np.float32], settings: Project, graph: Graph | None) -> Projected:
        """Project a layer; fewer than four distinct states by principal components."""
        backend = f"cuML {cuml.__version__}"
        return project_distinct(states_NH, settings, graph, backend, _embed, FEWEST, principal_components)


def _embed(states_UH: NDArray[np.float32], settings: Project, graph: Graph | None) -> NDArray[np.float32]:
    num_neighbors = min(settings.n_neighbors, len(states_UH) - 1)
    graph = graph or build(states_UH, num_neighbors, settings.metric, settings.seed, "cuml")
    graph = graph.first(num_neighbors)
    model = UMAP(
        n_neighbors=num_neighbors,
        n_components=2,
        min_dist=settings.min_dist,
        metric=settings.metric,
        n_epochs=None if settings.n_epochs == "auto" else settings.n_epochs,
        random_state=settings.seed,
        # Named, since its other way of searching is not repeatable.
        build_algo="brute_force_knn",
        precomputed_knn=(np.array(graph.indices_NK, np.int64), np.array(graph.distances_NK)),
        output_type="numpy",
    )
    return np.asarray(model.fit_transform(np.ascontiguousarray(states_UH, np.float32)), np.float32)
