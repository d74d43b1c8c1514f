"""Adapters on models whose layers are streamed: the bytes of the resident model, beside the weights and merged."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from drillcore.backends import check_backend
from drillcore.backends.base import all_states
from drillcore.backends.source import locate
from drillcore.backends.transformers import loading
from drillcore.backends.transformers.streamed.adapters import sharing_tree
from drillcore.backends.transformers.streamed.choice import Choice, choose
from drillcore.errors import JobError, ModelError, RunError, SelfCheckError
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.tokens.sequences import Sequences
from support.adapters import write_adapter
from support.backends import mix_up_layers, open_transformers
from support.checkpoints import copied
from support.eight_bit import write_eight_bits
from support.plain import random_sentences

MLP = ["q_proj", "up_proj", "down_proj"]
LONG = pytest.mark.long
KINDS = [
    ("llama", "LORA", {}),
    ("gemma2", "LORA", {"use_rslora": True}),
    ("llama", "LORA", {"use_dora": True}),
    pytest.param("llama", "LORA", {"init_lora_weights": "gaussian", "target_modules": "all-linear"}, marks=LONG),
    pytest.param("mixtral", "LORA", {"target_modules": ["q_proj", "v_proj"]}, marks=LONG),
    ("mixtral", "LORA", {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.gate_up_proj"]}),
    ("llama", "IA3", {"target_modules": MLP, "feedforward_modules": ["down_proj"]}),
    pytest.param("llama", "LOHA", {"r": 4, "target_modules": MLP}, marks=LONG),
    pytest.param("llama", "LOKR", {"r": 4, "target_modules": MLP}, marks=LONG),
    pytest.param("llama", "VERA", {"r": 4, "target_modules": ["q_proj", "o_proj"]}, marks=LONG),
    pytest.param("llama", "OFT", {"oft_block_size": 8, "target_modules": MLP}, marks=LONG),
    pytest.param("llama", "HRA", {"r": 4, "target_modules": MLP}, marks=LONG),
    pytest.param("llama", "ADALORA", {"target_modules": MLP, "total_step": 10}, marks=LONG),
]
BESIDE = [
    ("llama", "LORA", {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}),
    ("llama", "LORA", {"target_modules": ["q_proj"], "modules_to_save": ["input_layernorm"]}),
    ("llama", "LORA", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    ("llama", "LORA", {"target_modules": ["q_proj"], "trainable_token_indices": [5, 6, 7]}),
]


def open_both(base: Path, adapter: Path, merged: bool = False, **extract):
    model = Model(id=str(base), adapter=str(adapter), merge_adapter=merged)
    both = ({}, {"weights": "streamed"})
    return [open_transformers(base, model=model, threads=1, **extract, **more) for more in both]


def assert_same(base: Path, adapter: Path, merged: bool, **extract) -> None:
    (resident, one), (streamed, other) = open_both(base, adapter, merged, **extract)
    assert other.numerics == {**one.numerics, "weights": "streamed"}
    assert not [note for note in other.notes if "accelerate" in note]
    block = Sequences.of(random_sentences(0, 384))
    got, want = all_states(streamed, block), all_states(resident, block)
    np.testing.assert_array_equal(got, want)
    without, _ = open_transformers(base, threads=1, **extract)
    assert np.abs(want - all_states(without, block)).max() > 1e-3, "the adapter counts"
    for backend in (resident, streamed, without):
        backend.close()


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize(("architecture", "kind", "settings"), KINDS)
def test_the_resident_bytes(architecture, kind, settings, merged, models, tmp_path):
    base = models(architecture)
    adapter = write_adapter(base, tmp_path / "a", 0, kind, **settings)
    assert_same(base, adapter, merged)


@pytest.mark.parametrize(("architecture", "kind", "settings"), BESIDE)
def test_what_lies_beside_the_layers(architecture, kind, settings, models, tmp_path):
    base = models(architecture)
    with warnings.catch_warnings(action="ignore"):
        adapter = write_adapter(base, tmp_path / "a", 0, kind, **settings)
    assert_same(base, adapter, merged=False)


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize(
    "architecture", ["llama", pytest.param("mixtral", marks=LONG), pytest.param("gemma2", marks=LONG)]
)
def test_below_float32_too(architecture, merged, models, tmp_path):
    base = models(architecture)
    adapter = write_adapter(base, tmp_path / "a", 0, target_modules=["q_proj", "v_proj"])
    assert_same(base, adapter, merged, dtype="bfloat16")


@pytest.mark.parametrize("merged", [False, True])
def test_on_eight_bit_floats_that_are_dequantised(merged, models, tmp_path):
    base = copied(models("llama"), tmp_path / "base")
    adapter = write_adapter(models("llama"), tmp_path / "a", 0)
    write_eight_bits(base)
    model = Model(id=str(base), adapter=str(adapter), merge_adapter=merged, quantization="fp8-dequantized")
    block, found = Sequences.of(random_sentences(1, 384)), []
    for more in ({}, {"weights": "streamed"}):
        backend, _ = open_transformers(base, model=model, threads=1, **more)
        found.append(all_states(backend, block))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("merged", [False, True])
def test_layers_that_stay_keep_their_adapter(merged, models, tmp_path, monkeypatch):
    base = models("llama")
    adapter = write_adapter(base, tmp_path / "a", 0)
    monkeypatch.setattr(loading, "choose", lambda _, extract: Choice(extract.weights == "streamed", 2))
    (resident, _), (streamed, _) = open_both(base, adapter, merged)
    block = Sequences.of(random_sentences(2, 384))
    for _ in range(2):
        np.testing.assert_array_equal(all_states(streamed, block), all_states(resident, block))
    assert len(streamed._loaded.streamed._held) == 2
    without, _ = open_transformers(base, threads=1)
    with streamed._loaded.streamed.without_adapter():
        np.testing.assert_array_equal(all_states(streamed, block), all_states(without, block))
    np.testing.assert_array_equal(all_states(streamed, block), all_states(resident, block))


@pytest.mark.parametrize("merged", [False, True])
def test_layers_are_compared_with_those_of_accelerate_without_the_adapter(merged, models, tmp_path, monkeypatch):
    base = models("llama")
    adapter = write_adapter(base, tmp_path / "a", 0)
    mix_up_layers(monkeypatch)
    with pytest.raises(SelfCheckError, match=r"has other weights: 1: self_attn.q_proj.weight, 2: self_attn.q_proj.w"):
        open_both(base, adapter, merged)


@pytest.mark.parametrize(("kind", "settings"), [(k, s) for _, k, s in BESIDE])
def test_what_cannot_be_merged_layer_by_layer_is_refused_by_name(kind, settings, models, tmp_path):
    base = models("llama")
    with warnings.catch_warnings(action="ignore"):
        adapter = write_adapter(base, tmp_path / "a", 0, kind, **settings)
    with pytest.raises(
        ModelError, match=r"its adapter (replaces|changes) (model|lm_head).*streamed weights"
    ) as refused:
        open_both(base, adapter, merged=True)
    assert refused.value.exit_status == 2 and refused.value.hint == "Leave merge_adapter out."


def test_an_adapter_that_changes_the_weights_of_the_model_is_refused(models, tmp_path):
    adapter = write_adapter(models("llama"), tmp_path / "a", 0)
    source = locate(Model(id=str(models("llama")), adapter=str(adapter)), Path("/"))
    check_backend("transformers", source, Extract(weights="streamed"))
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "init_lora_weights": "pissa_niter_4"}))
    with pytest.raises(
        JobError, match=r"changes the model's own weights as it begins .*\(init_lora_weights: pissa_niter_4\)"
    ):
        check_backend("transformers", source, Extract(weights="streamed"))
    assert choose(source, Extract(weights="auto")) == Choice(False)


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("how", ["cut", "touched", "gone"])
def test_an_adapter_that_changes_under_the_run_is_told_of_and_nothing_is_given(how, merged, models, tmp_path):
    base = models("llama")
    adapter = write_adapter(base, tmp_path / "a", 0)
    backend, _ = open_both(base, adapter, merged)[1]
    file = adapter / "adapter_model.safetensors"
    if how == "cut":
        os.truncate(file, 1000)
    elif how == "touched":
        os.utime(file, ns=(1, 1))
    else:
        file.unlink()
    given = []
    with pytest.raises(RunError, match=r"weights changed while they were read: .*adapter_model.safetensors"):
        given += backend.run(backend.lay_out(Sequences.of(random_sentences(3, 384))))
    assert not given


def test_an_adapter_leaves_the_other_tree_as_it_is(models):
    model = AutoModelForCausalLM.from_pretrained(models("mixtral"))
    tree, before = sharing_tree(model), [name for name, _ in model.named_modules()]
    assert list(tree.state_dict()) == list(model.state_dict())
    tree.model.layers[0].self_attn.q_proj = torch.nn.Identity()
    assert [name for name, _ in model.named_modules()] == before
    model.model.layers[0].mlp.experts.gate_up_proj = torch.nn.Parameter(torch.ones(3))
    assert tree.model.layers[0].mlp.experts.gate_up_proj is model.model.layers[0].mlp.experts.gate_up_proj
