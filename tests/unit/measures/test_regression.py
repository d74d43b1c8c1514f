"""The probe of labels that are numbers, against scikit-learn and against results that are known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from drillcore.job.stages import Measure
from drillcore.measures import OF_NUMBERS
from drillcore.measures.controls import controls
from drillcore.measures.fitted import fitted_probe
from drillcore.measures.layer import standardised
from drillcore.measures.numbers import Permutations, number_draws
from drillcore.measures.ridge import Features, without_fold
from drillcore.measures.separation import combine, measure_layer

SETTINGS = Measure(permutations=0)


def drawn(seed, rows, hidden, num_groups=0, noise=1.0):
    """States far from the origin, numbers that depend on them, and groups."""
    rng = np.random.default_rng(seed)
    states = (rng.normal(size=(rows, hidden)) * rng.uniform(0.1, 5, hidden) + 20 * rng.normal(size=hidden)).astype("f")
    values = 1000 + states @ rng.normal(size=hidden) + noise * rng.normal(size=rows)
    return rng, states, values, rng.integers(0, num_groups, rows) if num_groups else None


def penalised(train, values, penalties):
    """Ridge regression with the penalty of the least generalised cross-validation error, by its definition."""
    centred = train - train.mean(axis=0)
    best, error = 0.0, np.inf
    for penalty in penalties:
        model = Ridge(alpha=penalty, solver="svd").fit(train, values)
        hat = centred @ np.linalg.solve(centred.T @ centred + penalty * np.eye(train.shape[1]), centred.T)
        residual = ((values - model.predict(train)) ** 2).sum()
        found = residual / (len(values) - 1 - np.trace(hat)) ** 2
        best, error = (penalty, found) if found < error else (best, error)
    return Ridge(alpha=best, solver="svd").fit(train, values)


@pytest.mark.parametrize("standardise", ["center", "zscore"])
@pytest.mark.parametrize(("rows", "hidden", "num_groups"), [(150, 12, 0), (150, 12, 30), (60, 90, 0)])
def test_r2_is_that_of_scikit_learn_with_the_same_folds_and_penalty(seed, rows, hidden, num_groups, standardise):
    _, states, values, groups = drawn(seed, rows, hidden, num_groups)
    settings = SETTINGS.model_copy(update={"standardise": standardise})
    draws = number_draws(values, groups, settings)
    if groups is not None:
        assert all(len(np.unique(draws.fold_U[groups == g])) == 1 for g in np.unique(groups))
    wide = standardised(states, standardise).astype(float)
    predicted = np.empty(rows)
    for fold in np.unique(draws.fold_U):
        train, test = np.flatnonzero(draws.fold_U != fold), np.flatnonzero(draws.fold_U == fold)
        # More dimensions than rows are turned into those that they span, which changes no prediction.
        features = Features(wide.astype("f"))
        penalties = without_fold(test, *features.moments(train), len(train)).penalties_P
        predicted[test] = penalised(wide[train], values[train], penalties).predict(wide[test])
    measured = measure_layer(states, settings, draws)
    assert list(measured) == [OF_NUMBERS]
    assert measured[OF_NUMBERS].value == pytest.approx(r2_score(values, predicted), abs=1e-4)


def test_a_split_is_tested_on_its_rows_alone(seed):
    rng, states, values, _ = drawn(seed, 200, 8)
    is_test = rng.random(200) < 0.4
    draws = number_draws(values, None, SETTINGS, is_test)
    weight, offset = fitted_probe(states, SETTINGS, draws)
    assert weight.shape == (1, 8) and offset.shape == (1,)
    said = r2_score(values[is_test], states[is_test] @ weight[0] + offset[0])
    assert measure_layer(states, SETTINGS, draws)[OF_NUMBERS].value == pytest.approx(said, abs=1e-3)
    # What stands in the train rows' place does not matter to the test rows' mean, nor the other way round.
    moved = np.where(is_test, values, values[::-1])
    other = measure_layer(states, SETTINGS, number_draws(moved, None, SETTINGS, is_test))[OF_NUMBERS].value
    assert other < said


def test_r2_is_the_share_that_the_states_explain(seed):
    """Half of the variance is noise: R² is 0.5, within its interval in nearly all draws."""
    within = 0
    for k in range(20):
        rng = np.random.default_rng([seed, k])
        states = rng.normal(size=(600, 4)).astype("f")
        signal = states @ np.array([1.0, 1.0, 1.0, 1.0]) / 2
        values = signal + rng.normal(size=600)
        draws = number_draws(values, None, SETTINGS)
        bounds = measure_layer(states, SETTINGS, draws)[OF_NUMBERS]
        within += bounds.low <= 0.5 <= bounds.high
        assert bounds.value == pytest.approx(0.5, abs=0.15)
    assert within >= 16


@pytest.mark.parametrize("grouped", [False, True])
def test_numbers_that_the_states_do_not_hold_are_not_above_their_null(seed, grouped):
    settings, beyond, rng = Measure(permutations=99), 0, np.random.default_rng(seed)
    for _ in range(20):
        groups = np.repeat(np.arange(20), 5) if grouped else None
        shared = 3 * rng.normal(size=20)[groups] if grouped else 0
        values, states = shared + rng.normal(size=100), rng.normal(size=(100, 6)).astype("f")
        states += 3 * rng.normal(size=(20, 6))[groups].astype("f") if grouped else 0
        draws = number_draws(values, groups, settings)
        separation = combine([measure_layer(states, settings, draws)])
        beyond += separation.values_LMB[0, 0, 5] <= 0.05
    assert beyond <= 5
    strong = values + 3 * states[:, 0]
    found = combine([measure_layer(states, settings, number_draws(strong, groups, settings))]).values_LMB[0, 0]
    assert found[0] > found[4] and found[5] == pytest.approx(0.01)


def test_permutations_keep_to_groups_and_folds(seed):
    rng = np.random.default_rng(seed)
    groups = np.concatenate([np.repeat(np.arange(12), 3), np.repeat(np.arange(12, 20), 2), np.arange(20, 40)])
    values = rng.normal(size=len(groups))
    values[(groups >= 12) & (groups < 16)] = groups[(groups >= 12) & (groups < 16)]
    draws = number_draws(values, groups, Measure(permutations=50))
    permuted = Permutations(draws, values)
    numbers = permuted.numbers(0, 50)
    np.testing.assert_array_equal(numbers[7:9], permuted.numbers(7, 9))
    assert (numbers != values).any(axis=0).mean() > 0.9
    for row in numbers:
        mixed = np.isin(groups, np.r_[0:12])
        for fold in np.unique(draws.fold_U):
            inside = draws.fold_U == fold
            for g in np.unique(groups[inside & mixed]):
                # A group has the numbers of one group, its own or another one of its size and fold.
                home = groups[np.isin(values, row[groups == g])]
                assert len(set(home)) == 1 and set(draws.fold_U[groups == home[0]]) == {fold}
        for g in range(12, 16):
            assert len(set(row[groups == g])) == 1


@pytest.mark.parametrize(
    ("values", "is_test", "said"),
    [
        (np.full(30, np.nan), None, "no labels: none of the 30 sentences has one"),
        (np.r_[np.arange(9) / 2, np.full(21, np.nan)], None, "9 labelled sentences; at least 10 are needed"),
        (np.full(30, 2.5), None, "one label (2.5), of 30 sentences"),
        (
            np.r_[np.arange(20) / 2, np.ones(10)],
            np.arange(30) >= 20,
            "the test rows of the split have one label (1), of 10 rows",
        ),
        (
            np.r_[np.full(20, np.nan), np.arange(10)],
            np.arange(30) >= 20,
            "the train rows of the split have no row with a label",
        ),
    ],
)
def test_what_cannot_be_judged_is_said(values, is_test, said):
    draws = number_draws(values, None, SETTINGS, is_test)
    states = np.random.default_rng(0).normal(size=(30, 4)).astype("f")
    bounds = measure_layer(states, SETTINGS, draws)[OF_NUMBERS]
    assert bounds.skipped == draws.skipped == said and np.isnan(bounds.value)


def test_one_group_and_equal_states_are_said():
    values = np.arange(30) / 4
    assert number_draws(values, np.zeros(30, int), SETTINGS).skipped == "one group, of 30 sentences"
    same = measure_layer(np.ones((30, 4), "f"), SETTINGS, number_draws(values, None, SETTINGS))
    assert same[OF_NUMBERS].skipped == "all 30 states are the same"


def test_numbers_far_from_zero_and_of_any_size_are_measured_alike(seed):
    _, states, values, _ = drawn(seed, 120, 6)
    plain = measure_layer(states, SETTINGS, number_draws(values, None, SETTINGS))[OF_NUMBERS]
    for moved in (values * 1e-200, values * 1e200, values + 1e9):
        found = measure_layer(states, SETTINGS, number_draws(moved, None, SETTINGS))[OF_NUMBERS]
        assert (found.value, found.low, found.high) == pytest.approx((plain.value, plain.low, plain.high), abs=1e-4)


def test_controls_are_of_the_same_measure(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 30, 100)
    texts = ["word " * n for n in lengths]
    settings = Measure(permutations=19)
    draws = number_draws(lengths / 4, None, settings)
    found = controls(texts, np.zeros(100, int), lengths, settings, draws)
    assert {control.metrics for control in found.values()} == {(OF_NUMBERS,)}
    assert found["last_token_and_length"].values_LMB[0, 0, 0] > 0.9
