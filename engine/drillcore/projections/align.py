"""Turns each layer's points onto the layer before it, so that panels can be compared.

Shape legend: L layers, N sentences.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def align(points_LN2: NDArray[np.float32], degenerate_L: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Orthogonal Procrustes (Schönemann, 1966) of each layer onto the last one that has variance; no scaling.

    Layers are centred, then turned and if need be mirrored, so distances within a layer stay what they were.
    Degenerate layers (by default those whose points are all the same) are passed through. points_LN2: float32; returns
    the same shape and dtype.

    >>> layer_N2 = np.float32([[-1, -1], [1, -1], [-1, 1], [1, 2]])
    >>> turned_N2 = layer_N2[:, ::-1] + 7  # mirrored and moved
    >>> first, second = align(np.stack([layer_N2, turned_N2]))
    >>> bool(np.allclose(first, second))
    True
    """
    if degenerate_L is None:
        degenerate_L = np.ptp(points_LN2, axis=1).max(axis=1) == 0
    aligned_LN2 = np.array(points_LN2, dtype=np.float32)
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
