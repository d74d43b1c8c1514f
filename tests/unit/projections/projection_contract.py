"""What every projection promises; a suite for one inherits from this and gives its name in the table.

`fewest` distinct states are projected by the method itself, fewer by principal components.
"""

from __future__ import annotations

import numpy as np
import pytest

from drillcore.job.stages import Project
from drillcore.neighbours import Graph, build
from drillcore.projections import load_projection
from drillcore.projections.base import Projected


def draw(seed: int, num_rows: int, num_dimensions: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num_rows, num_dimensions)).astype(np.float32)


class ProjectionContract:
    name = ""
    fewest = 1

    def fit(self, states: np.ndarray, settings: Project, graph: Graph | None = None) -> Projected:
        return load_projection(self.name).fit(states, settings, graph)

    @pytest.mark.parametrize("num_rows", [1, 2, 3, 4, 5, 7, 16, 60])
    def test_any_number_of_sentences_gives_finite_points(self, seed, num_rows):
        projected = self.fit(draw(seed, num_rows), Project(n_epochs=20))
        assert projected.points_N2.shape == (num_rows, 2) and projected.points_N2.dtype == np.float32
        assert np.isfinite(projected.points_N2).all()
        assert projected.degenerate == (num_rows == 1)
        assert np.isnan(projected.trustworthiness) == (num_rows < 3)
        assert ("principal components" in projected.note) == (1 < num_rows < self.fewest)

    @pytest.mark.parametrize("metric", ["euclidean", "cosine"])
    def test_repeats_agree_bit_by_bit_with_and_without_a_graph(self, seed, metric):
        states, settings = draw(seed, 150), Project(metric=metric, n_epochs=30, seed=seed)
        graph = build(states, 20, metric, settings.seed)  # more columns than UMAP asks for
        before = states.tobytes(), graph.indices_NK.tobytes(), graph.distances_NK.tobytes()
        points = [self.fit(states, settings, given).points_N2.tobytes() for given in (None, None, graph)]
        assert points[0] == points[1] == points[2]
        assert before == (states.tobytes(), graph.indices_NK.tobytes(), graph.distances_NK.tobytes())

    def test_clusters_stay_apart_and_trustworthy(self, seed):
        states = draw(seed, 120)
        states[60:, 0] += 40
        projected = self.fit(states, Project())
        one, other = projected.points_N2[:60], projected.points_N2[60:]
        gap = np.linalg.norm(one.mean(axis=0) - other.mean(axis=0))
        # Spread around each cluster's own mean: the origin of the picture has no meaning.
        assert gap > 2 * max(one.std(axis=0).max(), other.std(axis=0).max()) and projected.trustworthiness > 0.6
        assert projected.backend and projected.seconds > 0 and projected.note == ""

    def test_a_layer_without_variance_is_marked_and_drawn_at_zero(self, seed):
        states = np.repeat(draw(seed, 1), 80, axis=0)
        projected = self.fit(states, Project(), build(states, 15, "euclidean", 0))
        assert projected.degenerate and not projected.points_N2.any() and np.isnan(projected.trustworthiness)
        assert projected.note == "all states are the same"

    def test_states_that_differ_in_length_alone_are_not_apart_by_cosine(self, seed):
        """UMAP by cosine sees one state: it would draw a plausible random cloud."""
        lengths = np.random.default_rng(seed).uniform(1, 9, (80, 1)).astype(np.float32)
        states = draw(seed, 1) * lengths
        for metric in ("cosine", "euclidean"):
            projected = self.fit(states, Project(metric=metric, n_epochs=20))
            assert projected.degenerate == (metric == "cosine") == (not projected.points_N2.any())
            assert projected.note == ("all states point the same way" if metric == "cosine" else "")

    @pytest.mark.parametrize("num_distinct", [2, 3, 4, 6, 30])
    def test_equal_states_lie_on_one_point(self, seed, num_distinct):
        place = np.random.default_rng(seed).integers(0, num_distinct, 200)
        place[:num_distinct] = np.arange(num_distinct)
        states = draw(seed, num_distinct)[place]
        projected = self.fit(states, Project(n_epochs=20), build(states, 15, "euclidean", 0))
        assert not projected.degenerate and str(num_distinct) in projected.note
        assert len(np.unique(projected.points_N2, axis=0)) == num_distinct
        for k in range(num_distinct):
            assert np.ptp(projected.points_N2[place == k], axis=0).max() == 0
