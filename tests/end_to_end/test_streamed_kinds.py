"""Jobs of models whose weights are not plain numbers in their own files: the same store streamed as resident."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import drillcore
from drillcore.errors import JobError, ModelError
from support.adapters import write_adapter
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
    with pytest.raises(ModelError, match=r"no scale for model.layers.1.self_attn.q_proj.weight") as e:
        run(tmp_path, "job", [{"id": str(eight_bit), **DEQUANTISED}], weights=way)
    assert e.value.exit_status == 2 and not (tmp_path / "job.zarr").exists()


def drop_from(file: Path, fragment: str) -> None:
    rewrite(file.parent, lambda found: {n: t for n, t in found.items() if fragment not in n}, file.name)


def test_codes_are_not_streamed_unasked(eight_bit, tmp_path):
    with pytest.raises(JobError, match="unless quantization: fp8-dequantized is set for it") as refused:
        run(tmp_path, "job", [{"id": str(eight_bit)}], weights="streamed")
    assert refused.value.exit_status == 2 and not (tmp_path / "job.zarr").exists()


def entries(base: Path, tmp_path: Path) -> list[dict[str, Any]]:
    """A base model, two adapters of it, and one of them merged."""
    one, two = (str(write_adapter(base, tmp_path / name, seed)) for seed, name in enumerate(("one", "two")))
    merged = {"id": str(base), "adapter": one, "merge_adapter": True, "as": "merged"}
    return [{"id": str(base)}, {"id": str(base), "adapter": one}, {"id": str(base), "adapter": two}, merged]


def test_several_adapters_of_one_model_in_a_job(models, tmp_path):
    base = copied(models(), tmp_path / "base")
    split(base)
    asked = entries(base, tmp_path)
    resident, streamed = (run(tmp_path, way, asked, weights=way) for way in ("resident", "streamed"))
    for group in ("base", "base+one", "base+two", "merged"):
        np.testing.assert_array_equal(states(streamed, group), states(resident, group))
        assert facts(tmp_path, "streamed")[group]["numerics"]["weights"] == "streamed"
    assert np.abs(states(streamed, "base+one") - states(streamed, "base+two")).max() > 1e-3


def cut_short(adapter: Path) -> None:
    os.truncate(adapter / "adapter_model.safetensors", 2000)


def of_another_model(adapter: Path) -> None:
    rewrite(adapter, lambda found: {n: t[:-1] for n, t in found.items()}, "adapter_model.safetensors")


@pytest.mark.parametrize(("spoil", "said"), [(cut_short, "is cut off or damaged"), (of_another_model, "does not fit")])
@pytest.mark.parametrize("merged", [False, True])
def test_an_adapter_that_is_wrong_is_told_before_anything_is_written(merged, spoil, said, models, tmp_path):
    adapter = write_adapter(models(), tmp_path / "one", 0)
    spoil(adapter)
    entry = {"id": str(models()), "adapter": str(adapter), "merge_adapter": merged}
    with pytest.raises(ModelError, match=said) as refused:
        run(tmp_path, "job", [entry], weights="streamed")
    assert refused.value.exit_status == 2 and not (tmp_path / "job.zarr").exists()
