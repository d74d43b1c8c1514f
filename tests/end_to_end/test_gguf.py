"""GGUF files as models: states are those of the float32 model whose weights are the dequantised ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import drillcore
from drillcore.errors import DrillcoreError
from support.checkpoints import copied
from support.ggufs import write_gguf
from support.plain import plain_states, relative_error

TEXTS = ["The capital of France is", "Hello", "Hello there, rivers run", "The capital of Peru is not", "Hello there"]


@pytest.fixture
def llama(models, tmp_path) -> Path:
    """A directory with a tokenizer and no safetensors; GGUF files are written into it."""
    folder = copied(models(), tmp_path / "llama")
    (folder / "model.safetensors").unlink()
    (folder / "config.json").unlink()
    return folder


def run(folder: Path, model: dict[str, Any], **extract: Any) -> Any:
    lines = "\n".join(json.dumps({"text": text}) for text in TEXTS)
    (folder / "d.jsonl").write_text(lines, encoding="utf-8")
    job = {"store": str(folder / "job.zarr"), "models": [model], "datasets": {"d": str(folder / "d.jsonl")}}
    drillcore.run({**job, "extract": {"device": "cpu", "threads": 1, **extract}}, stages=["extract"])
    return drillcore.open(folder / "job.zarr")


@pytest.mark.parametrize(("kind", "dtype"), [("Q4_0", "float32"), ("Q8_0", "float32"), ("Q8_0", "bfloat16")])
def test_states_are_those_of_the_dequantised_weights(kind, dtype, llama, models, tmp_path):
    weights = write_gguf(models(), llama / f"model.{kind}.gguf", kind)
    store = run(tmp_path, {"id": str(llama), "gguf_file": f"model.{kind}.gguf"}, dtype=dtype)
    found = np.asarray(store[f"llama--model.{kind}/d"].hidden_states.values, np.float64)
    plain, tokenizer = AutoModelForCausalLM.from_pretrained(models()).eval(), AutoTokenizer.from_pretrained(models())
    as_stored = np.stack([plain_states(plain, tokenizer(t)["input_ids"], 3) for t in TEXTS])
    plain.load_state_dict({name: torch.from_numpy(values.copy()) for name, values in weights.items()})
    wanted = np.stack([plain_states(plain, tokenizer(t)["input_ids"], 3) for t in TEXTS])
    assert relative_error(found, wanted).max() < (1e-5 if dtype == "float32" else 5e-2)
    if dtype == "float32":
        assert relative_error(found, as_stored).min() > 1e-4, "quantisation changes states"


def test_another_file_is_another_model(llama, models, tmp_path):
    for kind in ("Q4_0", "Q8_0"):
        write_gguf(models(), llama / f"{kind}.gguf", kind)
    run(tmp_path, {"id": str(llama), "gguf_file": "Q8_0.gguf", "as": "m"})
    with pytest.raises(DrillcoreError, match="gguf") as refused:
        run(tmp_path, {"id": str(llama), "gguf_file": "Q4_0.gguf", "as": "m"})
    assert refused.value.exit_status == 2


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"gguf_file": "none.gguf"}, "gguf_file names a file"),
        ({"gguf_file": "../m.gguf"}, "must be the name of a file"),
        ({"gguf_file": "tokenizer.json"}, "ending in .gguf"),
        ({"gguf_file": "text.gguf"}, "is not a GGUF file"),
        ({"gguf_file": "cut.gguf"}, "cut off or damaged"),
        ({"gguf_file": "m.gguf", "random_weights": True}, "does not go with random_weights"),
        ({"gguf_file": "m.gguf", "id": "org/model"}, "must be the directory"),
    ],
)
def test_what_cannot_be_read_is_refused_before_anything_is_written(model, reason, llama, models, tmp_path):
    write_gguf(models(), llama / "m.gguf", "Q8_0")
    (llama / "text.gguf").write_text("text", encoding="utf-8")
    (llama / "cut.gguf").write_bytes((llama / "m.gguf").read_bytes()[:-5000])
    with pytest.raises(DrillcoreError) as refused:
        run(tmp_path, {"id": str(llama), **model})
    assert reason in f"{refused.value} {refused.value.hint}" and refused.value.exit_status == 2
    assert not (tmp_path / "job.zarr").exists()
