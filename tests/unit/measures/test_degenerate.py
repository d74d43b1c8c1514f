"""Data without variance, scatter, or labels enough: a defined value, or "not measured" with its reason and counts."""

from __future__ import annotations

import secrets

import hypothesis
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import silhouette_samples
from sklearn.metrics.pairwise import cosine_distances

from drillcore.job.stages import Measure
from drillcore.measures import METRICS
from drillcore.measures.cka import layer_cka
from drillcore.measures.controls import controls
from drillcore.measures.draws import Draws, make_draws
from drillcore.measures.intervals import Bounds, plain_interval, share_interval
from drillcore.measures.layer import standardised
from drillcore.measures.separation import combine, measure_layer

SEED = secrets.randbits(32)
QUICK = settings(max_examples=120, deadline=None, database=None)


def measured(states: np.ndarray, draws: Draws, given: Measure) -> dict[str, Bounds]:
    return measure_layer(np.asarray(states, np.float32), given, draws)


def test_thirty_of_32_sentences_end_in_the_same_token(seed: int) -> None:
    """The two others carry labels of their own, so that nothing that is left varies."""
    rng = np.random.default_rng(seed)
    states = np.repeat(rng.normal(size=(1, 64)), 32, axis=0)
    states[30:] = rng.normal(size=(2, 64))
    draws = make_draws(["a", "b"] * 15 + ["once", "alone"], None, Measure(permutations=19), 32)
    bounds = measured(states, draws, Measure(permutations=19))
    assert {b.skipped for b in bounds.values()} == {"all 30 states are the same"}
    assert draws.notes == ("labels held by one sentence or one group are left out: alone, once",)


@pytest.mark.parametrize("rounding", [0.0, 1e-7])
@pytest.mark.parametrize("width", [8, 64])
def test_a_fold_without_scatter(rounding: float, width: int, seed: int) -> None:
    """One sentence differs: training without its fold sees one state only."""
    rng = np.random.default_rng(seed)
    states = np.repeat(rng.normal(size=(1, width)), 32, axis=0) * (1 + rounding * rng.uniform(-1, 1, (32, width)))
    states[17] += 1
    draws = make_draws(["a", "b"] * 16, None, Measure(permutations=19, seed=seed % 1000), 32)
    bounds = measured(states, draws, Measure(permutations=19))
    number = 1 + int(draws.fold_U[17])
    left = int((draws.fold_U != draws.fold_U[17]).sum())
    reason = f"training without fold {number} of 5 has no scatter: its {left} sentences have the same state"
    assert bounds["probe"].skipped == reason
    same, length = np.full(32, 5), np.full(32, 4)
    length[17] = 9
    control = controls(["a"] * 32, same, length, Measure(), draws)["last_token_and_length"]
    assert control.skipped == {(0, "probe"): reason}


def test_fully_labelled_data_are_never_told_that_they_have_no_labels() -> None:
    draws = make_draws([f"l{k}" for k in range(20)], None, Measure(), 20)
    bounds = measured(np.random.default_rng(0).normal(size=(20, 4)), draws, Measure())
    assert {b.skipped for b in bounds.values()} == {
        "each of the 20 labels is held by one sentence, one group or one fold, of 20 labelled sentences"
    }


def test_a_label_whose_groups_lie_in_one_fold_is_left_out_and_noted(seed: int) -> None:
    """Its sentences share groups with another label; a probe could never see it in training."""
    rng = np.random.default_rng(seed)
    # The groups of `a` are dealt to five folds from the largest on: the first and the sixth hold `c`.
    label = ["c", *"aaa", *"aaa" * 4, "c", "a", *"ab" * 20]
    group = [*"pppp", *"iiijjjkkklll", *"qq", *range(40)]
    draws = make_draws(label, group, Measure(permutations=0, seed=seed % 1000), len(label))
    assert draws.labels == ("a", "b") and draws.notes == ("labels whose groups all lie in one fold are left out: c",)
    probe = measured(rng.normal(size=(len(label), 5)), draws, Measure(permutations=0, metrics=("probe",)))["probe"]
    assert 0 <= probe.value <= 1 and not probe.skipped


@pytest.mark.parametrize("centred", [False, True])
def test_dispersion_of_states_without_a_direction(centred: bool, seed: int) -> None:
    """Equal states at the mean are not far apart from each other in some direction: their cosine is 0."""
    rng = np.random.default_rng(seed)
    states = rng.integers(-1, 2, size=(24, 2)).astype(np.float32)
    states[:3] = 0
    states[12:] = -states[:12]  # the mean is zero
    label = rng.permutation(np.arange(24) % 3)
    name = "dispersion_centred" if centred else "dispersion"
    given = Measure(permutations=0, metrics=(name,))
    moved = states + 0 if centred else states
    bounds = measured(moved, make_draws(label, None, given, 24), given)[name]
    expected = []
    for k in range(3):
        distances = cosine_distances(states[label == k])
        zero = ~states[label == k].any(axis=1)
        distances[np.ix_(zero, zero)] = 1
        expected.append(distances[~np.eye(len(distances), dtype=bool)].mean())
    assert bounds.value == pytest.approx(np.mean(expected), abs=1e-6)


def test_a_sample_of_one_label_under_a_permutation_scores_zero(seed: int) -> None:
    """Without another label there is nothing to be far from; as NaN it would have beaten no value, and p its least."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(300, 3)).astype(np.float32)
    label = np.zeros(300, int)
    label[:12] = 1
    given = Measure(permutations=99, sample=20, metrics=("silhouette",))
    for k in range(60):
        draws = make_draws(label, None, Measure(permutations=99, sample=20, seed=k), 300)
        codes_S = draws.codes_U[draws.sample_S]
        if codes_S.any() and (draws.permuted(0, 99)[:, draws.sample_S].sum(axis=1) == 0).any():
            break
    bounds = measured(states, draws, given)["silhouette"]
    sample = states[draws.sample_S]
    assert bounds.value == pytest.approx(silhouette_samples(sample, codes_S).mean(), abs=1e-5)
    lone = draws.permuted(0, 99)[:, draws.sample_S].sum(axis=1) == 0
    assert (bounds.null_B[lone] == 0).all() and np.isfinite(bounds.null_B).all()
    rank = 1 + (bounds.null_B >= bounds.value - 1e-9).sum()
    assert combine([{"silhouette": bounds}]).values_LMB[0, 0, 5] == pytest.approx(rank / 100, abs=0.011)


@pytest.mark.parametrize("labels", [2, 3, 7])
def test_a_share_of_one_has_an_interval(labels: int, seed: int) -> None:
    """Rounding of the share gave an effective size without end: an interval from 1 to 1."""
    rng = np.random.default_rng(seed)
    label = np.arange(17 * labels) % labels
    states = (50 * np.eye(labels)[label] + rng.normal(size=(len(label), labels))).astype(np.float32)
    bounds = measured(states, make_draws(label, None, Measure(permutations=9), len(label)), Measure(permutations=9))
    for name in ("probe", "purity"):
        assert bounds[name].value == 1 and bounds[name].high == 1 and 0.5 < bounds[name].low < 0.97
    rounded = np.full(20, 1 - 6e-8)
    rounded[3] += 3e-8
    assert share_interval(1 + 1e-7, rounded, 20.0) == pytest.approx(share_interval(1.0, np.ones(20), 20.0))


def test_without_two_blocks_there_is_no_interval() -> None:
    for without_G in (np.empty(0), np.array([0.5])):
        assert np.isnan(plain_interval(0.5, without_G, 0.0, 1.0)).all()
    states = np.float32([[1, 0], [0, 1]])
    bounds = measured(states, make_draws(None, None, Measure(), 2), Measure())["dispersion"]
    assert bounds.value == pytest.approx(1) and np.isnan([bounds.low, bounds.high]).all()


def test_a_null_that_is_constant_up_to_rounding_is_beaten_by_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    null_B = 0.5 + 1e-9 * rng.normal(size=99)
    value = float(null_B.max()) + 1e-9
    p = combine([{"probe": Bounds(value, 0.4, 0.6, null_B)}]).values_LMB[0, 0, 5]
    assert p == 1


def test_zscores_of_rounding_are_not_inflated(seed: int) -> None:
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(50, 3)).astype(np.float32)
    states[:, 1] = np.float32(700) * (1 + 6e-8 * rng.integers(0, 2, 50))
    spread = standardised(states, "zscore").std(axis=0)
    assert spread[[0, 2]] == pytest.approx(1, abs=1e-4) and spread[1] < 1e-3


def test_cka_is_between_minus_one_and_one_or_unknown(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(200):
        num_rows = int(rng.integers(2, 12))
        layers = [rng.normal(size=(3, 4))[rng.integers(0, 3, num_rows)].astype(np.float32) for _ in range(3)]
        cka = layer_cka(layers.__getitem__, 3)
        assert (np.isnan(cka) | (np.abs(cka) <= 1.0001)).all()


@st.composite
def datasets(draw: st.DrawFn) -> tuple[np.ndarray, list[str | None] | None, list[int] | None, Measure]:
    """States of a few distinct values, labels of a few members, groups of many sentences."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_rows, width, kinds = draw(st.integers(1, 40)), draw(st.sampled_from([1, 3, 8, 64])), draw(st.integers(1, 5))
    distinct = rng.integers(-1, 2, (kinds, width)) if draw(st.booleans()) else rng.normal(size=(kinds, width))
    distinct = distinct * draw(st.sampled_from([1.0, 1e-4, 7e5]))
    states = distinct[rng.choice(kinds, num_rows, p=rng.dirichlet(np.full(kinds, 0.4)))]
    states = states * (1 + draw(st.sampled_from([0.0, 1e-7])) * rng.normal(size=states.shape))
    names = draw(st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=1, max_size=5))
    shares = rng.dirichlet(np.full(len(names), 0.5))
    labels = [names[k] for k in rng.choice(len(names), num_rows, p=shares)] if draw(st.booleans()) else None
    groups = rng.integers(0, max(1, num_rows // 3) + 1, num_rows).tolist() if draw(st.booleans()) else None
    given = Measure(
        permutations=draw(st.sampled_from([0, 1, 19])),
        folds=draw(st.sampled_from([2, 5, 50])),
        sample=20,
        seed=draw(st.integers(0, 1000)),
        standardise=draw(st.sampled_from(["none", "center", "zscore"])),
    )
    return states.astype(np.float32), labels, groups, given


@hypothesis.seed(SEED)
@QUICK
@given(drawn=datasets())
def test_every_measure_is_a_value_in_its_range_or_says_why_not(drawn) -> None:
    states, labels, groups, given = drawn
    draws = make_draws(labels, groups, given, len(states))
    separation = combine([measured(states, draws, given)])
    assert not draws.skipped or labels is None or any(c.isdigit() for c in draws.skipped)
    for m, (name, row) in enumerate(METRICS.items()):
        value, low, high, null_mean, null_high, p = separation.values_LMB[0, m]
        reason = separation.skipped.get((0, name), "")
        assert np.isnan(value) == bool(reason)
        if reason:
            assert any(c.isdigit() for c in reason) or (labels is None and reason == "no labels"), reason
            continue
        assert row.low <= value <= row.high
        assert (np.isnan(low) and np.isnan(high)) or row.low <= low <= value <= high <= row.high, (
            name,
            low,
            value,
            high,
        )
        assert np.isfinite([null_mean, null_high, p]).all() == (draws.num_permutations > 0)
        assert draws.num_permutations == 0 or 0 < p <= 1
    tokens = (states[:, 0] > 0).astype(int)
    for control in controls(["a b"] * len(states), tokens, tokens + 1, given, draws).values():
        assert np.isnan(control.values_LMB[0, 0, 0]) == bool(control.skipped)
