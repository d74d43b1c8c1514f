"""What every measure promises; a suite for one says its name in the table."""

from __future__ import annotations

import numpy as np
import pytest

from drillcore.job.fields import Measure
from drillcore.measures import METRICS
from drillcore.measures.draws import make_draws
from drillcore.measures.separation import combine, measure_layer


class MeasureContract:
    name = ""

    def settings(self, seed: int, permutations: int = 60) -> Measure:
        # The contract also runs on measures that no job file may name yet.
        return Measure(permutations=permutations, seed=seed % 1000).model_copy(update={"metrics": (self.name,)})

    def layers(self, seed: int, num_sentences: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels, a layer that separates them, and a layer of noise."""
        rng = np.random.default_rng(seed)
        label = rng.permutation(np.arange(num_sentences) % 2)
        noise = rng.normal(size=(num_sentences, 12)).astype(np.float32)
        centres = 6 * rng.normal(size=(2, 12)).astype(np.float32)
        return label, noise + centres[label], noise

    def test_a_separated_layer_beats_noise_and_its_null(self, seed):
        settings = self.settings(seed)
        label, apart, noise = self.layers(seed)
        draws = make_draws(label, None, settings, len(label))
        separation = combine([measure_layer(states, settings, draws) for states in (apart, noise)])
        (value, low, high, null_mean, null_high, p), other = separation.values_LMB[:, 0]
        sign = METRICS[self.name].sign
        assert sign * value > sign * other[0] and sign * value > sign * null_high and p < 0.05
        assert low <= value <= high and sign * null_mean < sign * null_high
        assert METRICS[self.name].low - 1e-6 <= low and high <= METRICS[self.name].high + 1e-6

    def test_it_repeats_bit_by_bit_and_has_one_null_draw_a_permutation(self, seed):
        settings = self.settings(seed)
        label, apart, _ = self.layers(seed)
        draws = [make_draws(label, None, settings, len(label)) for _ in range(2)]
        one, two = (measure_layer(apart, settings, d)[self.name] for d in draws)
        assert (one.value, one.low, one.high) == (two.value, two.low, two.high)
        assert len(one.null_B) == 60 and one.null_B.tobytes() == two.null_B.tobytes()

    def test_the_order_of_sentences_does_not_matter(self, seed):
        settings = self.settings(seed, permutations=0)
        label, apart, _ = self.layers(seed)
        value = measure_layer(apart, settings, make_draws(label, None, settings, len(label)))[self.name].value
        flipped = make_draws(1 - label, None, settings, len(label))
        assert measure_layer(apart, settings, flipped)[self.name].value == pytest.approx(value, abs=1e-5)

    def test_without_variance_it_is_skipped_with_a_reason(self, seed):
        settings = self.settings(seed)
        label, apart, _ = self.layers(seed)
        same = np.repeat(apart[:1], len(label), axis=0)
        bounds = measure_layer(same, settings, make_draws(label, None, settings, len(label)))[self.name]
        assert bounds.skipped and np.isnan(bounds.value)
