"""The states of one layer as the measures see them: of the labelled sentences, raw or standardised, with their graph.

Shape legend: N sentences of the dataset, U those whose labels count, H hidden size.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.job.stages import Measure
from drillcore.measures import NEIGHBORS
from drillcore.measures.draws import Draws
from drillcore.neighbours import ROUNDING, Graph, build


class LayerStates:
    """One layer of a dataset. What several measures need is computed once, when the first of them asks for it.

    graph: the k-NN graph of all N sentences with at least `NEIGHBORS` columns, where it exists already.
    """

    def __init__(
        self, states_NH: NDArray[np.float32], settings: Measure, draws: Draws, graph: Graph | None = None
    ) -> None:
        self._states_NH = states_NH
        self._settings = settings
        self._draws = draws
        self._graph = graph
        self.shared: dict[str, Any] = {}
        """What several measures read of one computation, by its name."""

    @property
    def raw_UH(self) -> NDArray[np.float32]:
        """The states as they are, of the sentences whose labels count."""
        return self._of_rows(self._states_NH)

    @property
    def standardised_UH(self) -> NDArray[np.float32]:
        """The states standardised over all sentences as `measure.standardise` says."""
        return self._of_rows(self._standardised_NH)

    @property
    def learned_from_UH(self) -> NDArray[np.float32]:
        """The states as a probe learns from them: standardised over the train rows alone where there is a split."""
        is_test_U = self._draws.is_test_U
        if is_test_U is None:
            return self.standardised_UH
        return standardised(self.raw_UH, self._settings.standardise, np.flatnonzero(~is_test_U))

    @cached_property
    def graph(self) -> Graph:
        """The k-NN graph of all sentences: of the raw states, since centring moves no neighbour, or of the z-scores."""
        if self._graph is not None:
            return self._graph
        is_scaled = self._settings.standardise == "zscore"
        states_NH = self._standardised_NH if is_scaled else self._states_NH
        return build(states_NH, NEIGHBORS, "euclidean", self._settings.seed)

    @cached_property
    def _standardised_NH(self) -> NDArray[np.float32]:
        return standardised(self._states_NH, self._settings.standardise)

    def _of_rows(self, states_NH: NDArray[np.float32]) -> NDArray[np.float32]:
        return states_NH if self._draws.all_rows else states_NH[self._draws.rows_U]


def standardised(
    states_NH: NDArray[np.float32], how: str, over_M: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """States as the probe, the silhouette and the neighbours see them: none, center, or zscore by dimension.

    over_M: the rows whose mean and deviation are meant; None for all.

    >>> standardised(np.array([[1, 10], [3, 30]], np.float32), "zscore").tolist()
    [[-1.0, -1.0], [1.0, 1.0]]
    """
    if how == "none":
        return states_NH
    centre_H, spread_H = moments(states_NH if over_M is None else states_NH[over_M], how)
    moved_NH: NDArray[np.float32] = states_NH - centre_H
    if how == "zscore":
        moved_NH /= spread_H
    return moved_NH


def moments(states_NH: NDArray[np.float32], how: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What standardised states were moved by, and divided by, [H] each.

    >>> [each.tolist() for each in moments(np.array([[1, 10], [3, 30]], np.float32), "zscore")]
    [[2.0, 20.0], [1.0, 10.0]]
    """
    ones_H = np.ones(states_NH.shape[1], np.float32)
    if how == "none":
        return np.zeros_like(ones_H), ones_H
    centre_H = states_NH.mean(axis=0, dtype=np.float64).astype(np.float32)
    if how == "center":
        return centre_H, ones_H
    spread_H = (states_NH - centre_H).std(axis=0, dtype=np.float64)
    # A dimension that varies by rounding alone would weigh as much as every other one.
    varies_H = spread_H > ROUNDING * np.abs(states_NH).max(axis=0)
    return centre_H, np.where(varies_H, spread_H, 1).astype(np.float32)
