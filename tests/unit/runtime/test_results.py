"""The one reader of stored measures, and the facts of a projection, of this version and of older ones."""

from __future__ import annotations

import numpy as np
import pytest
from zarr.storage import LocalStore

from drillcore.job.stages import Project
from drillcore.measures import BOUNDS
from drillcore.runtime.results import ProjectionFacts, read_prediction, read_projection_facts, read_separation
from drillcore.runtime.stages.render.grids import _made_by
from drillcore.store.attributes import make_group
from drillcore.store.group import GroupWriter
from drillcore.store.layout import choose_shape

VALUES = np.array([[0.5, 0.4, 0.6, 0.5, 0.7, 0.9], [0.9, 0.8, 1.0, 0.5, 0.7, 0.01], [0.8] * 6], np.float32)


@pytest.fixture
def writer(tmp_path):
    writer = GroupWriter(make_group(LocalStore(tmp_path / "s.zarr"), "m/d"))
    writer.ensure(choose_shape(4, (0, 3, 4), ("embed", "block_3", "final_norm"), 8, "float32"), [])
    return writer


def measure(writer, values_LMB, metrics, **facts):
    writer.write_results("inputs", {"metric": np.array(metrics)})
    writer.write_results("inputs", {"bound": np.array(BOUNDS)})
    writer.write_results("inputs", {"separation": values_LMB}, {"separation": facts})


def test_the_best_layer_and_the_values_by_bound(writer):
    skipped = np.full_like(VALUES, np.nan)
    controls = {"tfidf": {"value": 0.6}, "last_token_and_length": {"value": None}}
    measure(writer, np.stack([VALUES, skipped], axis=1), ["probe", "purity"], labels=["a", "b"], controls=controls)
    measured = read_separation(writer.group)
    best = measured.best("probe")
    assert (best.slot, best.layer_name, measured.layers_L[best.slot]) == (1, "block_3", 3)
    assert (best.value, best.low, best.high, best.null_high, best.p) == pytest.approx((0.9, 0.8, 1.0, 0.7, 0.01))
    assert measured.of("probe")["low"].tolist() == VALUES[:, 1].tolist()
    assert measured.of("purity") is measured.best("purity") is measured.of("silhouette") is None
    assert measured.num_labels == 2 and measured.controls() == {"tfidf": 0.6}


def test_what_was_not_measured_is_none(writer):
    assert read_separation(writer.group) is read_prediction(writer.group) is None
    assert read_projection_facts(writer.group, "umap") is None
    measure(writer, VALUES[:, None], ["probe"])
    writer.drop_results(["separation"])
    assert read_separation(writer.group) is None


def test_the_facts_of_a_projection_come_back_and_the_footer_names_min_dist(writer):
    facts = ProjectionFacts("umap-learn 1", "few", 3, 15, 0.25, "euclidean", "joint", True, 1)
    writer.write_results("inputs", {"umap": np.zeros((3, 4, 2), np.float32)}, {"umap": facts.record()})
    assert read_projection_facts(writer.group, "umap") == facts
    words = "umap-learn 1, seed 3, n_neighbors 15, min_dist 0.25, metric euclidean, datasets in one space, each layer"
    assert _made_by(facts, Project()).startswith(words)


def test_a_store_of_an_older_version_lacks_min_dist_and_is_drawn_without(writer):
    older = {"backend": "umap-learn 1", "seed": 0, "n_neighbors": 15, "metric": "euclidean", "fit": "each", "later": 1}
    writer.write_results("inputs", {"umap": np.zeros((3, 4, 2), np.float32)}, {"umap": older})
    facts = read_projection_facts(writer.group, "umap")
    assert facts.min_dist is None and "min_dist" not in facts.record()
    assert _made_by(facts, Project()) == "umap-learn 1, seed 0, n_neighbors 15, metric euclidean"
