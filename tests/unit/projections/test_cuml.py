"""cuML behind the contract of projections: its interface as its source has it, and its agreement where a GPU is."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from conftest import require
from drillcore.job.stages import Project
from drillcore.neighbours import build
from drillcore.projections import load_projection

ENGINE = Path(__file__).parents[3] / "engine" / "drillcore"
# The oldest that the extra admits for PyTorch's CUDA, and the newest that was looked at.
VERSIONS = ("26.6.0", "26.10.0")
CALLS = {
    "UMAP": ("projections/cuml.py", "_embed", "cuml/manifold/umap/umap.pyx"),
    "NearestNeighbors": ("neighbours.py", "_cuml", "cuml/neighbors/nearest_neighbors.pyx"),
}


def used(path: Path, function: str, name: str) -> set[str]:
    """Arguments, by name, of a function's call of a class."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (body,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    (call,) = [
        node
        for node in ast.walk(body)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name and node.keywords
    ]
    assert not call.args
    return {keyword.arg for keyword in call.keywords}


def offered(source: str, name: str) -> set[str]:
    """Arguments of a class's constructor, in Cython."""
    body = source[re.search(rf"^class {name}\(", source, re.MULTILINE).start() :]
    signature = re.search(r"def __init__\((.*?)\):", body, re.DOTALL)[1]
    return set(re.findall(r"^\s*(\w+)\s*=", signature, re.MULTILINE))


@pytest.mark.long
@pytest.mark.parametrize("version", VERSIONS)
def test_the_interface_is_that_of_its_source(version, tmp_path):
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(tmp_path)]
    platform = [
        "--platform",
        "manylinux_2_28_x86_64",
        "--platform",
        "manylinux_2_27_x86_64",
        "--python-version",
        "3.12",
    ]
    done = subprocess.run([*command, *platform, f"cuml-cu13=={version}"], capture_output=True, text=True, check=False)
    if done.returncode:
        require("index", done.stderr[-300:])
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        for name, (ours, function, theirs) in CALLS.items():
            source = files.read(theirs).decode()
            assert used(ENGINE / ours, function, name) <= offered(source, name), name
        umap = files.read(CALLS["UMAP"][2]).decode()
    assert '"brute_force_knn"' in umap and '"euclidean"' in umap and '"cosine"' in umap


def overlap(points_N2: np.ndarray, states_NH: np.ndarray, num_neighbors: int = 15) -> float:
    """The share of the nearest neighbours among the points that are neighbours among the states."""
    near, far = (build(x, num_neighbors, "euclidean", 0).indices_NK[:, 1:] for x in (points_N2, states_NH))
    return float(np.mean([len(np.intersect1d(a, b)) / len(a) for a, b in zip(near, far, strict=True)]))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_it_agrees_with_umap_learn(metric, seed):
    if importlib.util.find_spec("cuml") is None:
        require("cuml", "pip install 'drillcore[gpu]', on a machine with an NVIDIA GPU")
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(12, 64)) * 3
    states = (centres[draw.integers(0, 12, 1500)] + draw.normal(size=(1500, 64))).astype(np.float32)
    settings = Project(metric=metric, seed=seed)
    ours, plain = (load_projection(name).fit(states, settings, None) for name in ("cuml", "umap-learn"))
    again = load_projection("cuml").fit(states, settings, None)
    assert ours.points_N2.tobytes() == again.points_N2.tobytes()
    assert ours.trustworthiness > plain.trustworthiness - 0.02
    assert overlap(ours.points_N2, states) > overlap(plain.points_N2, states) - 0.05
    exact, gpu = (build(states, 16, metric, 0, backend) for backend in ("exact", "cuml"))
    assert (np.sort(exact.indices_NK) == np.sort(gpu.indices_NK)).mean() > 0.999


def test_the_overlap_tells_a_projection_from_noise(seed):
    draw = np.random.default_rng(seed)
    states = draw.normal(size=(300, 8)).astype(np.float32)
    assert overlap(states[:, :2], states) > 2 * overlap(draw.normal(size=(300, 2)).astype(np.float32), states)
