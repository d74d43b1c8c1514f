"""The contract of measures, on every row of the table and on a measure that a user adds."""

from __future__ import annotations

import pytest
from measure_contract import MeasureContract

from drillcore.measures import METRICS, MetricRow, load_measure
from drillcore.system import tables


@pytest.mark.parametrize("name", list(METRICS))
def test_every_row_names_a_function(name):
    assert callable(load_measure(name))


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


TOY = '''
"""Share of the variance that lies between the labels (the correlation ratio), over all dimensions."""

import numpy as np

from drillcore.measures.draws import one_hot
from drillcore.measures.intervals import Bounds, plain_interval


def between(layer, draws):
    states = layer.standardised_UH.astype(np.float64)

    def share(rows, codes):
        chosen = states[rows] - states[rows].mean(axis=0)
        labels = one_hot(codes[None, rows], draws.num_labels)[:, 0]
        sums = labels.T @ chosen
        inside = (sums**2).sum(axis=1) / np.maximum(labels.sum(axis=0), 1)
        return inside.sum() / (chosen**2).sum()

    everyone = np.arange(len(states))
    value = share(everyone, draws.codes_U)
    blocks = [np.flatnonzero(draws.jackknife_U != g) for g in np.unique(draws.jackknife_U)]
    low, high = plain_interval(value, np.array([share(rows, draws.codes_U) for rows in blocks]), 0.0, 1.0)
    null = draws.under_permutations(lambda codes_BU: np.array([share(everyone, codes) for codes in codes_BU]))
    return Bounds(value, low, high, null)
'''


class TestAMeasureThatIsAdded(MeasureContract):
    """One file and one row in the table."""

    name = "between"

    @pytest.fixture(autouse=True)
    def add(self, tmp_path, monkeypatch):
        (tmp_path / "toy_measure.py").write_text(TOY, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(
            METRICS, "between", MetricRow("variance between labels", "toy_measure:between", 1, 0.0, 1.0, 2)
        )
        monkeypatch.setattr(tables, "MEASURES", [*tables.MEASURES, "between"])
