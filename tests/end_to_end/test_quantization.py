"""Weights that are quantised while they are loaded, and those that are stored so: states are those of transformers."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TorchAoConfig

import drillcore
from drillcore.backends.transformers.backend import TransformersBackend
from drillcore.errors import InputError, JobError, MissingExtraError, ModelError, SelfCheckError
from drillcore.system.progress import Silent
from support.adapters import write_adapter
from support.checkpoints import copied
from support.plain import plain_states, relative_error

pytest.importorskip("bitsandbytes")
torchao = pytest.importorskip("torchao.quantization")

TEXTS = ["The capital of France is", "Hello", "The capital of Peru is not", "Hello there"]
# No column of the activations is left out of the codes: which ones are depends on the other sentences of a batch.
EIGHT_BIT = {"method": "bitsandbytes", "load_in_8bit": True, "llm_int8_threshold": 0.0}
# What a job says, transformers' own configuration for it, and how far states may be from those of a sentence alone.
WAYS = [
    ("torchao-int8", lambda: TorchAoConfig(torchao.Int8WeightOnlyConfig()), 1e-4),
    ("torchao-int8-dynamic", lambda: TorchAoConfig(torchao.Int8DynamicActivationInt8WeightConfig()), 6e-2),
    (EIGHT_BIT, lambda: BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0), 6e-2),
]


@pytest.fixture
def base(models, tmp_path) -> Path:
    return copied(models(), tmp_path / "base")


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


def loaded(folder: Path, config: Any = None) -> Any:
    settings = {} if config is None else {"quantization_config": config}
    return AutoModelForCausalLM.from_pretrained(folder, device_map={"": "cpu"}, dtype=torch.float32, **settings).eval()


@pytest.mark.parametrize(("asked", "config", "bound"), WAYS)
def test_quantised_on_loading_and_stored_so(asked, config, bound, base, tmp_path):
    quantised = loaded(base, config())
    wanted = plain(quantised, base)
    quantised.save_pretrained(tmp_path / "stored")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "stored")
    store = run(tmp_path, {"id": str(base), "quantization": asked}, {"id": str(tmp_path / "stored")})
    name = asked if isinstance(asked, str) else asked["method"]
    for group in (f"base--{name}", "stored"):
        assert relative_error(states(store, group), wanted).max() < bound
    assert relative_error(wanted, plain(loaded(base), base))[:, -1].min() > 5e-3, "it changes states"
    facts = json.loads((tmp_path / "job" / "manifest.json").read_text(encoding="utf-8"))["models"][f"base--{name}"]
    assert facts["numerics"]["layout"] == "packed" and facts["self_check"]["bound"] <= bound


@pytest.mark.parametrize(("activations", "layout", "bound"), [("", "packed", 1e-4), ("token", "packed", 6e-2)])
def test_a_checkpoint_of_compressed_tensors(activations, layout, bound, base, tmp_path):
    """Its codes are unpacked before the first pass of the whole model, and its layers quantise what passes them."""
    pytest.importorskip("compressed_tensors")
    from support.compressed import write_compressed

    folder = write_compressed(base, tmp_path / "stored", activations)
    found, wanted = states(run(tmp_path, {"id": str(folder)}), "stored"), plain(unpacked(folder), base)
    assert relative_error(found, wanted).max() < bound
    assert relative_error(wanted, plain(loaded(base), base))[:, -1].min() > 5e-3
    facts = json.loads((tmp_path / "job" / "manifest.json").read_text(encoding="utf-8"))["models"]["stored"]
    assert facts["numerics"]["layout"] == layout and facts["self_check"]["bound"] <= bound


def unpacked(folder: Path) -> Any:
    model = loaded(folder)
    model(input_ids=torch.tensor([[5]]))
    return model


class Heard(list[str], Silent):
    def say(self, line: str) -> None:
        self.append(line)


def test_states_that_depend_on_the_batch_are_computed_one_sentence_at_a_time(base):
    """One scale for the activations of a whole batch: no pack is right, and a sentence alone is exact."""
    from torchao.quantization.granularity import PerTensor

    model = loaded(base, TorchAoConfig(torchao.Int8DynamicActivationInt8WeightConfig(granularity=PerTensor())))
    tokenizer = AutoTokenizer.from_pretrained(base)
    said = Heard()
    with drillcore.Extractor(model, tokenizer=tokenizer, threads=1, progress=said) as extractor:
        found = extractor(TEXTS)
    assert any("one sentence at a time: in batches the quantised weights give other states" in line for line in said)
    assert relative_error(found.hidden_states.values, plain(model, base)).max() < 1e-6


def swapped(states_CKH: np.ndarray) -> np.ndarray:
    """The states of the last two sentences of other texts, in each other's place."""
    return states_CKH[[*range(len(states_CKH) - 2), -1, -2]]


def off_by_one(states_CKH: np.ndarray) -> np.ndarray:
    """Each layer's states from the one before."""
    return states_CKH[:, [0, *range(states_CKH.shape[1] - 1)]]


def of_another_node(states_CKH: np.ndarray) -> np.ndarray:
    """A tenth of the state of another sentence in each, as where a mask leaks."""
    return states_CKH + 0.1 * np.roll(states_CKH, 1, axis=0)


@pytest.mark.parametrize("spoil", [swapped, off_by_one, of_another_node])
@pytest.mark.parametrize("asked", [WAYS[1][0], "bitsandbytes-8bit"])
def test_wrong_states_fail_the_check_of_quantised_weights(asked, spoil, base, tmp_path, monkeypatch):
    right = TransformersBackend._check_states
    monkeypatch.setattr(TransformersBackend, "_check_states", lambda *given: spoil(right(*given)))
    with pytest.raises(SelfCheckError, match="disagrees with transformers one sentence at a time"):
        run(tmp_path, {"id": str(base), "quantization": asked})


def test_an_adapter_on_quantised_weights(base, tmp_path, seed):
    adapter = write_adapter(base, tmp_path / "lora", seed)
    store = run(tmp_path, *({"id": str(base), "adapter": str(adapter), "quantization": a} for a, *_ in WAYS[::2]))
    for asked, config, bound in WAYS[::2]:
        wanted = plain(peft.PeftModel.from_pretrained(loaded(base, config()), adapter).get_base_model().eval(), base)
        name = asked if isinstance(asked, str) else asked["method"]
        assert relative_error(states(store, f"base--{name}+lora"), wanted).max() < bound
        assert relative_error(wanted, plain(loaded(base, config()), base))[:, -1].min() > 1e-2, "the adapter counts"


def test_other_settings_are_another_model(base, tmp_path):
    entry = {"id": str(base), "as": "m"}
    run(tmp_path, {**entry, "quantization": "torchao-int8"})
    for other in ({}, {"quantization": "torchao-int8-dynamic"}):
        with pytest.raises(InputError, match="the quantization of the model changed") as refused:
            run(tmp_path, {**entry, **other})
        assert refused.value.exit_status == 2
    run(tmp_path, {**entry, "quantization": {"method": "torchao", "quant_type": "Int8WeightOnlyConfig"}})


WRONG: list[tuple[Any, dict[str, Any], str]] = [
    ("torchao-int9", {}, "did you mean `torchao-int8`?"),
    ("gptq", {}, "name the folder or id of a checkpoint that is stored so"),
    ({"load_in_8bit": True}, {}, "has no `method`, which must be one of bitsandbytes"),
    ({"method": "bitsnbytes"}, {}, "did you mean `bitsandbytes`?"),
    ({"method": "bitsandbytes", "load_in_8bits": True}, {}, "did you mean `load_in_8bit`?"),
    ({"method": "bitsandbytes"}, {}, "needs one of load_in_8bit: true and load_in_4bit: true"),
    ({"method": "torchao"}, {}, "torchao needs quant_type"),
    ("torchao-int8", {"random_weights": True}, "does not go with random_weights"),
    ("torchao-int8", {"gguf_file": "m.gguf"}, "does not go with gguf_file"),
    ("torchao-int8", {"adapter": "./a", "merge_adapter": True}, "does not go with merge_adapter"),
]


@pytest.mark.parametrize(("asked", "more", "message"), WRONG)
def test_what_is_wrong_in_the_job_is_refused(asked, more, message, base, tmp_path):
    with pytest.raises(JobError) as refused:
        run(tmp_path, {"id": str(base), "quantization": asked, **more})
    assert message in str(refused.value) and "quantization" in str(refused.value)
    assert refused.value.exit_status == 2 and not (tmp_path / "job.zarr").exists()


@pytest.mark.parametrize("package", [p for p in ("hqq", "optimum") if find_spec(p) is None])
def test_a_missing_package_is_named_with_its_line_for_pip(package, base, tmp_path):
    asked, line = {"hqq": ("hqq-4bit", "hqq"), "optimum": ("quanto-int8", "optimum-quanto")}[package]
    with pytest.raises(MissingExtraError, match=f"cannot be quantised with {asked}, which needs {line}") as refused:
        run(tmp_path, {"id": str(base), "quantization": asked})
    assert refused.value.hint.startswith(f"pip install {line};")
    assert refused.value.exit_status == 2 and not (tmp_path / "job.zarr").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU can do it")
def test_a_method_that_needs_a_gpu_is_refused_by_name(base, tmp_path):
    with pytest.raises(ModelError, match="cannot be quantised with fp8: No GPU or XPU found") as refused:
        run(tmp_path, {"id": str(base), "quantization": "fp8"})
    assert refused.value.exit_status == 2 and not (tmp_path / "job.zarr").exists()


def test_a_class_that_torchao_does_not_have_is_refused(base, tmp_path):
    with pytest.raises(ModelError, match=r"torchao\.quantization has no Int9Config"):
        run(tmp_path, {"id": str(base), "quantization": {"method": "torchao", "quant_type": "Int9Config"}})


def test_weights_that_a_method_passes_over_are_not_taken_for_quantised(base, tmp_path):
    """The widths of this model are no multiple of its group size: torchao leaves every weight as it is, unsaid."""
    with pytest.raises(ModelError, match="none of its 21 linear layers was quantised") as refused:
        run(tmp_path, {"id": str(base), "quantization": "torchao-int4"})
    assert refused.value.exit_status == 2


def test_files_that_are_quantised_already_are_not_quantised_again(base, tmp_path):
    loaded(base, WAYS[0][1]()).save_pretrained(base)
    with pytest.raises(ModelError, match="its files are quantised already, with torchao"):
        run(tmp_path, {"id": str(base), "quantization": "bitsandbytes-8bit"})
    assert not (tmp_path / "job.zarr").exists()
