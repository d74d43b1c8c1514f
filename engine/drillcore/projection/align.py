"""Turns each layer's points onto the layer before it, so that panels can be compared.

Shape legend: L layers, N sentences.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def align(points_LN2: NDArray[np.float32], degenerate_L: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Orthogonal Procrustes (Schönemann, 1966) of each layer onto the last one that has variance; no scaling.

    Layers are centred; degenerate ones are passed through.
    """
    aligned_LN2 = points_LN2.astype(np.float32).copy()
    before_N2: NDArray[np.float64] | None = None
    for k in np.flatnonzero(~degenerate_L).tolist():
        points_N2 = points_LN2[k].astype(np.float64)
        points_N2 -= points_N2.mean(axis=0)
        if before_N2 is not None:
            left, _, right = np.linalg.svd(points_N2.T @ before_N2)
            points_N2 = points_N2 @ (left @ right)
        aligned_LN2[k] = points_N2
        before_N2 = points_N2
    return aligned_LN2
