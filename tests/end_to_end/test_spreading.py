"""A model that does not fit on its devices is refused before it is read, unless the job allows offloading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.integrations import accelerate as spreading

import drillcore
from drillcore.backends.source import locate
from drillcore.backends.transformers.spreading import planned, refuse_offload
from drillcore.errors import ModelError
from drillcore.job.model import Model
from support.checkpoints import copied
from support.plain import plain_states, relative_error

TEXTS = ["The capital of France is", "Hello", "Hello there, rivers run", "The capital of Peru is not"]
LARGE = 10**9


@pytest.fixture
def base(models, tmp_path) -> Path:
    return copied(models(), tmp_path / "base")


@pytest.fixture
def size(base) -> int:
    return sum(p.numel() * 4 for p in AutoModelForCausalLM.from_pretrained(base).parameters())


@pytest.fixture
def memory(monkeypatch):
    """What the machine is taken to have, in bytes by device."""
    found: dict[int | str, int] = {}
    monkeypatch.setattr(spreading, "get_max_memory", lambda given=None: dict(found))
    return found


def run(folder: Path, **entry: Any) -> Any:
    lines = "\n".join(json.dumps({"text": t}) for t in TEXTS)
    (folder / "d.jsonl").write_text(lines, encoding="utf-8")
    job = {"store": str(folder / "job.zarr"), "models": [entry], "datasets": {"d": str(folder / "d.jsonl")}}
    drillcore.run({**job, "extract": {"device": "cpu", "threads": 1}}, stages=["extract"])
    return drillcore.open(folder / "job.zarr")


@pytest.mark.parametrize(
    ("parts", "there"),
    [
        ({0: 0.5, "cpu": 9.0}, "on the CPU"),
        ({0: 0.5, "cpu": 0.25}, "on the disk"),
        ({"cpu": 0.6}, "on the disk"),
    ],
)
@pytest.mark.parametrize("device_map", ["auto", "balanced", "sequential"])
def test_what_fits_nowhere_is_refused(device_map, parts, there, base, size, memory):
    memory.update({device: int(part * size) for device, part in parts.items()})
    source = locate(Model(id=str(base), device_map=device_map), Path("/"))
    with pytest.raises(ModelError, match="does not fit on this machine's devices") as refused:
        refuse_offload(source, torch.float32)
    assert there in str(refused.value) and "offload: true" in refused.value.hint
    assert refused.value.exit_status == 2
    refuse_offload(locate(Model(id=str(base), device_map=device_map, offload=True), Path("/")), torch.float32)


@pytest.mark.parametrize("parts", [{"cpu": 9.0}, {0: 9.0, "cpu": 9.0}, {0: 0.8, 1: 0.8, "cpu": 9.0}])
def test_what_fits_is_spread(parts, base, size, memory):
    """All on the CPU of a machine without GPU, on one GPU, and on two."""
    memory.update({device: int(part * size) for device, part in parts.items()})
    source = locate(Model(id=str(base), device_map="auto"), Path("/"))
    refuse_offload(source, torch.float32)
    gpus = {device for device in parts if device != "cpu"}
    assert set(planned(source, torch.float32).values()) == (gpus or {"cpu"})


def test_half_the_width_of_numbers_is_half_the_memory(base, size, memory):
    memory.update({0: int(0.8 * size), "cpu": LARGE})
    source = locate(Model(id=str(base), device_map="auto"), Path("/"))
    refuse_offload(source, torch.bfloat16)
    with pytest.raises(ModelError, match="on the CPU"):
        refuse_offload(source, torch.float32)


def test_a_run_is_refused_before_anything_is_written(base, size, memory, tmp_path):
    memory["cpu"] = int(0.6 * size)
    with pytest.raises(ModelError, match="device_map: auto would put"):
        run(tmp_path, id=str(base), device_map="auto")
    assert not (tmp_path / "job.zarr").exists() and not (tmp_path / "job").exists()


def test_offload_that_is_allowed_gives_the_same_states(base, size, memory, tmp_path):
    memory["cpu"] = int(0.6 * size)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    found = np.asarray(run(tmp_path, id=str(base), device_map="auto", offload=True)["base/d"].hidden_states.values)
    wanted = np.stack([plain_states(model, tokenizer(text)["input_ids"], 3) for text in TEXTS])
    assert relative_error(found, wanted).max() < 1e-5
