"""8-bit floats with a scale for each block are dequantised as they are read: whole, and layer by layer."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, FineGrainedFP8Config

from drillcore.backends import check_backend
from drillcore.backends import transformers as fp8_package
from drillcore.backends.base import all_states
from drillcore.backends.source import locate
from drillcore.backends.transformers import fp8
from drillcore.backends.transformers.dequantised import config_argument
from drillcore.backends.transformers.fit import examine
from drillcore.backends.transformers.fp8 import Dequantize
from drillcore.backends.transformers.loading import load_model
from drillcore.backends.transformers.streamed.choice import need_of
from drillcore.backends.transformers.streamed.weights import WeightFiles
from drillcore.errors import JobError, MissingExtraError, ModelError
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.tokens.sequences import Sequences
from support.backends import open_transformers
from support.checkpoints import configure, copied, drop, rewrite, split
from support.eight_bit import write_eight_bits
from support.plain import random_sentences
from support.tiny import write_tokenizer
from tools.architectures.tiny import random_model

FIELD = {"method": "fp8", "dequantize": True}
KINDS = ["llama", "qwen3_moe", "deepseek_v3"]


def asked(folder: Path) -> Model:
    return Model(id=str(folder), quantization=FIELD)


def written(kind: str, folder: Path, **more) -> dict[str, torch.Tensor]:
    """A quantised model in three files; what its tensors stand for."""
    random_model(kind, with_images=False).save_pretrained(folder)
    write_tokenizer(folder)
    meant = write_eight_bits(folder, **more)
    assert sum(name.endswith("proj.weight") for name in meant) > 10
    split(folder)
    return meant


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_streamed_as_resident_byte_for_byte(kind, dtype, tmp_path):
    # Blocks of 12 leave a smaller one at the edges, as DeepSeek-V3's own 576 rows do in blocks of 128.
    written(kind, tmp_path / "m", block=12, plain=torch.bfloat16)
    both = [
        open_transformers(tmp_path / "m", model=asked(tmp_path / "m"), threads=1, dtype=dtype, **more)
        for more in ({}, {"weights": "streamed"})
    ]
    (resident, one), (streamed, other) = both
    assert other.numerics == {**one.numerics, "weights": "streamed"} and one.numerics["dequantized"] == "fp8"
    assert dtype != "float32" or one.check.bound == 1e-4
    assert not [note for note in other.notes if "accelerate" in note]
    block = Sequences.of(random_sentences(0, 300))
    np.testing.assert_array_equal(all_states(streamed, block), all_states(resident, block))
    for backend in (resident, streamed):
        backend.close()


def values_of(folder: Path, model: Model, dtype: str) -> dict[str, torch.Tensor]:
    return load_model(locate(model, Path("/")), Extract(device="cpu", dtype=dtype), 99).causal.state_dict()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_what_the_codes_and_scales_say(dtype, models, tmp_path):
    folder = copied(models("llama", intermediate_size=24), tmp_path / "m")
    meant = write_eight_bits(folder, plain=torch.bfloat16)
    for model in (asked(folder), Model(id=str(folder))):
        found = values_of(folder, model, dtype)
        assert found.keys() == meant.keys()
        for name, values in found.items():
            assert values.dtype == getattr(torch, dtype) and torch.equal(values, meant[name].to(values.dtype)), name


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes with them")
def test_that_they_are_dequantised_unasked_is_told(models, tmp_path):
    folder = copied(models("llama"), tmp_path / "m")
    write_eight_bits(folder)
    told = "its 8-bit floats are dequantised as they are read: this machine does not compute with them"
    assert told in examine(locate(Model(id=str(folder)), Path("/"))).notes
    assert told not in examine(locate(asked(folder), Path("/"))).notes


def test_whole_blocks_are_what_transformers_makes_of_them(models, tmp_path):
    folder = copied(models("llama"), tmp_path / "m")
    write_eight_bits(folder)
    settings = {"quantization_config": FineGrainedFP8Config(dequantize=True), "dtype": torch.float32}
    theirs = AutoModelForCausalLM.from_pretrained(folder, **settings).state_dict()
    ours = values_of(folder, asked(folder), "float32")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_transformers_keeps_in_float32_stays_so(models, tmp_path, monkeypatch):
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    monkeypatch.setattr(LlamaForCausalLM, "_keep_in_fp32_modules_strict", ["input_layernorm", "q_proj"])
    folder = copied(models("llama"), tmp_path / "m")
    write_eight_bits(folder)
    argument = config_argument(locate(asked(folder), Path("/")))
    found, wanted = (
        AutoModelForCausalLM.from_pretrained(place, dtype=torch.bfloat16, **more).state_dict()
        for place, more in ((folder, argument), (models("llama"), {}))
    )
    kept = [name for name, values in found.items() if values.dtype == torch.float32]
    assert len(kept) == 6 and kept == [name for name, values in wanted.items() if values.dtype == torch.float32]


def test_layers_are_read_as_codes_and_take_the_memory_of_plain_weights(models, tmp_path, monkeypatch):
    plain, folder = models("llama"), copied(models("llama"), tmp_path / "m")
    write_eight_bits(folder)
    needs = [need_of(locate(model, Path("/")), Extract()) for model in (asked(folder), Model(id=str(plain)))]
    assert (needs[0].layer, needs[0].weights) == (needs[1].layer, needs[1].weights)
    read, dtypes = WeightFiles.read, set()

    def seen(self, name):
        values = read(self, name)
        if name.endswith("proj.weight"):
            dtypes.add(values.dtype)
        return values

    monkeypatch.setattr(WeightFiles, "read", seen)
    open_transformers(folder, model=asked(folder), weights="streamed", threads=1)[0].close()
    assert dtypes == {torch.float8_e4m3fn}


def drop_scales(folder: Path) -> None:
    drop(folder, "_scale_inv")


def drop_one_scale(folder: Path) -> None:
    drop(folder, "layers.1.mlp.up_proj.weight_scale_inv")


def other_blocks(folder: Path) -> None:
    blocks = {"quant_method": "fp8", "weight_block_size": [32, 32], "activation_scheme": "dynamic"}
    configure(folder, quantization_config=blocks)


def no_blocks(folder: Path) -> None:
    configure(folder, quantization_config={"quant_method": "fp8", "weight_block_size": None})


def embeddings(folder: Path) -> None:
    blocks = {"quant_method": "fp8", "weight_block_size": [16, 16], "modules_to_convert": ["embed_tokens"]}
    configure(folder, quantization_config=blocks)


def powers_of_two(folder: Path) -> None:
    rewrite(folder, lambda found: {n: t.byte() if n.endswith("_scale_inv") else t for n, t in found.items()})


def other_codes(folder: Path) -> None:
    rewrite(folder, lambda found: {n: t.to(torch.int8) if n.endswith("proj.weight") else t for n, t in found.items()})


def no_weight(folder: Path) -> None:
    drop(folder, "layers.1.mlp.up_proj")


WRONG = [
    (drop_scales, "proj.weight has no scales"),
    (drop_one_scale, "no scale for model.layers.1.mlp.up_proj.weight"),
    (other_blocks, r"has scales of the shape \(4, 2\), and 2 x 1 blocks"),
    (no_blocks, "scales, and no blocks"),
    (embeddings, "embeddings are quantised"),
    (powers_of_two, "the scales of .* are U8"),
    (other_codes, "proj.weight is I8, not F8_E4M3"),
    (no_weight, "lack 1 of the weights of LlamaForCausalLM"),
]


@pytest.mark.parametrize(("spoil", "said"), WRONG)
def test_files_that_are_not_what_they_say_are_refused_before_anything_is_read(spoil, said, models, tmp_path):
    folder = copied(models("llama"), tmp_path / "m")
    write_eight_bits(folder)
    examine(locate(asked(folder), Path("/")))
    spoil(folder)
    with pytest.raises(ModelError, match=said) as refused:
        examine(locate(asked(folder), Path("/")))
    assert refused.value.exit_status == 2 and refused.value.hint


@pytest.mark.parametrize("stored", [None, {"quant_method": "bitsandbytes", "load_in_8bit": True}])
def test_files_of_another_kind_are_not_dequantised(stored, models, tmp_path):
    folder = copied(models("llama"), tmp_path / "m")
    if stored:
        configure(folder, quantization_config=stored)
    what = "quantised with bitsandbytes" if stored else "not quantised"
    with pytest.raises(ModelError, match=f"quantization is fp8-dequantized, but its files are {what}"):
        examine(locate(asked(folder), Path("/")))


@pytest.mark.parametrize("more", [{"dequantize": False}, {"dequantize": True, "weight_block_size": "64"}])
def test_settings_beside_it_are_refused(more):
    with pytest.raises(ValueError, match="fp8 takes dequantize: true alone"):
        Model(id="./m", quantization={"method": "fp8", **more})


def test_its_names(tmp_path):
    for given in ("fp8-dequantized", FIELD):
        assert Model(id="./m", quantization=given).group == "m--fp8-dequantized"
        assert Model(id="./m", quantization=given, merge_adapter=True).merge_adapter
    assert Model(id="./m", quantization="fp8").group == "m--fp8"


def test_streaming_codes_says_what_to_set(models, tmp_path):
    folder = copied(models("llama"), tmp_path / "m")
    write_eight_bits(folder)
    source, streamed = locate(Model(id=str(folder)), Path("/")), Extract(weights="streamed")
    with pytest.raises(JobError, match="does not go with quantised weights, unless quantization: fp8-dequantized"):
        check_backend("transformers", source, streamed)
    check_backend("transformers", locate(asked(folder), Path("/")), streamed)


def test_codes_without_scales_are_never_taken_for_numbers():
    with pytest.raises(ValueError, match="w has no scales"):
        Dequantize(None).convert({"weight": torch.ones(2, 2).to(torch.float8_e4m3fn)}, full_layer_name="w")


def test_a_transformers_that_lacks_what_is_taken_of_it(models, tmp_path, monkeypatch):
    folder = copied(models("llama"), tmp_path / "m")
    write_eight_bits(folder)
    monkeypatch.setitem(sys.modules, fp8.__name__, None)
    monkeypatch.delattr(fp8_package, "fp8")
    with pytest.raises(MissingExtraError, match="8-bit floats cannot be dequantised with transformers 5"):
        examine(locate(asked(folder), Path("/")))
