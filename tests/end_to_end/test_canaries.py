"""Canaries: a model that gives other states than those of it in the store is noticed before new ones stand beside."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from drillcore.errors import ModelChangedError
from drillcore.store.canaries import CANARIES, read_canaries
from support.audited import Audited, another_theta


@pytest.fixture(params=[0.2, 0.02], ids=["strong", "weak"])
def work(tmp_path, models, seed, request):
    """A finished job on a model of its own, with weights as large as in training, or as its library draws them."""
    model = shutil.copytree(models("llama", initializer_range=request.param), tmp_path / "model")
    made = Audited(tmp_path, model, seed)
    made.texts("d", 40)
    made.run()
    return made


def files(work: Audited) -> dict[str, bytes]:
    """Every file of the states and their fingerprints, and of the canaries."""
    names = ("hidden_states", "shard_fingerprint", CANARIES)
    found = [p for name in names for p in work.store.rglob(f"{name}/c/**/*") if p.is_file()]
    return {str(p.relative_to(work.store)): p.read_bytes() for p in found}


def test_they_are_the_states_of_four_sentences_alone(work):
    canaries = read_canaries(work.group("m"))
    assert canaries is not None and canaries.states_CKH.shape == (4, 5, 32)
    assert canaries.facts["layers"] == [0, 1, 2, 3, 4] and canaries.facts["dtype"] == "float32"
    before = files(work)
    work.texts("e", 10)
    work.run()
    now = files(work)
    assert all(now[name] == data for name, data in before.items()), "an unchanged model leaves them"


def test_a_base_of_rotary_positions_5_percent_larger_is_named(work):
    """In the configuration; a dataset is added while the other one, which left the job, keeps its states."""
    before = files(work)
    another_theta(work)
    del work.datasets["d"]
    work.texts("e", 10)
    with pytest.raises(ModelChangedError) as caught:
        work.run()
    message = str(caught.value)
    assert "rope_theta 10000.0 → 10500.0" in message and "canary sentence" in message and "m/d" in message
    assert caught.value.exit_status == 1 and "`as:`" in caught.value.hint
    assert files(work) == before, "nothing stands beside it"


def test_a_renamed_model_keeps_them(work):
    """The states that it takes over must not be joined by those of a library that computes otherwise."""
    before = read_canaries(work.group("m"))
    work.name = "renamed"
    assert any("taken over from m/d" in line for line in work.run())
    now = read_canaries(work.group("renamed"))
    assert before is not None and now is not None and now.facts == before.facts
    assert np.array_equal(now.states_CKH, before.states_CKH)


def test_a_library_that_computes_other_positions_is_noticed(work, monkeypatch):
    """Configuration, weights and versions are those of before; the job is to compute one shard again."""
    before = files(work)
    plain = LlamaRotaryEmbedding.compute_default_rope_parameters

    def other(config, *rest, **named):
        frequency, scaling = plain(config, *rest, **named)
        return frequency ** (1 + np.log(1.05) / np.log(1e4)), scaling

    monkeypatch.setattr(LlamaRotaryEmbedding, "compute_default_rope_parameters", staticmethod(other))
    work.withdraw(1)
    with pytest.raises(ModelChangedError, match=r"canary sentence .* has other states than in the store"):
        work.run()
    assert work.committed() == [0, 2]
    monkeypatch.undo()
    work.run()
    assert files(work) == before


def test_weights_that_were_exchanged_are_named(work):
    weights = load_file(work.model / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"] += 0.01 * torch.randn_like(
        weights["model.layers.1.mlp.up_proj.weight"]
    )
    save_file(weights, work.model / "model.safetensors", {"format": "pt"})
    del work.datasets["d"]
    work.texts("e", 10)
    with pytest.raises(ModelChangedError, match=r"weights\.model\.safetensors"):
        work.run()


def test_another_dtype_is_no_other_model(work):
    del work.datasets["d"]
    work.texts("e", 10)
    work.run(dtype="bfloat16")
    assert work.figures["passed"]
