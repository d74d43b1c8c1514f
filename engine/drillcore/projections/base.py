"""What every projection promises.

Shape legend: N sentences, H hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from drillcore.job.fields import Project
from drillcore.neighbours import Graph


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
    """A method of projecting one layer. name: of its array in the store."""

    name: str

    def fit(self, states_NH: NDArray[np.float32], settings: Project, graph: Graph | None) -> Projected:
        """Project a layer; `graph` is its k-NN graph in `settings.metric` where it is there already."""
