"""The contract of projections, on every row of the table that runs here and on a projection that a user adds."""

from __future__ import annotations

import pytest
from projection_contract import ProjectionContract

from drillcore.projections import PROJECTIONS
from drillcore.system import tables


class TestUmapLearn(ProjectionContract):
    name = "umap-learn"


class TestPca(ProjectionContract):
    name = "pca"


TOY = '''
"""Two random directions, drawn by the seed (Johnson and Lindenstrauss, 1984)."""

import numpy as np

from drillcore.projections.base import project_distinct


class RandomDirections:
    name = "umap"

    def fit(self, states_NH, settings, graph):
        return project_distinct(states_NH, settings, graph, "random directions", embed)


def embed(states_UH, settings, graph):
    directions = np.random.default_rng(settings.seed).normal(size=(states_UH.shape[1], 2))
    return np.asarray((states_UH - states_UH.mean(axis=0)) @ directions, np.float32)
'''


class TestAProjectionThatIsAdded(ProjectionContract):
    """One file and one row in the table."""

    name = "random"

    @pytest.fixture(autouse=True)
    def add(self, tmp_path, monkeypatch):
        (tmp_path / "toy_projection.py").write_text(TOY, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(PROJECTIONS, "random", ("toy_projection:RandomDirections", ""))
        monkeypatch.setattr(tables, "PROJECTION_BACKENDS", [*tables.PROJECTION_BACKENDS, "random"])
