"""What every projection promises; a suite for one says its name in the table."""

from __future__ import annotations

import numpy as np
import pytest

from drillcore.job.fields import Project
from drillcore.neighbours import build
from drillcore.projections import load_projection


class ProjectionContract:
    name = ""
    settings = Project(n_epochs=20)

    def fit(self, states: np.ndarray, graph=None):
        return load_projection(self.name).fit(states, self.settings, graph)

    def states(self, seed: int, num_rows: int = 60) -> np.ndarray:
        """Two clusters."""
        states = np.random.default_rng(seed).normal(size=(num_rows, 16)).astype(np.float32)
        states[num_rows // 2 :, 0] += 40
        return states

    @pytest.mark.parametrize("num_rows", [1, 2, 3, 5, 16])
    def test_any_number_of_sentences_gives_finite_points(self, seed, num_rows):
        projected = self.fit(self.states(seed, num_rows))
        assert projected.points_N2.shape == (num_rows, 2) and projected.points_N2.dtype == np.float32
        assert np.isfinite(projected.points_N2).all() and projected.degenerate == (num_rows == 1)
        assert projected.backend and projected.seconds >= 0

    def test_repeats_agree_bit_by_bit_with_and_without_a_graph(self, seed):
        states = self.states(seed)
        graph = build(states, 20, self.settings.metric, self.settings.seed)
        points = [self.fit(states, g).points_N2.tobytes() for g in (None, None, graph)]
        assert len(set(points)) == 1

    def test_identical_states_share_a_point(self, seed):
        states = self.states(seed)
        states[7] = states[3]
        points = self.fit(states).points_N2
        assert (points[7] == points[3]).all() and not (points[7] == points[5]).all()

    def test_a_layer_without_variance_is_marked(self, seed):
        projected = self.fit(np.repeat(self.states(seed)[:1], 30, axis=0))
        assert projected.degenerate and not projected.points_N2.any() and projected.note

    def test_clusters_stay_apart(self, seed):
        projected = self.fit(self.states(seed))
        one, other = projected.points_N2[:30], projected.points_N2[30:]
        gap = np.linalg.norm(one.mean(axis=0) - other.mean(axis=0))
        assert gap > 2 * max(one.std(), other.std()) / 2 and projected.trustworthiness > 0.6
