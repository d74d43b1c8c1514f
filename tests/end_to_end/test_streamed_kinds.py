"""Jobs of models whose weights are not plain numbers in their own files: the same store streamed as resident."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import drillcore
from drillcore.errors import JobError
from support.checkpoints import copied, rewrite, split
from support.eight_bit import write_eight_bits

TEXTS = ["The capital of France is", "Hello", "The capital of Peru is not", "Hello there"]
DEQUANTISED = {"quantization": {"method": "fp8", "dequantize": True}}


def run(folder: Path, name: str, entries: list[dict[str, Any]], **extract: Any) -> Any:
    """Run a job of these models on some texts; the opened store."""
    lines = "\n".join(json.dumps({"text": t, "label": str(i % 2)}) for i, t in enumerate(TEXTS))
    (folder / "d.jsonl").write_text(lines, encoding="utf-8")
    job = {"store": str(folder / f"{name}.zarr"), "models": entries, "datasets": {"d": str(folder / "d.jsonl")}}
    drillcore.run({**job, "extract": {"device": "cpu", "threads": 1, **extract}}, stages=["extract"])
    return drillcore.open(folder / f"{name}.zarr")


def facts(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name / "manifest.json").read_text(encoding="utf-8"))["models"]
    return found


def states(store: Any, group: str) -> np.ndarray:
    return np.asarray(store[f"{group}/d"].hidden_states.values)


@pytest.fixture
def eight_bit(models, tmp_path) -> Path:
    folder = copied(models(intermediate_size=24), tmp_path / "base")
    write_eight_bits(folder)
    split(folder)
    return folder


def test_eight_bit_floats_that_are_dequantised_are_named_so(eight_bit, tmp_path):
    entry = {"id": str(eight_bit), **DEQUANTISED}
    resident, streamed = (run(tmp_path, way, [entry], weights=way) for way in ("resident", "streamed"))
    group = "base--fp8-dequantized"
    np.testing.assert_array_equal(states(streamed, group), states(resident, group))
    for way in ("resident", "streamed"):
        assert facts(tmp_path, way)[group]["numerics"]["dequantized"] == "fp8"
    recipe = zarr.open_group(tmp_path / "streamed.zarr", mode="r")[f"{group}/d"].attrs["recipes"][0]
    assert recipe["request"]["model"]["quantization"] == DEQUANTISED["quantization"]
    run(tmp_path, "plainly", [{"id": str(eight_bit)}])
    assert "dequantized" not in facts(tmp_path, "plainly")["base"]["numerics"]


@pytest.mark.parametrize("way", ["resident", "streamed"])
def test_a_scale_that_is_missing_is_told_before_anything_is_written(way, eight_bit, tmp_path):
    for file in eight_bit.glob("*.safetensors"):
        drop_from(file, "layers.1.self_attn.q_proj.weight_scale_inv")
    with pytest.raises(drillcore.errors.ModelError, match=r"no scale for model.layers.1.self_attn.q_proj.weight") as e:
        run(tmp_path, "job", [{"id": str(eight_bit), **DEQUANTISED}], weights=way)
    assert e.value.exit_status == 2 and not (tmp_path / "job.zarr").exists()


def drop_from(file: Path, fragment: str) -> None:
    rewrite(file.parent, lambda found: {n: t for n, t in found.items() if fragment not in n}, file.name)


def test_codes_are_not_streamed_unasked(eight_bit, tmp_path):
    with pytest.raises(JobError, match="unless quantization: fp8-dequantized is set for it") as refused:
        run(tmp_path, "job", [{"id": str(eight_bit)}], weights="streamed")
    assert refused.value.exit_status == 2 and not (tmp_path / "job.zarr").exists()
