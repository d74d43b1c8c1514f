"""What every measure promises; a suite for one inherits from this and gives its name in the table."""

from __future__ import annotations

import numpy as np
import pytest

from drillcore.job.stages import Measure
from drillcore.measures import METRICS
from drillcore.measures.draws import make_draws
from drillcore.measures.intervals import Bounds
from drillcore.measures.separation import combine, measure_layer

NUM_PERMUTATIONS = 60


class MeasureContract:
    name = ""

    def settings(self, seed: int, permutations: int = NUM_PERMUTATIONS) -> Measure:
        return Measure(permutations=permutations, seed=seed % 1000, metrics=(self.name,))

    def layers(self, seed: int, num_sentences: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels, a layer that separates them, and a layer of noise."""
        rng = np.random.default_rng(seed)
        label = rng.permutation(np.arange(num_sentences) % 2)
        noise = rng.normal(size=(num_sentences, 12)).astype(np.float32)
        centres = 6 * rng.normal(size=(2, 12)).astype(np.float32)
        return label, noise + centres[label], noise

    def measure(self, states: np.ndarray, labels: np.ndarray | None, settings: Measure) -> Bounds:
        return measure_layer(states, settings, make_draws(labels, None, settings, len(states)))[self.name]

    def test_a_separated_layer_beats_noise_and_its_null(self, seed):
        settings, row = self.settings(seed), METRICS[self.name]
        label, apart, noise = self.layers(seed)
        separation = combine([{self.name: self.measure(states, label, settings)} for states in (apart, noise)])
        assert not separation.skipped and np.isfinite(separation.values_LMB).all()
        (value, low, high, null_mean, null_high, p), other = separation.values_LMB[:, 0]
        assert row.sign * value > row.sign * other[0] and row.sign * value > row.sign * null_high and p < 0.05
        assert row.sign * null_mean < row.sign * null_high
        for bounds in (separation.values_LMB[0, 0], other):
            value, low, high = bounds[:3]
            assert low <= value <= high and row.low - 1e-6 <= low and high <= row.high + 1e-6

    def test_repeats_agree_bit_by_bit_with_one_value_for_each_permutation(self, seed):
        label, apart, _ = self.layers(seed)
        one, two = (self.measure(apart, label, self.settings(seed)) for _ in range(2))
        assert (one.value, one.low, one.high) == (two.value, two.low, two.high)
        assert one.null_B.shape == (NUM_PERMUTATIONS,) and one.null_B.tobytes() == two.null_B.tobytes()

    def test_the_null_is_the_measure_under_each_permutation(self, seed):
        settings = self.settings(seed, permutations=3)
        label, apart, _ = self.layers(seed)
        draws = make_draws(label, None, settings, len(label))
        null_B = measure_layer(apart, settings, draws)[self.name].null_B
        for b, codes in enumerate(draws.permuted(0, 3)):
            relabelled = make_draws(label, None, self.settings(seed, permutations=0), len(label))
            relabelled.codes_U[:] = codes
            assert measure_layer(apart, settings, relabelled)[self.name].value == pytest.approx(null_B[b], abs=1e-5)

    def test_states_are_not_changed(self, seed):
        label, apart, _ = self.layers(seed)
        before = apart.tobytes()
        self.measure(apart, label, self.settings(seed))
        assert apart.tobytes() == before

    def test_the_names_of_the_labels_do_not_matter(self, seed):
        settings = self.settings(seed, permutations=0)
        label, apart, _ = self.layers(seed)
        swapped = self.measure(apart, 1 - label, settings).value
        assert swapped == pytest.approx(self.measure(apart, label, settings).value, abs=1e-5)

    def test_without_permutations_there_is_a_value_and_no_null(self, seed):
        label, apart, _ = self.layers(seed)
        bounds = self.measure(apart, label, self.settings(seed, permutations=0))
        assert np.isfinite([bounds.value, bounds.low, bounds.high]).all() and bounds.null_B.size == 0

    def test_fewer_labels_than_the_row_asks_for_are_a_reason_to_skip(self, seed):
        _, apart, _ = self.layers(seed)
        bounds = self.measure(apart, np.zeros(len(apart), int), self.settings(seed))
        assert bool(bounds.skipped) == np.isnan(bounds.value) == (METRICS[self.name].fewest_labels > 1)

    def test_without_variance_it_is_skipped_with_a_reason(self, seed):
        label, apart, _ = self.layers(seed)
        bounds = self.measure(np.repeat(apart[:1], len(label), axis=0), label, self.settings(seed))
        assert bounds.skipped and np.isnan(bounds.value)
