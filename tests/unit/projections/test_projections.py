"""Projections: the contract on every row, on one that a user adds and on wrong ones; UMAP, PCA, alignment, choice."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from projection_contract import ProjectionContract, draw

from drillcore.errors import JobError, MissingExtraError
from drillcore.job.stages import Project
from drillcore.neighbours import EXACT_UP_TO
from drillcore.projections import PROJECTIONS, choose_projection, load_projection
from drillcore.projections.align import align
from drillcore.system import tables


class TestUmapLearn(ProjectionContract):
    name = "umap-learn"
    fewest = 4


class TestPca(ProjectionContract):
    name = "pca"


TOY = '''
"""The two dimensions of largest variance."""

import numpy as np

from drillcore.projections.base import project_distinct


class LargestVariance:
    def fit(self, states_NH, settings, graph):
        return project_distinct(states_NH, settings, graph, "numpy", embed)


def embed(states_UH, settings, graph):
    order = np.argsort(states_UH.var(axis=0))
    return np.float32(states_UH[:, order[-2:]])
'''


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Adds the projection `largest` as a user does: a file, a row in the table, and its name for job files."""

    def add(text: str) -> None:
        (tmp_path / "toy_projection.py").write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "toy_projection", raising=False)
        monkeypatch.setitem(PROJECTIONS, "largest", ("toy_projection:LargestVariance", ""))

    # Fields of a job hold this very list.
    tables.PROJECTION_BACKENDS.append("largest")
    yield add
    tables.PROJECTION_BACKENDS.remove("largest")


class TestAProjectionThatIsAdded(ProjectionContract):
    """One file, and one row in the table."""

    name = "largest"

    @pytest.fixture(autouse=True)
    def added(self, add):
        add(TOY)

    def test_a_job_may_choose_it(self):
        assert choose_projection(Project(backend="largest"), 10**6) == ("largest", "the job asks for it")


def test_every_row_that_needs_no_gpu_has_a_suite():
    assert {suite.name for suite in ProjectionContract.__subclasses__()} == {*PROJECTIONS, "largest"} - {"cuml"}


CALL = 'project_distinct(states_NH, settings, graph, "numpy", embed)'
BARE = '__import__("drillcore").projections.base.Projected(embed(states_NH, settings, graph), False, "numpy", 1.0, 0.1)'


@pytest.mark.parametrize(
    ("right", "wrong", "test", "arguments"),
    [
        ("order[-2:]", "order[:2]", "clusters_stay_apart_and_trustworthy", ()),
        ("order[-2:]", "order[-1:]", "any_number_of_sentences_gives_finite_points", (16,)),
        ("np.float32(", "np.float64(", "any_number_of_sentences_gives_finite_points", (16,)),
        ("np.float32(", "np.random.rand() + np.float32(", "repeats_agree_bit_by_bit", ("euclidean",)),
        ("np.float32(", "(2 if graph else 1) * np.float32(", "repeats_agree_bit_by_bit", ("cosine",)),
        ("        return", "        states_NH += 1\n        return", "repeats_agree_bit_by_bit", ("cosine",)),
        ("np.float32(", "0 * np.float32(", "equal_states_lie_on_one_point", (6,)),
        (CALL, BARE, "a_layer_without_variance_is_marked", ()),
    ],
)
def test_a_wrong_projection_breaks_the_contract(add, seed, right, wrong, test, arguments):
    assert TOY.count(right) == 1
    add(TOY.replace(right, wrong))
    (check,) = [getattr(ProjectionContract, n) for n in dir(ProjectionContract) if n.startswith(f"test_{test}")]
    suite = ProjectionContract()
    suite.name = "largest"
    with pytest.raises(AssertionError):
        check(suite, seed, *arguments)


def test_no_heavy_library_is_imported_before_a_layer_is_projected():
    script = (
        "import sys, drillcore.projections, drillcore.projections.base, drillcore.projections.align; "
        "print({'sklearn', 'umap', 'numba', 'cuml', 'torch'} & set(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "set()"


def test_repeats_agree_where_the_neighbours_are_approximate(seed: int) -> None:
    states, settings = draw(seed, EXACT_UP_TO + 50, 8), Project(n_epochs=2, seed=seed)
    first, again = (load_projection("umap-learn").fit(states, settings, None) for _ in range(2))
    assert first.points_N2.tobytes() == again.points_N2.tobytes()


def test_far_clusters_raise_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(9, 16)) * 1000
    states = (centres[rng.integers(0, 9, 200)] + 0.01 * rng.normal(size=(200, 16))).astype(np.float32)
    projected = load_projection("umap-learn").fit(states, Project(min_dist=1, n_epochs=20), None)
    assert np.isfinite(projected.points_N2).all()


def test_pca_is_the_closed_form(seed: int) -> None:
    states = draw(seed, 90, 12) * np.geomspace(9, 1, 12).astype(np.float32)
    states[:, 4] += 50_000  # a massive common offset
    projected = load_projection("pca").fit(states, Project(method="pca"), None)
    centred = states.astype(np.float64) - states.astype(np.float64).mean(axis=0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :2] * size[:2]
    signs = np.sign((expected * projected.points_N2).sum(axis=0))
    np.testing.assert_allclose(projected.points_N2, expected * signs, atol=0.02)


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
