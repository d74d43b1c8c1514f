"""Projections: repeats, few and identical sentences, alignment, choice of backend."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from drillcore.errors import JobError, MissingExtraError
from drillcore.job.fields import Project
from drillcore.neighbours import EXACT_UP_TO, build
from drillcore.projections import choose_projection, load_projection
from drillcore.projections.align import align


def draw(seed: int, num_rows: int, num_dimensions: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num_rows, num_dimensions)).astype(np.float32)


def two_clusters(seed: int, num_rows: int) -> np.ndarray:
    states = draw(seed, num_rows)
    states[num_rows // 2 :, 0] += 40
    return states


@pytest.mark.parametrize("name", ["umap-learn", "pca"])
@pytest.mark.parametrize("num_rows", [1, 2, 3, 4, 5, 7, 16, 60])
def test_any_number_of_sentences(seed: int, name: str, num_rows: int) -> None:
    found = load_projection(name).fit(draw(seed, num_rows), Project(n_epochs=20), None)
    assert found.points_N2.shape == (num_rows, 2) and found.points_N2.dtype == np.float32
    assert np.isfinite(found.points_N2).all()
    assert found.degenerate == (num_rows == 1)
    assert np.isnan(found.trustworthiness) == (num_rows < 3)
    assert ("principal components" in found.note) == (name == "umap-learn" and num_rows in (2, 3))


@pytest.mark.parametrize("name", ["umap-learn", "pca"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_repeats_agree_bit_by_bit_and_the_graph_may_be_given(seed: int, name: str, metric: str) -> None:
    states, settings = draw(seed, 150), Project(metric=metric, n_epochs=30, seed=seed)
    first, again = (load_projection(name).fit(states, settings, None) for _ in range(2))
    given = build(states, 20, metric, settings.seed)  # more columns than UMAP asks for
    before = given.indices_NK.tobytes(), given.distances_NK.tobytes()
    shared = load_projection(name).fit(states, settings, given)
    assert first.points_N2.tobytes() == again.points_N2.tobytes() == shared.points_N2.tobytes()
    assert before == (given.indices_NK.tobytes(), given.distances_NK.tobytes())


def test_repeats_agree_where_the_neighbours_are_approximate(seed: int) -> None:
    states, settings = draw(seed, EXACT_UP_TO + 50, 8), Project(n_epochs=2, seed=seed)
    first, again = (load_projection("umap-learn").fit(states, settings, None) for _ in range(2))
    assert first.points_N2.tobytes() == again.points_N2.tobytes()


@pytest.mark.parametrize("name", ["umap-learn", "pca"])
def test_clusters_stay_apart_and_trustworthy(seed: int, name: str) -> None:
    found = load_projection(name).fit(two_clusters(seed, 120), Project(), None)
    a, b = found.points_N2[:60], found.points_N2[60:]
    gap = np.linalg.norm(a.mean(axis=0) - b.mean(axis=0))
    # Around each cluster's own middle: where the picture's origin lies says nothing.
    assert gap > 2 * max(a.std(axis=0).max(), b.std(axis=0).max()) and found.trustworthiness > 0.6
    assert found.backend and found.seconds > 0 and found.note == ""


@pytest.mark.parametrize("name", ["umap-learn", "pca"])
def test_identical_states_are_marked_and_drawn_at_zero(seed: int, name: str) -> None:
    states = np.repeat(draw(seed, 1), 80, axis=0)
    found = load_projection(name).fit(states, Project(), build(states, 15, "euclidean", 0))
    assert found.degenerate and not found.points_N2.any() and np.isnan(found.trustworthiness)


@pytest.mark.parametrize("name", ["umap-learn", "pca"])
@pytest.mark.parametrize("num_distinct", [2, 3, 4, 6, 30])
def test_equal_states_lie_on_one_point(seed: int, name: str, num_distinct: int) -> None:
    chosen = np.random.default_rng(seed).integers(0, num_distinct, 200)
    chosen[:num_distinct] = np.arange(num_distinct)
    states = draw(seed, num_distinct)[chosen]
    found = load_projection(name).fit(states, Project(n_epochs=20), build(states, 15, "euclidean", 0))
    assert not found.degenerate and str(num_distinct) in found.note
    assert len(np.unique(found.points_N2, axis=0)) == num_distinct
    for k in range(num_distinct):
        assert np.ptp(found.points_N2[chosen == k], axis=0).max() == 0


def test_far_clusters_raise_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(9, 16)) * 1000
    states = (centres[rng.integers(0, 9, 200)] + 0.01 * rng.normal(size=(200, 16))).astype(np.float32)
    found = load_projection("umap-learn").fit(states, Project(min_dist=1, n_epochs=20), None)
    assert np.isfinite(found.points_N2).all()


def test_pca_is_the_closed_form(seed: int) -> None:
    states = draw(seed, 90, 12) * np.geomspace(9, 1, 12).astype(np.float32)
    states[:, 4] += 50_000  # a massive common offset
    found = load_projection("pca").fit(states, Project(method="pca"), None)
    centred = states.astype(np.float64) - states.astype(np.float64).mean(axis=0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :2] * size[:2]
    signs = np.sign((expected * found.points_N2).sum(axis=0))
    np.testing.assert_allclose(found.points_N2, expected * signs, atol=0.02)


def test_alignment_undoes_turns_and_mirrors_and_keeps_distances(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layer = rng.normal(size=(60, 2))
    turns = [np.linalg.qr(rng.normal(size=(2, 2)))[0] for _ in range(5)]
    points = np.stack([layer @ t + rng.normal(size=2) for t in turns]).astype(np.float32)
    points[2] = 0
    aligned = align(points, np.array([False, False, True, False, False]))
    assert not aligned[2].any() and (align(points) == aligned).all()
    for k in (1, 3, 4):
        np.testing.assert_allclose(aligned[k], aligned[0], atol=1e-5)
    np.testing.assert_allclose(aligned[0], points[0] - points[0].mean(axis=0), atol=1e-6)


def test_alignment_does_not_scale(seed: int) -> None:
    layer = draw(seed, 40, 2)
    aligned = align(np.stack([layer, 3 * layer]))
    np.testing.assert_allclose(aligned[1], 3 * aligned[0], atol=1e-5)


def test_the_choice_is_recorded_with_its_reason() -> None:
    assert choose_projection(Project(method="pca"), 10**6)[0] == "pca"
    assert choose_projection(Project(), 100) == ("umap-learn", "fewer than 2,000 sentences")
    assert choose_projection(Project(backend="umap-learn"), 10**6) == ("umap-learn", "the job asks for it")
    assert choose_projection(Project(backend="cuml"), 10)[0] == "cuml"
    if importlib.util.find_spec("cuml") is None:
        assert choose_projection(Project(), 10**6) == ("umap-learn", "cuML is not installed")


def test_settings_that_umap_refuses_are_found_before_any_layer() -> None:
    with pytest.raises(JobError, match=r"min_dist is 1\.5"):
        choose_projection(Project(min_dist=1.5), 100)


def test_a_missing_extra_says_what_to_install() -> None:
    if importlib.util.find_spec("cuml") is None:
        with pytest.raises(MissingExtraError) as caught:
            load_projection("cuml")
        assert caught.value.hint == "pip install 'drillcore[gpu]'"
    with pytest.raises(JobError, match="tsne is unknown"):
        load_projection("tsne")
