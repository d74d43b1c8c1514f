"""What every projection promises.

Shape legend: N sentences, H hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drillcore.job import Project


@dataclass(frozen=True)
class Projected:
    """One layer in two dimensions.

    points_N2: float32. degenerate: the layer has no variance, all points are 0. backend: library and version.
    trustworthiness: share of near neighbours kept (Venna and Kaski, 2001), NaN where degenerate or too few sentences.
    """

    points_N2: NDArray[np.float32]
    degenerate: bool
    backend: str
    trustworthiness: float
    seconds: float


class Projection(Protocol):
    """A method of projecting one layer."""

    name: str

    def fit(self, states_NH: NDArray[np.float32], settings: Project, graph: Any) -> Projected:
        """Project a layer; `graph` is its k-NN graph where it is there already."""


def without_variance(states_NH: NDArray[np.float32]) -> bool:
    """Whether all rows are the same, but for rounding: UMAP would draw a plausible random cloud."""
    if len(states_NH) < 2:
        return True
    spread = float(np.abs(states_NH - states_NH[0]).max())
    return spread <= 1e-6 * max(1e-30, float(np.abs(states_NH[0]).max()))
