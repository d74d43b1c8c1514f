"""The contract of measures: on every row of the table, on a measure that a user adds, and on wrong ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from measure_contract import MeasureContract

from drillcore.measures import METRICS, MetricRow
from drillcore.system import tables


class TestProbe(MeasureContract):
    name = "probe"


class TestPurity(MeasureContract):
    name = "purity"


class TestSilhouette(MeasureContract):
    name = "silhouette"


class TestDispersion(MeasureContract):
    name = "dispersion"


class TestDispersionCentred(MeasureContract):
    name = "dispersion_centred"


ROW = MetricRow("variance between labels", "toy_measure:between", 1, 0.0, 1.0, 2)
TOY = '''
"""Share of the variance that lies between the labels (the correlation ratio), over all dimensions."""

import numpy as np

from drillcore.measures.draws import one_hot
from drillcore.measures.intervals import Bounds, plain_interval


def between(layer, draws):
    states = layer.standardised_UH.astype(np.float64)

    def share(rows, codes):
        moved = states[rows] - states[rows].mean(axis=0)
        labels = one_hot(codes[None, rows], draws.num_labels)[:, 0]
        sums = labels.T @ moved
        inside = (sums**2).sum(axis=1) / np.maximum(labels.sum(axis=0), 1)
        return inside.sum() / (moved**2).sum()

    everyone = np.arange(len(states))
    value = share(everyone, draws.codes_U)
    blocks = [np.flatnonzero(draws.jackknife_U != g) for g in np.unique(draws.jackknife_U)]
    low, high = plain_interval(value, np.array([share(rows, draws.codes_U) for rows in blocks]), 0.0, 1.0)
    null_B = draws.under_permutations(lambda codes_BU: np.array([share(everyone, codes) for codes in codes_BU]))
    return Bounds(value, low, high, null_B)
'''


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, MetricRow], None]]:
    """Adds the measure `between` as a user does: a file, a row in the table, and its name for job files."""

    def add(text: str, row: MetricRow) -> None:
        (tmp_path / "toy_measure.py").write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "toy_measure", raising=False)
        monkeypatch.setitem(METRICS, "between", row)

    # Fields of a job hold this very list.
    tables.MEASURES.append("between")
    yield add
    tables.MEASURES.remove("between")


class TestAMeasureThatIsAdded(MeasureContract):
    """One file, and one row in the table."""

    name = "between"

    @pytest.fixture(autouse=True)
    def added(self, add):
        add(TOY, ROW)


def test_every_row_has_a_suite():
    assert {suite.name for suite in MeasureContract.__subclasses__()} == {*METRICS, "between"}


@pytest.mark.parametrize(
    ("right", "wrong", "test"),
    [
        ("return inside.sum()", "return 1 - inside.sum()", "a_separated_layer_beats_noise_and_its_null"),
        ("Bounds(value, low, high,", "Bounds(value, high, low,", "a_separated_layer_beats_noise_and_its_null"),
        ("share(everyone, codes)", "share(everyone, draws.codes_U)", "a_separated_layer_beats_noise_and_its_null"),
        ("share(everyone, codes)", "share(everyone, codes[::-1])", "the_null_is_the_measure_under_each_permutation"),
        ("= share(everyone, draws", "= np.random.rand() / 9 + share(everyone, draws", "repeats_agree_bit_by_bit"),
        ("for codes in codes_BU", "for codes in codes_BU[1:]", "repeats_agree_bit_by_bit"),
        ("value = share", "value = draws.codes_U[0] / 9 + share", "the_names_of_the_labels_do_not_matter"),
        (".standardised_UH.astype(np.float64)", ".raw_UH; states -= 1", "states_are_not_changed"),
    ],
)
def test_a_wrong_measure_breaks_the_contract(add, seed, right, wrong, test):
    assert TOY.count(right) == 1
    add(TOY.replace(right, wrong), ROW)
    (check,) = [getattr(MeasureContract, name) for name in dir(MeasureContract) if name.startswith(f"test_{test}")]
    suite = MeasureContract()
    suite.name = "between"
    with pytest.raises(AssertionError):
        check(suite, seed)


def test_a_wrong_row_breaks_the_contract(add, seed):
    add(TOY, MetricRow(ROW.title, ROW.function, -1, ROW.low, ROW.high, ROW.fewest_labels))
    suite = MeasureContract()
    suite.name = "between"
    with pytest.raises(AssertionError):
        suite.test_a_separated_layer_beats_noise_and_its_null(seed)
