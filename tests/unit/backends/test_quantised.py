"""Quantised models and adapters whose packages are missing are refused before anything is loaded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from drillcore.backends import adapters
from drillcore.backends.base import all_states
from drillcore.backends.source import locate
from drillcore.backends.transformers.fit import examine
from drillcore.backends.transformers.loading import load_model
from drillcore.errors import InputError, MissingExtraError, ModelError
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.tokens.sequences import Sequences
from support.backends import open_transformers
from support.checkpoints import configure, copied, drop, rewrite
from support.plain import random_sentences, relative_error
from support.tiny import VOCAB

# What transformers asks for first, and the settings of the method.
METHODS = {
    "gptq": ("optimum", {"bits": 4}),
    "bitsandbytes": ("bitsandbytes", {"load_in_4bit": True}),
    "awq": ("gptqmodel", {"bits": 4, "group_size": 32}),
    "compressed-tensors": ("compressed_tensors", {}),
    "torchao": ("torchao", {}),
}


def refusal(folder: Path, kind: type[InputError]) -> InputError:
    with pytest.raises(kind) as refused:
        examine(locate(Model(id=str(folder)), Path("/")))
    assert refused.value.exit_status == 2 and refused.value.hint
    return refused.value


@pytest.fixture
def llama(models, tmp_path) -> Path:
    return copied(models("llama"), tmp_path / "model")


@pytest.mark.parametrize("method", [m for m, (package, _) in METHODS.items() if find_spec(package) is None])
def test_a_missing_package_is_named(method, llama):
    package, settings = METHODS[method]
    configure(llama, quantization_config={"quant_method": method, **settings})
    message = str(refusal(llama, MissingExtraError))
    assert f"is quantised with {method}" in message and package.replace("_", "-") in message


def test_an_unknown_method_is_refused(llama):
    """transformers would read its weights as plain numbers."""
    configure(llama, quantization_config={"quant_method": "homemade"})
    assert "homemade, which transformers does not know" in str(refusal(llama, ModelError))


def test_a_method_without_a_name_is_refused(llama):
    configure(llama, quantization_config={"bits": 4, "group_size": 64})
    assert "a method that it does not name" in str(refusal(llama, ModelError))


def to_fp8(tensors):
    """Weights of the layers as 8-bit floats, each with the scale of its only block."""
    out = {}
    for name, values in tensors.items():
        if name.endswith("proj.weight"):
            scale = values.abs().max() / 448
            out |= {name: (values / scale).to(torch.float8_e4m3fn), f"{name}_scale_inv": scale.reshape(1, 1)}
        else:
            out[name] = values
    return out


@pytest.fixture
def eight_bit(llama) -> Path:
    rewrite(llama, to_fp8)
    blocks = {"weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    configure(llama, quantization_config={"quant_method": "fp8", **blocks})
    return llama


def test_eight_bit_floats_are_close_to_what_they_were_made_of(eight_bit, models, seed):
    sentences = Sequences.of(random_sentences(seed, VOCAB, longest=12, count=4))
    ours, theirs = (all_states(open_transformers(f, device="cpu")[0], sentences) for f in (eight_bit, models("llama")))
    # One state in some thousands is far off; a wrong scale puts all of them off by 1 and more.
    errors = relative_error(ours, theirs)
    assert 0 < errors.max() < 1 and np.median(errors) < 0.2


def test_a_weight_that_lacks_its_scale_is_named(eight_bit):
    drop(eight_bit, "layers.1.mlp.up_proj.weight_scale_inv")
    assert "no scale for model.layers.1.mlp.up_proj.weight" in str(refusal(eight_bit, ModelError))


def test_a_missing_weight_of_a_quantised_model_is_named(eight_bit):
    drop(eight_bit, "layers.1.mlp.up_proj")
    with pytest.raises(ModelError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(locate(Model(id=str(eight_bit)), Path("/")), Extract(device="cpu"), 4)


def test_an_adapter_beside_a_model_needs_peft(llama, monkeypatch):
    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    (llama / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    error = refusal(llama, MissingExtraError)
    assert "adapter_config.json" in str(error) and "drillcore[adapters]" in error.hint


def test_an_adapter_without_its_model_is_refused(llama):
    (llama / "config.json").rename(llama / "adapter_config.json")
    assert "without its base model" in str(refusal(llama, ModelError))
