"""Measuring and projecting read one k-NN graph a layer, and give what each stage gives by itself."""

from __future__ import annotations

import json
import os
import random

import numpy as np
import pytest
import yaml
import zarr
from typer.testing import CliRunner

from drillcore import neighbours
from drillcore.cli.main import app
from drillcore.runtime.stages import graphs as layer_graphs
from drillcore.system.progress import with_lines
from support.damage import damages
from support.runs import sentences

RESULTS = ("separation", "umap_raw", "umap", "trustworthiness", "degenerate")


@pytest.fixture
def run(models, tmp_path, monkeypatch, seed):
    """Run commands on a job, all in this process: each process would compile umap-learn for itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lines = [json.dumps(row) for row in sentences(seed, 60)]
    (tmp_path / "d.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def command(store, *stages):
        job = {
            "store": store,
            "models": [{"id": str(models()), "as": "m"}],
            "datasets": [{"name": "d", "path": "d.jsonl", "label": "label"}],
            "measure": {"permutations": 50},
            "project": {"n_neighbors": 7, "n_epochs": 30},
        }
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
        for stage in stages:
            done = CliRunner().invoke(app, [stage, "job.yaml"], catch_exceptions=False)
            assert done.exit_code == 0, done.output
        group = zarr.open_group(tmp_path / store, path="m/d", mode="r")
        return done.output, {name: group[name][:] for name in RESULTS if name in group}

    return command


@pytest.fixture
def cached(tmp_path):
    return lambda: list((tmp_path / "cache" / "drillcore" / "graphs").glob("*"))


def test_one_graph_serves_both_and_changes_neither(run, cached, monkeypatch):
    built = []
    usual = layer_graphs.build
    monkeypatch.setattr(layer_graphs, "build", lambda *given: built.append(1) or usual(*given))
    _, together = run("together.zarr", "run")
    assert len(built) == 5 and not cached()
    for stage in ("measure", "project"):
        assert "up to date" in run("together.zarr", stage)[0]
    run("apart.zarr", "extract", "measure")
    assert len(cached()) == 5
    for path in cached():
        path.write_bytes(b"damaged")
    out, apart = run("apart.zarr", "project")
    assert out.count("(a k-NN graph) is cut off; it is made again") == 5
    assert not cached() and set(apart) == set(RESULTS)
    for name, values in apart.items():
        np.testing.assert_array_equal(values, together[name], err_msg=name)


def test_a_graph_comes_back_from_the_cache_as_it_was_made(tmp_path, monkeypatch, seed):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    states = np.random.default_rng(seed).standard_normal((40, 8)).astype(np.float32)
    graphs = layer_graphs.LayerGraphs("0" * 64, 9, "euclidean", 0)
    assert graphs.read(states, 3) is None
    made, direct = graphs.make(states, 3), neighbours.build(states, 9, "euclidean", 0)
    for graph in (made, graphs.read(states, 3), graphs.make(states, 3)):
        assert (graph.indices_NK == direct.indices_NK).all() and (graph.distances_NK == direct.distances_NK).all()
        assert (graph.metric, graph.backend) == (direct.metric, direct.backend)
        assert (graph.indices_NK.dtype, graph.distances_NK.dtype) == (np.int32, np.float32)
    graphs.forget(5)
    assert graphs.read(states, 3) is None


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_graph_of_other_states_is_not_taken_from_the_cache(metric, tmp_path, monkeypatch, seed):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    draw = np.random.default_rng(seed)
    graphs = layer_graphs.LayerGraphs("0" * 64, 9, metric, 0)
    for states in (draw.standard_normal((n, 8)).astype(np.float32) + 3 for n in (40, 40, 41)):
        assert graphs.read(states, 0) is None
        made, direct = graphs.make(states, 0), neighbours.build(states, 9, metric, 0)
        assert (made.indices_NK == direct.indices_NK).all() and graphs.read(states, 0) is not None


def test_a_damaged_graph_is_made_again_and_that_is_said(tmp_path, monkeypatch, seed):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    states = np.random.default_rng(seed).standard_normal((2, 40, 8)).astype(np.float32)
    graphs = layer_graphs.LayerGraphs("0" * 64, 9, "euclidean", 0)
    direct, _ = graphs.make(states[0], 0), graphs.make(states[1], 1)
    path, other = (tmp_path / "drillcore" / "graphs" / f"{'0' * 64}-{slot}.entry" for slot in (0, 1))
    whole = path.read_bytes()
    for name, damage in damages(whole, other.read_bytes(), random.Random(seed)):
        damage(path)
        made, lines = with_lines(lambda s: graphs.make(s, 0), states[0])
        assert (made.indices_NK == direct.indices_NK).all() and (made.distances_NK == direct.distances_NK).all(), name
        assert path.read_bytes() == whole and len(lines) == 1 and f"{path} (a k-NN graph)" in lines[0], name


def test_graphs_that_were_made_first_make_room(tmp_path, monkeypatch, seed):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(layer_graphs, "MOST_BYTES", 10_000)
    states = np.random.default_rng(seed).standard_normal((40, 8)).astype(np.float32)
    graphs = layer_graphs.LayerGraphs("0" * 64, 9, "euclidean", 0)
    for slot in range(5):
        graphs.make(states, slot)
        os.utime(tmp_path / "drillcore" / "graphs" / f"{'0' * 64}-{slot}.entry", (slot, slot))
    assert [graphs.read(states, slot) is not None for slot in range(5)] == [False, False, True, True, True]
