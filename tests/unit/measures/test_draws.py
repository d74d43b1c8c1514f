"""Folds, blocks, permutations and samples: groups whole, strata even, repeatable, honest about what is left out."""

from __future__ import annotations

import numpy as np
import pytest

from drillcore.errors import JobError
from drillcore.job.stages import Measure
from drillcore.measures import METRICS, chosen
from drillcore.measures.draws import make_draws
from drillcore.measures.stratify import number


def test_folds_and_blocks_keep_groups_whole_and_labels_even(seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 60, 400)
    label = (group % 3)[: len(group)]
    draws = make_draws(label, group, Measure(seed=seed), 400)
    for dealt in (draws.fold_U, draws.jackknife_U):
        assert all(len(set(dealt[group == g])) == 1 for g in set(group))
    assert set(draws.fold_U) == set(range(5)) and len(set(draws.jackknife_U)) == len(set(group))
    for fold in range(5):
        per_label = [len(set(group[(draws.fold_U == fold) & (label == c)])) for c in range(3)]
        assert max(per_label) - min(per_label) <= 1


def test_permutations_keep_each_folds_labels_and_depend_on_seed_and_number_alone(seed: int) -> None:
    label = np.random.default_rng(seed).choice(["a", "b", "c"], 90, p=[0.6, 0.3, 0.1])
    draws = make_draws(label, None, Measure(seed=seed), 90)
    codes = draws.permuted(0, 40)
    assert (codes[17:23] == make_draws(label, None, Measure(seed=seed), 90).permuted(17, 23)).all()
    assert not (codes == make_draws(label, None, Measure(seed=seed + 1), 90).permuted(0, 40)).all()
    for fold in range(5):
        in_fold = draws.fold_U == fold
        expected = np.sort(draws.codes_U[in_fold])
        assert all((np.sort(row[in_fold]) == expected).all() for row in codes)
    assert (codes != draws.codes_U).any(axis=1).all()


def test_groups_of_one_label_move_whole_and_mixed_groups_move_within(seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.repeat(np.arange(40), 4))
    label = np.where(group < 20, group % 2, np.arange(160) % 2)
    for g in range(20, 40):  # two of each label in a mixed group
        label[np.flatnonzero(group == g)] = [0, 0, 1, 1]
    codes = make_draws(label, group, Measure(seed=seed), 160).permuted(0, 30)
    for g in range(40):
        own = codes[:, group == g]
        assert (np.ptp(own, axis=1) == 0).all() if g < 20 else (own.sum(axis=1) == 2).all()
    assert len({tuple(row) for row in codes.tolist()}) == 30


def test_missing_and_rare_labels_are_left_out_and_noted(seed: int) -> None:
    label = ["a"] * 10 + ["b"] * 10 + [None, "", float("nan")] + ["once"] + ["twin"] * 2
    group = [*range(24), "same", "same"]
    draws = make_draws(label, group, Measure(), 26)
    assert draws.labels == ("a", "b") and draws.rows_U.tolist() == list(range(20)) and not draws.skipped
    assert "3 sentences without a label" in draws.notes[0] and "once, twin" in draws.notes[1]


@pytest.mark.parametrize(
    ("label", "group", "reason"),
    [
        (None, None, "no labels"),
        ([None] * 20, None, "no labels: none of the 20 sentences has one"),
        (["x"] * 20, None, "one label (x), of 20 sentences"),
        (["x"] * 19 + ["y"], None, "one label (x), of 19 sentences; 1 more is too rare to be measured"),
        (["x", "y"] * 4, None, "8 labelled sentences; at least 10 are needed"),
        (
            ["x", "y"] * 10,
            ["g"] * 20,
            "each of the 2 labels is held by one sentence, one group or one fold, of 20 labelled sentences",
        ),
        (
            [f"l{k}" for k in range(20)],
            None,
            "each of the 20 labels is held by one sentence, one group or one fold, of 20 labelled sentences",
        ),
        (["x"], None, "one label (x), of 1 sentence"),
    ],
)
def test_reasons_to_skip(label: list[str] | None, group: list[str] | None, reason: str) -> None:
    draws = make_draws(label, group, Measure(), 20 if label is None else len(label))
    assert draws.skipped == reason and draws.num_permutations == 0


def test_work_is_bounded_and_noted(seed: int) -> None:
    label = np.random.default_rng(seed).integers(0, 100, 30_000)
    draws = make_draws(label, None, Measure(permutations=1000, sample=10_000), 30_000)
    assert draws.num_permutations == 99 and len(draws.sample_S) < 10_000
    assert any("99 permutations instead of 1000" in n for n in draws.notes)
    assert any("silhouette on" in n for n in draws.notes)
    assert len(set(draws.jackknife_U)) == 200


def test_numbers_of_values() -> None:
    codes, names = number(np.array(["b", "a", "", "b"], dtype=object))
    assert codes.tolist() == [1, 0, -1, 1] and names == ["a", "b"]
    assert number([3, None, 1.0, float("nan")])[0].tolist() == [1, -1, 0, -1]


def test_names_of_measures() -> None:
    assert chosen("all") == tuple(METRICS)
    assert chosen(("silhouette", "probe")) == ("probe", "silhouette")
    with pytest.raises(JobError, match="accuracy is unknown"):
        chosen(("accuracy",))
