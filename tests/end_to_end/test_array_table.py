"""Everything that the stages write stands in the table of arrays, and kept columns stay what they were."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
import zarr

from drillcore.errors import TextError
from drillcore.job.file import load_job
from drillcore.runtime.runner import run_stages
from drillcore.runtime.stages import ALL_STAGES
from drillcore.store.arrays import ARRAYS, dtype_name
from drillcore.system.progress import Silent


def test_all_stages_write_what_the_table_says(models, tmp_path):
    rows = [
        {
            "text": f"the river {i} is",
            "label": "ab"[i % 2],
            "topic": i // 2,
            "next": " north",
            "source": f"s{i}",
            "n": i,
        }
        for i in range(24)
    ]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    dataset = {"name": "d", "path": "d.jsonl", "label": "label", "group": "topic", "expected_next": "next"}
    job = {
        "store": "s.zarr",
        "models": [{"id": str(models()), "as": "m"}],
        "datasets": [{**dataset, "keep": ["source", "n"], "candidates": [" north", " city"]}],
        "measure": {"permutations": 5},
        "project": {"n_epochs": 5},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    loaded = load_job(tmp_path / "job.yaml")
    written = set()
    for method in ("umap", "pca"):
        loaded = load_job(tmp_path / "job.yaml", [f"project.method={method}"])
        run_stages(loaded, ALL_STAGES, Silent())
        group = zarr.open_group(loaded.store, path="m/d", mode="r")
        for name, array in group.arrays():
            if name in ("source", "n"):
                continue
            written.add(name)
            spec = ARRAYS[name]
            assert array.metadata.dimension_names == spec.dims, name
            assert dtype_name(np.empty(0, array.dtype)) == ("float32" if spec.dtype == "store" else spec.dtype), name
            assert spec.is_result == (name in group.attrs["results"]), name
    assert written == set(ARRAYS)
    assert group["source"][:].tolist() == [row["source"] for row in rows]
    assert group["n"][:].tolist() == [row["n"] for row in rows]


@pytest.mark.parametrize("name", ["trustworthiness", "shard_planned", "prediction", "candidate", "hidden"])
def test_a_kept_column_with_a_name_of_the_store_is_refused_before_anything_is_written(models, tmp_path, name):
    (tmp_path / "d.jsonl").write_text(json.dumps({"text": "a", name: 3}), encoding="utf-8")
    job = {"store": "s.zarr", "models": [str(models())], "datasets": [{"name": "d", "path": "d.jsonl", "keep": [name]}]}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    loaded = load_job(tmp_path / "job.yaml")
    with pytest.raises(TextError, match=f"keep: `{name}` is a name that drillcore uses itself"):
        run_stages(loaded, ALL_STAGES, Silent())
    assert not Path(loaded.store).exists()
