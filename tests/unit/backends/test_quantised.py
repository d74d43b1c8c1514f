"""Quantised models and adapters whose packages are missing are refused before anything is loaded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from drillcore.backends.source import locate
from drillcore.backends.transformers.fit import examine
from drillcore.errors import InputError, MissingExtraError, ModelError
from drillcore.job.fields import Model
from support.checkpoints import configure, copied

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


@pytest.mark.skipif(find_spec("peft") is not None, reason="peft is installed")
def test_an_adapter_beside_a_model_needs_peft(llama):
    (llama / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    error = refusal(llama, MissingExtraError)
    assert "adapter_config.json" in str(error) and "pip install peft" in error.hint


def test_an_adapter_without_its_model_is_refused(llama):
    (llama / "config.json").rename(llama / "adapter_config.json")
    assert "without its base model" in str(refusal(llama, ModelError))
