"""CKA, token prediction, controls and comparisons against closed forms and planted answers."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from scipy.special import log_softmax

from drillcore.errors import InputError
from drillcore.job.stages import Measure
from drillcore.measures import CONTROLS, ROWS
from drillcore.measures.cka import cka_rows, layer_cka
from drillcore.measures.comparison import DISPERSIONS, Side, as_csv, compare
from drillcore.measures.controls import controls
from drillcore.measures.draws import make_draws
from drillcore.measures.logit_lens import next_token, summarise
from drillcore.measures.separation import combine, measure_layer

QUIET = Measure(permutations=0)


def plain_cka(x: np.ndarray, y: np.ndarray) -> float:
    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        n = len(k)
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        middle = k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k.sum(0) @ m.sum(0))
        return float((np.trace(k @ m) + middle) / (n * (n - 3)))

    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def test_cka_is_the_unbiased_closed_form(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layers = [rng.normal(size=(70, d)).astype(np.float32) for d in (9, 9, 9)]
    layers[1] = layers[0] + layers[1]
    layers[2][:, 4] += 40_000
    cka = layer_cka(layers.__getitem__, 3)
    exact = [np.asarray(s, np.float64) - np.asarray(s, np.float64).mean(axis=0) for s in layers]
    for i in range(3):
        for j in range(3):
            assert cka[i, j] == pytest.approx(plain_cka(exact[i], exact[j]), abs=1e-4)


def test_cka_is_one_under_turns_and_scales_and_near_zero_for_strangers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layer = rng.normal(size=(300, 40)).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    same = np.repeat(layer[:1], 300, axis=0)
    layers = [layer, (17 * layer @ turn + 3).astype(np.float32), rng.normal(size=(300, 40)).astype(np.float32), same]
    cka = layer_cka(layers.__getitem__, 4)
    assert cka[0, 1] == pytest.approx(1, abs=1e-4) and abs(cka[0, 2]) < 0.1
    assert np.isnan(cka[3]).all() and np.isnan(cka[:, 3]).all()
    # Where sentences are few, biased CKA of strangers is near 1; debiased it is near 0 on average.
    pairs = rng.normal(size=(60, 2, 12, 200)).astype(np.float32)
    assert abs(np.mean([layer_cka(pair.__getitem__, 2)[0, 1] for pair in pairs])) < 0.12


def test_cka_rows_are_drawn_by_the_seed_within_memory() -> None:
    assert (cka_rows(50, 10, 64, QUIET) == np.arange(50)).all()
    rows = cka_rows(1_000_000, 34, 4096, QUIET)
    assert len(rows) * 34 * 4096 * 4 <= 1_000_000_000 and (np.diff(rows) > 0).all()
    assert len(cka_rows(1_000_000, 4, 64, QUIET)) == 10_000
    assert np.isnan(layer_cka(lambda k: np.eye(3, 5, k=k, dtype=np.float32), 2)).all()


def test_token_prediction_is_the_closed_form(seed: int) -> None:
    rng = np.random.default_rng(seed)
    states, weights = rng.normal(size=(37, 8)).astype(np.float32), rng.normal(size=(8, 50)).astype(np.float32) * 3
    expected = rng.integers(0, 50, 37)
    expected[5] = -1
    values = next_token(states, expected, lambda s: s @ weights, chunk_rows=10)
    logits = (states @ weights).astype(np.float64)
    assert np.isnan(values[5]).all()
    for k in np.flatnonzero(expected >= 0):
        own, rest = logits[k, expected[k]], np.delete(logits[k], expected[k])
        assert values[k, 0] == pytest.approx(log_softmax(logits[k])[expected[k]], abs=1e-4)
        assert values[k, 1] == 1 + (rest > own).sum() and values[k, 2] == pytest.approx(own - rest.max(), abs=1e-4)
    summary = summarise(values, np.arange(37))
    known = values[expected >= 0]
    assert summary.num_sentences == 36 and summary.logprob[0] == pytest.approx(known[:, 0].mean(), abs=1e-5)
    assert summary.top1[0] == pytest.approx((known[:, 1] == 1).mean())
    assert summary.logprob[1] < summary.logprob[0] < summary.logprob[2] <= 0
    assert summary.top1[1] <= summary.top1[0] <= summary.top1[2]
    assert summarise(np.full((4, 3), np.nan, np.float32), np.arange(4)).num_sentences == 0


def test_unembedding_may_return_read_only_or_infinite_logits() -> None:
    logits = np.array([[0.0, 2.0, -np.inf]], np.float32)
    logits.flags.writeable = False
    values = next_token(np.zeros((1, 4), np.float32), np.array([1]), lambda s: logits)
    assert values[0].tolist() == pytest.approx([-np.log1p(np.exp(-2)), 1, 2], abs=1e-5)


def test_controls_find_what_needs_no_model(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(120) % 2)
    settings = Measure(permutations=49)
    draws = make_draws(label, None, settings, 120)
    texts = [f"the {rng.choice(['bright', 'dull'])} {'cat' if k else 'dog'} sat" for k in label]
    noise = rng.integers(0, 7, 120), rng.integers(4, 9, 120)
    by_control = controls(texts, *noise, settings, draws)
    assert tuple(by_control) == tuple(CONTROLS)
    tfidf, last = (by_control[name].values_LMB[0, 0] for name in ("tfidf", "last_token_and_length"))
    assert tfidf[0] > 0.98 and tfidf[5] == pytest.approx(0.02) and last[0] < 0.75
    leaky = controls(["same words"] * 120, 10 + label, noise[1], settings, draws)
    assert leaky["last_token_and_length"].values_LMB[0, 0, 0] > 0.98
    assert leaky["tfidf"].skipped == {(0, "probe"): "the same in all 120 sentences"}
    by_length = controls([""] * 120, np.zeros(120, int), 5 + 3 * label, settings, draws)
    assert by_length["last_token_and_length"].values_LMB[0, 0, 0] > 0.98
    assert by_length["tfidf"].skipped == {(0, "probe"): "the texts hold no words"}
    one = controls(texts, *noise, settings, make_draws(["x"] * 120, None, settings, 120))
    assert all("one label" in s.skipped[0, "probe"] for s in one.values())


def side(name: str, rng: np.random.Generator, spreads: list[float], num_rows: int = 80) -> Side:
    label = np.arange(num_rows) % 4
    draws = make_draws(label, None, QUIET, num_rows)
    centre = np.random.default_rng(1).normal(size=(4, 16))[label]
    layers = [(centre + s * rng.normal(size=(num_rows, 16)) + 1).astype(np.float32) for s in spreads]
    separation = combine([measure_layer(s, QUIET, draws) for s in layers])
    numbers = tuple(range(len(spreads)))
    return Side(name, numbers, tuple(f"block_{k}" for k in numbers), separation.metrics, separation.values_LMB)


def test_the_tighter_of_two_is_named_where_both_measures_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = compare(side("complete", rng, [1.0, 2.0]), side("incomplete", rng, [1.0, 0.2]), DISPERSIONS)
    assert [r.metric for r in rows] == ["dispersion", "dispersion_centred"] * 2
    assert {r.verdict for r in rows[2:]} == {"incomplete tighter"}
    for row in rows:
        assert row.all_low < row.low <= row.difference <= row.high < row.all_high
        assert row.difference == pytest.approx(row.a - row.b)
        assert row.verdict in (
            "no difference",
            "incomplete tighter",
            "complete tighter",
            "raw and mean-centred disagree",
        )
    read = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert len(read) == 4 and float(read[2]["difference"]) == pytest.approx(rows[2].difference, rel=1e-4)


def values(*rows: tuple[float, float, float]) -> np.ndarray:
    return np.array([[(v, low, high, 0, 0, 0)] for v, low, high in rows], np.float32)


def test_the_interval_of_a_difference_is_recovered_from_the_two() -> None:
    a = Side("a", (0,), ("embed",), ("dispersion",), values((0.5, 0.4, 0.7)))
    b = Side("b", (0,), ("embed",), ("dispersion",), values((0.3, 0.2, 0.35)))
    (row,) = compare(a, b)
    assert row.difference == pytest.approx(0.2, abs=1e-6)
    assert row.low == pytest.approx(0.2 - np.hypot(0.1, 0.05), abs=1e-6)
    assert row.high == pytest.approx(0.2 + np.hypot(0.2, 0.1), abs=1e-6)
    assert row.verdict == "b tighter, by this measure alone"


def test_measures_that_disagree_claim_nothing() -> None:
    pair = ("dispersion", "dispersion_centred")
    one = np.concatenate([values((0.1, 0.09, 0.11)), values((0.9, 0.89, 0.91))], axis=1)
    two = np.concatenate([values((0.2, 0.19, 0.21)), values((0.8, 0.79, 0.81))], axis=1)
    rows = compare(Side("a", (0,), ("embed",), pair, one), Side("b", (0,), ("embed",), pair, two))
    assert {r.verdict for r in rows} == {"raw and mean-centred disagree"}


def test_models_of_different_depth_are_paired_by_relative_depth() -> None:
    shallow = Side("s", (0, 1, 2), ("embed", "block_1", "final"), ("probe",), values(*[(0.5, 0.4, 0.6)] * 3))
    deep = Side("d", tuple(range(5)), tuple("abcde"), ("probe",), values(*[(0.9, 0.85, 0.95)] * 5))
    assert [(r.layer_a, r.layer_b) for r in compare(shallow, deep, ("probe",))] == [(0, 0), (1, 2), (2, 4)]
    rows = compare(deep, shallow, ("probe",))
    assert [(r.layer_a, r.layer_b) for r in rows] == [(0, 0), (2, 1), (4, 2)]
    assert {r.verdict for r in rows} == {"d separates better"}
    assert [r.layer_name for r in rows] == ["a ~ embed", "c ~ block_1", "e ~ final"]
    with pytest.raises(InputError, match="dispersion, dispersion_centred: not measured for d and s") as caught:
        compare(deep, shallow, DISPERSIONS)
    assert caught.value.hint.endswith("Both have probe.")
    with pytest.raises(InputError, match="`prob` is no measure; did you mean `probe`") as caught:
        compare(shallow, deep, ("probe", "prob"))
    assert caught.value.hint == f"Any of {', '.join(ROWS)}."


def test_by_default_everything_that_both_sides_have_is_compared() -> None:
    a = Side("a", (0,), ("embed",), ("probe", "purity"), np.full((1, 2, 6), 0.5, np.float32))
    b = Side("b", (0,), ("embed",), ("purity", "probe"), np.full((1, 2, 6), 0.5, np.float32))
    assert [r.metric for r in compare(a, b)] == ["probe", "purity"]
    with pytest.raises(InputError, match="a and c have no measure in common"):
        compare(a, Side("c", (0,), ("embed",), ("silhouette",), np.zeros((1, 1, 6), np.float32)))


def test_a_layer_that_was_skipped_gives_an_empty_verdict() -> None:
    a = Side("a", (0,), ("embed",), ("probe",), values((np.nan, np.nan, np.nan)))
    assert compare(a, a, ("probe",))[0].verdict == ""
    pair = ("dispersion", "dispersion_centred")
    gone = np.full((1, 1, 6), np.nan, np.float32)
    one, two = (np.concatenate([values((v, v - 0.01, v + 0.01)), gone], axis=1) for v in (0.1, 0.2))
    rows = compare(Side("a", (0,), ("embed",), pair, one), Side("b", (0,), ("embed",), pair, two))
    assert [r.verdict for r in rows] == ["a tighter, by this measure alone", ""]
