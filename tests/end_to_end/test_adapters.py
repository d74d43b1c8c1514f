"""Adapters of peft: states are those of peft's own model, one sentence at a time; what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import drillcore
from drillcore.backends.adapters import KINDS
from drillcore.errors import DrillcoreError, ModelError
from drillcore.runtime import preflight
from support.adapters import with_peft, write_adapter
from support.checkpoints import copied
from support.plain import plain_states, relative_error

TEXTS = ["The capital of France is", "Hello", "Hello there, rivers run", "The capital of Peru is not", "Hello there"]


@pytest.fixture
def base(models, tmp_path) -> Path:
    return copied(models(), tmp_path / "base")


@pytest.fixture
def lora(base, tmp_path, seed) -> Path:
    return write_adapter(base, tmp_path / "lora", seed)


def run(folder: Path, *entries: dict[str, Any], **more: Any) -> Any:
    """Run a job of these models on some texts; the opened store."""
    lines = "\n".join(json.dumps({"text": t, "label": str(i % 2)}) for i, t in enumerate(TEXTS))
    (folder / "d.jsonl").write_text(lines, encoding="utf-8")
    extract = {"device": "cpu", "threads": 1, **more}
    job = {"store": str(folder / "job.zarr"), "models": list(entries), "datasets": {"d": str(folder / "d.jsonl")}}
    drillcore.run({**job, "extract": extract}, stages=["extract"])
    return drillcore.open(folder / "job.zarr")


def states(store: Any, group: str) -> np.ndarray:
    return np.asarray(store[f"{group}/d"].hidden_states.values, np.float64)


def plain(model: Any, folder: Path) -> np.ndarray:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return np.stack([plain_states(model, tokenizer(text)["input_ids"], 3) for text in TEXTS])


def entry(base: Path, adapter: Path, **more: Any) -> dict[str, Any]:
    return {"id": str(base), "adapter": str(adapter), **more}


def test_a_base_model_and_its_adapter_in_one_job(base, lora, tmp_path, monkeypatch):
    counted: list[Any] = []
    tokenize = preflight.tokenize
    monkeypatch.setattr(preflight, "tokenize", lambda *given: counted.append(given) or tokenize(*given))
    merged = entry(base, lora, merge_adapter=True, **{"as": "merged"})
    store = run(tmp_path, {"id": str(base)}, entry(base, lora), merged)
    assert len(counted) == 1, "tokens are shared"
    wanted = plain(with_peft(base, lora), base)
    assert relative_error(states(store, "base+lora"), wanted).max() < 1e-5
    assert relative_error(states(store, "merged"), wanted).max() < 1e-5
    assert relative_error(states(store, "base"), plain(AutoModelForCausalLM.from_pretrained(base), base)).max() < 1e-5
    assert relative_error(states(store, "base"), wanted)[:, -1].min() > 1e-2, "the adapter changes states"


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "LORA"])
def test_every_kind_gives_the_states_of_peft(kind, base, tmp_path, seed):
    names = {"target_modules": ["q_proj", "v_proj"]}
    settings = {
        "ADALORA": {**names, "total_step": 10},
        "IA3": {**names, "feedforward_modules": []},
        "OFT": {**names, "oft_block_size": 4},
        "VERA": {"target_modules": ["q_proj", "o_proj"], "r": 4},
    }
    adapter = write_adapter(base, tmp_path / "adapter", seed, kind, **settings.get(kind, names))
    found = states(run(tmp_path, entry(base, adapter)), "base+adapter")
    assert relative_error(found, plain(with_peft(base, adapter), base)).max() < 1e-5
    assert relative_error(found, plain(AutoModelForCausalLM.from_pretrained(base), base))[:, -1].min() > 1e-4


def test_one_that_lies_beside_the_model(base, tmp_path, seed):
    adapter = write_adapter(base, tmp_path / "lora", seed)
    wanted = plain(with_peft(base, adapter), base)
    for path in adapter.glob("adapter_*"):
        path.rename(base / path.name)
    assert relative_error(states(run(tmp_path, {"id": str(base)}), "base"), wanted).max() < 1e-5


def test_another_adapter_is_another_model(base, lora, tmp_path, seed):
    """Under the same name: with it, without it, with other weights, merged."""
    named = {"as": "m"}
    run(tmp_path, entry(base, lora, **named))
    write_adapter(base, tmp_path / "other", seed + 1)
    others = [{"id": str(base), **named}, entry(base, tmp_path / "other", **named)]
    for other in (*others, entry(base, lora, merge_adapter=True, **named)):
        with pytest.raises(DrillcoreError, match="adapter") as refused:
            run(tmp_path, other)
        assert refused.value.exit_status == 2
    run(tmp_path, entry(base, lora, **named))


def test_a_base_model_of_another_name_is_said(models, lora, base, tmp_path, caplog):
    other = copied(models(), tmp_path / "other")
    run(tmp_path, entry(other, lora))
    notes = json.loads((tmp_path / "job" / "manifest.json").read_text(encoding="utf-8"))
    assert "its adapter was made for" in json.dumps(notes) and str(base) in json.dumps(notes)


def test_below_float32(base, lora, tmp_path):
    """peft keeps the adapter's weights in float32, and the states are those of peft."""
    found = states(run(tmp_path, entry(base, lora), dtype="bfloat16"), "base+lora")
    wanted = plain(with_peft(base, lora, dtype=torch.bfloat16), base)
    assert relative_error(found, wanted).max() < 5e-2


def unreadable(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{", encoding="utf-8")


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()


def of_another_rank(folder: Path) -> None:
    change(folder, r=8)


def with_other_modules(folder: Path) -> None:
    change(folder, target_modules=["query_key_value"])


def with_more_modules(folder: Path) -> None:
    change(folder, target_modules=["q_proj", "up_proj", "down_proj", "k_proj"])


def with_fewer_modules(folder: Path) -> None:
    change(folder, target_modules=["q_proj", "up_proj"])


def with_more_layers(folder: Path) -> None:
    change(folder, layer_replication=[[0, 2], [1, 3]])


def of_prompts(folder: Path) -> None:
    change(folder, peft_type="PREFIX_TUNING")


def cut_off(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def change(folder: Path, **entries: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | entries), encoding="utf-8")


WRONG = [
    (lambda folder: (folder / "adapter_config.json").unlink(), "has no adapter_config.json"),
    (unreadable, "cannot be read"),
    (pickled, "adapter_model.bin is pickled, and pickled weights are never read"),
    (of_another_rank, "does not fit: .*size mismatch"),
    (with_other_modules, "does not fit: .*not found in the base model"),
    (with_more_modules, "does not fit: it lacks .*k_proj"),
    (with_fewer_modules, "does not fit: it holds .*down_proj"),
    (with_more_layers, "sets layer_replication"),
    (of_prompts, "of the kind PREFIX_TUNING"),
    (cut_off, "cut off or damaged"),
]


@pytest.mark.parametrize(("spoil", "reason"), WRONG)
def test_what_does_not_fit_is_refused_before_anything_is_written(spoil, reason, base, lora, tmp_path):
    spoil(lora)
    with pytest.raises(ModelError, match=reason) as refused:
        run(tmp_path, entry(base, lora))
    assert refused.value.exit_status == 2 and refused.value.hint
    assert not (tmp_path / "job.zarr").exists()


def test_one_of_another_architecture_is_refused(models, lora, tmp_path):
    with pytest.raises(ModelError, match="does not fit"):
        run(tmp_path, entry(models("gpt2"), lora))
    assert not (tmp_path / "job.zarr").exists()


def test_the_model_in_memory_with_an_adapter(base, lora):
    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base)
    found = drillcore.extract(peft.PeftModel.from_pretrained(model, lora), TEXTS, tokenizer=tokenizer)
    assert relative_error(found.hidden_states.values, plain(with_peft(base, lora), base)).max() < 1e-5
    same = drillcore.extract(base, TEXTS, adapter=str(lora), device="cpu")
    assert np.array_equal(same.hidden_states, found.hidden_states)


def test_prompts_of_a_model_in_memory_are_refused(base):
    """They are tokens that peft adds, and the model inside knows nothing of them."""
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with pytest.raises(ModelError, match="of the kind PREFIX_TUNING"):
        drillcore.extract(model, TEXTS, tokenizer=AutoTokenizer.from_pretrained(base))
