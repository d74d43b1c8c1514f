"""Sentences without a label: in the store, grey in pictures, counted, and not in any measure of the labels."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import drillcore
from drillcore.cli.export import export_layer
from drillcore.job.file import load_job
from drillcore.job.stages import Measure
from drillcore.measures.draws import make_draws
from drillcore.measures.separation import combine, measure_layer
from drillcore.runtime.runner import run_stages
from drillcore.runtime.stages import ALL_STAGES
from drillcore.system.progress import Silent

JOB = """
models: [{{id: {model}, as: m}}]
datasets:
- {{name: kept, path: partly.jsonl, unlabelled: keep, keep: [year]}}
- {{name: dropped, path: partly.jsonl, unlabelled: drop}}
- {{name: labelled, path: labelled.jsonl}}
- {{name: ignored, path: partly.jsonl, label: null}}
project: {{method: pca}}
measure: {{permutations: 19, standardise: zscore}}
store: runs/job.zarr
"""


class Listener(Silent):
    """Remembers what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)

    warn = say


def rows_of(seed: int) -> list[dict[str, Any]]:
    """The unlabelled ones lie among the others, so that they would be neighbours of theirs."""
    draw = np.random.default_rng(seed)
    rows = []
    for i, label in enumerate(draw.choice(["x", "y", ""], 90)):
        words = " ".join(draw.choice(["a", "city", "north", "of", "it"], 3))
        row = {"text": f"{words} {i}{label or draw.choice(['x', 'y'])}", "year": int(i) if i % 4 else None}
        rows.append(row | ({"label": str(label)} if label else {"label": None} if i % 2 else {}))
    return rows


def measured_alone(dataset: Any, settings: Measure) -> np.ndarray:
    """The measures of the labelled sentences, from their states."""
    chosen = np.flatnonzero(dataset.label.values != "")
    labels, texts = dataset.label.values[chosen], dataset.row_id.values[chosen]
    draws = make_draws(labels, texts, settings, len(chosen))
    states = dataset.hidden_states.values[chosen]
    layers = [np.ascontiguousarray(states[:, k]) for k in range(states.shape[1])]
    return combine([measure_layer(layer, settings, draws) for layer in layers]).values_LMB


def test_rows_without_a_label_are_kept_in_sight_and_out_of_measures(models: Any, tmp_path: Path, seed: int) -> None:
    rows = rows_of(seed)
    labelled = [row for row in rows if row.get("label")]
    for name, some in (("partly", rows), ("labelled", labelled)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    (tmp_path / "job.yaml").write_text(JOB.format(model=models()), encoding="utf-8")
    loaded, listener = load_job(tmp_path / "job.yaml"), Listener()
    run_stages(loaded, ALL_STAGES, listener)
    num_without = len(rows) - len(labelled)
    said = "\n".join(listener.said)
    assert f"kept: {num_without} of 90 rows have no label in the field `label`: drawn grey" in said
    assert f"dropped: {num_without} of 90 rows have no label in the field `label`: left out" in said
    assert "kept: keep: `year`: missing in 23 of 90 rows" in said

    tree = drillcore.open(loaded.store, internals=True)["m"]
    kept, dropped, only, ignored = (tree[name] for name in ("kept", "dropped", "labelled", "ignored"))
    assert kept.label.values.tolist() == [row.get("label") or "" for row in rows] and "label" not in ignored
    assert [None if np.isnan(y) else y for y in kept.year.values] == [row["year"] for row in rows]
    # What is measured is the labelled sentences alone, as if the file held no others.
    np.testing.assert_array_equal(dropped.separation, only.separation)
    np.testing.assert_array_equal(kept.separation, measured_alone(kept, loaded.job.measure))
    dispersions = [list(only.metric.values).index(name) for name in ("dispersion", "dispersion_centred")]
    # Their states differ by rounding, since they shared packs with others.
    np.testing.assert_allclose(kept.separation[:, dispersions, 0], only.separation[:, dispersions, 0], atol=1e-4)
    facts = kept.attrs["results"]["separation"]
    assert facts["unlabelled"] == num_without and facts["labels"] == ["x", "y"]
    assert facts["notes"][0] == f"{num_without} sentences without a label are left out"
    assert facts["controls"] == only.attrs["results"]["separation"]["controls"]

    page = (tmp_path / "runs" / "job" / "report.html").read_text(encoding="utf-8")
    assert re.findall(r'"unlabelled": ?(\d+)', page) == [str(num_without), "0", "0", "0"]
    written = tmp_path / "layer.parquet"
    list(export_layer(loaded.store, "1", "parquet", written, "m/kept"))
    assert pq.read_table(written)["label"].to_pylist() == [row.get("label") for row in rows]


def test_labels_that_begin_to_be_missing_are_refused_before_anything_is_written(models: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": null}\n', encoding="utf-8")
    job = f"models: [{models()}]\ndatasets: {{d: a.jsonl}}\nstore: runs/job.zarr\n"
    (tmp_path / "job.yaml").write_text(job, encoding="utf-8")
    with pytest.raises(drillcore.errors.TextError, match=r"a\.jsonl:2: field `label` is null; `unlabelled: keep`"):
        run_stages(load_job(tmp_path / "job.yaml"), ("extract",), Silent())
    assert not (tmp_path / "runs").exists()
