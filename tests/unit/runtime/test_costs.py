"""Formulas of the cost of stages: more work costs more, and the bounds of the measures hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from drillcore.job.stages import Measure, Project, Render
from drillcore.measures.draws import make_draws
from drillcore.runtime import costs
from drillcore.runtime.costs import Size

SIZE = Size(rows=1000, labelled=1000, labels=2, layers=10, hidden=256)


@pytest.mark.parametrize("field", ["rows", "labels", "layers", "hidden"])
def test_every_dimension_costs(field):
    more = replace(SIZE, **{field: 4 * getattr(SIZE, field)})
    if field == "rows":
        more = replace(more, labelled=more.rows)
    assert costs.group_measured(more, Measure()) > costs.group_measured(SIZE, Measure())
    if field in ("rows", "layers"):
        assert costs.group_rendered(more, Render(), grids=1) > costs.group_rendered(SIZE, Render(), grids=1)
    if field != "labels":
        assert costs.group_predicted(more, 1000) > costs.group_predicted(SIZE, 1000)


def test_settings_that_ask_for_less_cost_less():
    whole = costs.group_measured(SIZE, Measure())
    for changes in ({"permutations": 99}, {"metrics": ("purity",)}, {"folds": 2}):
        assert costs.group_measured(SIZE, Measure(**changes)) < whole
    umap = costs.layer_projected(1000, 256, Project(), with_graph=False)
    assert costs.layer_projected(1000, 256, Project(n_epochs=50), with_graph=False) < umap
    assert costs.layer_projected(1000, 256, Project(method="pca"), with_graph=False) < umap
    assert costs.layer_projected(1000, 256, Project(), with_graph=True) > umap


@pytest.mark.parametrize(("rows", "labels"), [(200, 2), (3000, 3), (30_000, 60)])
def test_draws_are_those_that_the_measures_take(rows, labels):
    settings, codes = Measure(), np.arange(rows) % labels
    draws = make_draws(codes, np.arange(rows), settings, rows)
    size = Size(rows, rows, labels, 1, 8)
    assert costs.draws_of(size, settings) == (draws.num_permutations, len(draws.sample_S))


def test_a_group_without_labels_costs_little():
    plain = Size(rows=1000, labelled=1000, labels=0, layers=10, hidden=256)
    assert costs.group_measured(plain, Measure()) < costs.group_measured(SIZE, Measure()) / 10
