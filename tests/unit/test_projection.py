"""Projections: repeatable, honest about layers without variance, comparable along the layers."""

from __future__ import annotations

import numpy as np
import pytest

from drillcore.job import Project
from drillcore.projection import choose, load
from drillcore.projection.align import align


@pytest.mark.parametrize("name", ["umap-learn", "pca"])
def test_repeats_are_bit_identical_and_clusters_stay_apart(name, seed):
    draw = np.random.default_rng(seed)
    states = draw.normal(size=(60, 16)).astype(np.float32)
    states[30:] += 20
    first, second = (load(name).fit(states, Project(), None) for _ in range(2))
    np.testing.assert_array_equal(first.points_N2, second.points_N2)
    assert not first.degenerate and first.trustworthiness > 0.6
    centers = first.points_N2[:30].mean(0), first.points_N2[30:].mean(0)
    spread = max(first.points_N2[:30].std(), first.points_N2[30:].std())
    assert np.linalg.norm(centers[0] - centers[1]) > spread


@pytest.mark.parametrize("name", ["umap-learn", "pca"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_few_sentences(name, count, seed):
    states = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    points = load(name).fit(states, Project(), None).points_N2
    assert points.shape == (count, 2) and np.isfinite(points).all()


@pytest.mark.parametrize("name", ["umap-learn", "pca"])
def test_identical_states_are_marked_not_drawn_as_a_cloud(name, seed):
    states = np.tile(np.random.default_rng(seed).normal(size=(1, 8)), (40, 1)).astype(np.float32)
    found = load(name).fit(states, Project(), None)
    assert found.degenerate and not found.points_N2.any()


def test_alignment_undoes_rotation_and_reflection(seed):
    draw = np.random.default_rng(seed)
    layer = draw.normal(size=(50, 2)).astype(np.float32)
    layer -= layer.mean(0)
    turn, _ = np.linalg.qr(draw.normal(size=(2, 2)))
    still = np.zeros((50, 2), np.float32)
    aligned = align(np.stack([layer, still, layer @ turn.astype(np.float32) + 3]), np.array([False, True, False]))
    np.testing.assert_allclose(aligned[2], aligned[0], atol=1e-5)
    assert not aligned[1].any()


def test_the_choice_has_a_reason():
    assert choose(Project(), 50) == ("umap-learn", "fewer than 2,000 sentences")
    assert choose(Project(method="pca"), 50)[0] == "pca"
    assert choose(Project(), 10**6)[1]
