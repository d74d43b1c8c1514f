"""Principal components: exact, fast, and a simple check beside UMAP.

Shape legend: N sentences, H hidden size.
"""

from __future__ import annotations

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from drillcore.job.stages import Project
from drillcore.neighbours import Graph
from drillcore.projections.base import Projected, project_distinct


class Pca:
    """The first two principal components."""

    def fit(self, states_NH: NDArray[np.float32], settings: Project, graph: Graph | None) -> Projected:
        """Project a layer. Every sentence counts, also identical ones; signs are fixed, so that repeats agree."""
        backend = f"scikit-learn {sklearn.__version__} PCA"

        def embed(distinct_UH: NDArray[np.float32], settings: Project, graph: Graph | None) -> NDArray[np.float32]:
            # It gets the distinct states only; the components are those of all states.
            model, mean_H = _components(states_NH)
            return _two_columns(model.transform(distinct_UH - mean_H))

        return project_distinct(states_NH, settings, graph, backend, embed)


def principal_components(
    states_NH: NDArray[np.float32], settings: Project, graph: Graph | None = None
) -> NDArray[np.float32]:
    """The first two principal components of states [N, 2]; the second column is 0 where there is only one.

    >>> principal_components(np.float32([[0, 0, 0], [2, 0, 0], [4, 0, 0]]), Project()).round(3).tolist()
    [[-2.0, 0.0], [0.0, 0.0], [2.0, 0.0]]
    """
    model, mean_H = _components(states_NH)
    return _two_columns(model.transform(states_NH - mean_H))


def _components(states_NH: NDArray[np.float32]) -> tuple[PCA, NDArray[np.float32]]:
    num_rows, num_dimensions = states_NH.shape
    # The mean is subtracted here, computed in float64: scikit-learn subtracts it from float32 products, where massive
    # dimensions leave noise.
    mean_H = states_NH.mean(axis=0, dtype=np.float64).astype(np.float32)
    solver = "covariance_eigh" if num_dimensions <= num_rows else "full"
    return PCA(n_components=min(2, num_rows, num_dimensions), svd_solver=solver).fit(states_NH - mean_H), mean_H


def _two_columns(components_NC: NDArray[np.float32]) -> NDArray[np.float32]:
    points_N2 = np.zeros((len(components_NC), 2), np.float32)
    points_N2[:, : components_NC.shape[1]] = components_NC
    return points_N2
