"""A probe that learns from the train rows of a split and is tested on the others, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score, roc_auc_score, roc_curve

from drillcore.job.stages import Measure
from drillcore.measures.draws import make_draws, one_hot
from drillcore.measures.held_out import area_under_roc, recall_at_few_false_positives
from drillcore.measures.layer import LayerStates
from drillcore.measures.probe import Probe
from drillcore.measures.separation import combine, measure_layer

PROBE = Measure(permutations=0, metrics=("probe",))


def split(rng, num_rows, num_test):
    return rng.permutation(np.arange(num_rows) < num_test)


def planted(rng, label, effect, size=8):
    states = rng.normal(size=(len(label), size)) @ (np.eye(size) + 0.1 * rng.normal(size=(size, size)))
    states[:, 0] += effect * label
    return states.astype(np.float32)


@pytest.mark.parametrize("num_labels", [2, 3])
@pytest.mark.parametrize("standardise", ["center", "zscore", "none"])
def test_it_is_the_discriminant_of_the_train_rows_tested_on_the_others(seed, num_labels, standardise):
    rng = np.random.default_rng(seed)
    label, is_test = rng.integers(0, num_labels, 3000), split(rng, 3000, 1000)
    # Each label has a direction of its own: along one line regression tells those in the middle less well.
    states = planted(rng, label, 0.0)
    states[np.arange(3000), label] += 2
    # The train rows alone decide: they do not know of this direction.
    states[is_test, 5] += 2 * label[is_test] * (num_labels == 2)
    settings = PROBE.model_copy(update={"standardise": standardise})
    draws = make_draws(label, None, settings, 3000, is_test)
    bounds = measure_layer(states, settings, draws)
    theirs = LinearDiscriminantAnalysis(priors=np.full(num_labels, 1 / num_labels)).fit(
        states[~is_test], label[~is_test]
    )
    said = theirs.predict(states[is_test])
    assert bounds["probe"].value == pytest.approx(balanced_accuracy_score(label[is_test], said), abs=0.01)
    assert list(bounds) == ["probe", "auroc", "recall_at_1_fpr"][: 3 if num_labels == 2 else 1]
    if num_labels == 2:
        score = theirs.decision_function(states[is_test])
        assert bounds["auroc"].value == pytest.approx(roc_auc_score(label[is_test], score), abs=0.005)
        false, true, _ = roc_curve(label[is_test], score, drop_intermediate=False)
        assert bounds["recall_at_1_fpr"].value == pytest.approx(true[false <= 0.01].max(), abs=0.02)
        for each in bounds.values():
            assert 0 <= each.low <= each.value <= each.high <= 1 and each.low < each.high
    tested = Probe(states, draws).right(draws.codes_U[None].astype(np.int16))
    assert tested.shape == (1, 1000)


def test_the_train_rows_labels_alone_decide_what_is_learned(seed):
    """Whatever labels the tested rows have, they are given the same ones."""
    rng = np.random.default_rng(seed)
    label, is_test = np.arange(80) % 2, split(rng, 80, 30)
    states = planted(rng, label, 1.0)
    draws = make_draws(label, None, PROBE, 80, is_test)
    other = np.where(is_test, 1 - draws.codes_U, draws.codes_U)
    margins = Probe(states, draws).margins(np.stack([draws.codes_U, other]).astype(np.int16))
    assert margins.shape == (2, 30) and margins[0].tobytes() == margins[1].tobytes()


def test_area_and_recall_are_those_of_scikit_learn_with_ties(seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2, (4, 700))
    margins = np.round(rng.normal(size=(4, 700)) + codes, 1).astype(np.float32)
    for b in range(4):
        area, recall = (f(margins[[b]], codes[[b]])[0] for f in (area_under_roc, recall_at_few_false_positives))
        assert area == pytest.approx(roc_auc_score(codes[b], margins[b]))
        false, true, _ = roc_curve(codes[b], margins[b], drop_intermediate=False)
        assert recall == pytest.approx(true[false <= 0.01].max())


def test_shuffled_labels_pass_at_the_stated_rate_also_where_groups_are_on_both_sides(seed):
    """Groups of three equal sentences: a group on both sides is known from the train rows, with its label."""
    rng, settings = np.random.default_rng(seed), Measure(permutations=39, metrics=("probe",))
    num_trials, passed = 200, np.zeros(2, int)
    for _ in range(num_trials):
        group = np.repeat(np.arange(24), 3)
        states = rng.normal(size=(24, 30))[group].astype(np.float32)
        label, is_test = rng.integers(0, 2, 24)[group], rng.random(72) < 0.4
        if len(np.unique(label)) < 2:
            continue
        draws = make_draws(label, group, settings, 72, is_test)
        assert draws.straddling > 5
        measured = combine([measure_layer(states, settings, draws)])
        passed += measured.values_LMB[0, :2, 5] <= 0.05
    assert (passed <= binom.ppf(0.9999, num_trials, 0.05)).all(), passed


def test_labels_of_one_side_and_few_negatives_are_said(seed):
    rng = np.random.default_rng(seed)
    label = np.array(["a", "b"] * 60 + ["c"] * 10)
    is_test = np.append(np.arange(120) < 60, np.ones(10, bool))
    draws = make_draws(label, None, PROBE, 130, is_test)
    assert draws.labels == ("a", "b") and "one side of the split are left out: c" in draws.notes[0]
    bounds = measure_layer(planted(rng, (label == "b").astype(int), 3), PROBE, draws)
    assert bounds["recall_at_1_fpr"].skipped.startswith("30 test sentences of the label a; at least 100")
    assert len(draws.tested.codes_U) == 60 and draws.tested.units_of_labels().tolist() == [30, 30]
    constant = np.ones((130, 4), np.float32)
    constant[is_test] = rng.normal(size=(70, 4))
    skipped = measure_layer(constant, PROBE, draws)
    assert skipped["probe"].skipped == "training on the train rows has no scatter: its 60 sentences have the same state"


def test_without_a_split_every_sentence_is_tested_and_nothing_else_is_measured():
    label = np.arange(40) % 2
    draws = make_draws(label, None, PROBE, 40)
    states = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    assert draws.tested is draws and draws.straddling == 0 and draws.tested_folds == [0, 1, 2, 3, 4]
    assert list(measure_layer(states, PROBE, draws)) == ["probe"]
    assert LayerStates(states, PROBE, draws).learned_from_UH.tobytes() == (
        LayerStates(states, PROBE, draws).standardised_UH.tobytes()
    )
    assert one_hot(draws.codes_U[None], 2).shape == (40, 1, 2)
