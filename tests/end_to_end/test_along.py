"""Measuring and projecting in one go, on one k-NN graph, gives what each stage gives by itself."""

from __future__ import annotations

import json
import secrets

import numpy as np
import yaml
import zarr
from typer.testing import CliRunner

from drillcore.cli.main import app
from support.runs import sentences

RESULTS = ("separation", "umap_raw", "umap", "trustworthiness", "degenerate")


def test_one_graph_serves_both_and_changes_neither(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    lines = [json.dumps(row) for row in sentences(seed, 60)]
    (tmp_path / "d.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def job(store):
        told = {
            "store": store,
            "models": [{"id": str(models()), "as": "m"}],
            "datasets": [{"name": "d", "path": "d.jsonl", "label": "label"}],
            "measure": {"permutations": 50},
            "project": {"n_neighbors": 7, "n_epochs": 30},
        }
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")

    # All in this process: each that projects would compile umap-learn for itself, which takes longer than all the rest.
    def command(*arguments):
        done = CliRunner().invoke(app, [*arguments, "job.yaml"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    def results(store):
        group = zarr.open_group(tmp_path / store, path="m/d", mode="r")
        return {name: group[name][:] for name in RESULTS}

    job("together.zarr")
    assert "layers measured and projected by umap-learn" in command("run")
    for stage in ("measure", "project"):
        assert "there already" in command(stage)
    job("apart.zarr")
    for stage in ("extract", "measure", "project"):
        assert "and projected" not in command(stage)
    together = results("together.zarr")
    for name, values in results("apart.zarr").items():
        np.testing.assert_array_equal(values, together[name], err_msg=name)
