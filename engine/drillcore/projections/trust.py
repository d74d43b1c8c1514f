"""How much of a layer's neighbourhoods a projection keeps.

Shape legend: N sentences, H hidden size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.manifold import trustworthiness as exact

from drillcore.job.fields import Project

# It is quadratic in the sentences.
SAMPLE = 2000


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
