"""Principal components: exact, quick, and a plain second look beside UMAP.

Shape legend: N sentences, H hidden size.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from drillcore.job import Project
from drillcore.projection.base import Projected, without_variance
from drillcore.projection.trust import trustworthiness


class Pca:
    """The first two principal components."""

    name = "pca"

    def fit(self, states_NH: NDArray[np.float32], settings: Project, graph: Any) -> Projected:
        """Project; the signs are fixed, so that repeats agree."""
        started, backend = time.perf_counter(), f"scikit-learn {sklearn.__version__}"
        points_N2 = np.zeros((len(states_NH), 2), np.float32)
        degenerate = without_variance(states_NH)
        if not degenerate:
            found = PCA(n_components=min(2, *states_NH.shape), random_state=settings.seed).fit_transform(states_NH)
            points_N2[:, : found.shape[1]] = found
        trust = np.nan if degenerate else trustworthiness(states_NH, points_N2, settings)
        return Projected(points_N2, degenerate, backend, trust, time.perf_counter() - started)
