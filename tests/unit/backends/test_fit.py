"""Checkpoints that are not whole or belong to another model are refused by name; what is left out is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from drillcore.backends import check_weights
from drillcore.backends.base import all_states
from drillcore.backends.source import locate
from drillcore.backends.transformers.fit import examine, fold
from drillcore.backends.transformers.loading import _read
from drillcore.errors import ModelError
from drillcore.job.file import load_job
from drillcore.job.model import Model
from drillcore.runtime.preflight import check_job
from drillcore.runtime.runner import run_stages
from drillcore.system.progress import Silent
from drillcore.tokens.sequences import Sequences
from support.backends import open_transformers
from support.checkpoints import WEIGHTS, configure, copied, drop, rewrite
from support.plain import random_sentences
from support.tiny import VOCAB, write_tokenizer

COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
EXPERTS = {"moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "first_k_dense_replace": 1}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}


def look(folder: Path, **settings):
    return examine(locate(Model(id=str(folder), **settings), Path("/")))


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as refused:
        look(folder)
    assert refused.value.hint
    return str(refused.value)


@pytest.fixture
def llama(models, tmp_path) -> Path:
    return copied(models("llama"), tmp_path / "model")


def saved(folder: Path, kind: str, **settings) -> Path:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**COMMON, **settings}))
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def test_a_weight_that_is_missing_is_named(llama):
    drop(llama, "layers.1.mlp.up_proj")
    assert "model.layers.1.mlp.up_proj.weight" in refusal(llama)


def test_a_job_with_such_a_model_is_refused_before_anything_is_written(llama, tmp_path):
    drop(llama, "layers.1.mlp.up_proj")
    (tmp_path / "rows.txt").write_text("One sentence.\nAnother one.\n", encoding="utf-8")
    job = {"models": [str(llama)], "datasets": {"rows": "rows.txt"}, "store": "out/states.zarr"}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    loaded = load_job(tmp_path / "job.yaml")
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj"):
        check_job(loaded, Silent())
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj") as refused:
        run_stages(loaded, ["extract"], Silent())
    assert refused.value.exit_status == 2
    assert not (tmp_path / "out").exists()


def test_a_block_that_is_missing_is_named(llama):
    drop(llama, "layers.1.")
    assert "model.layers.1.* (9)" in refusal(llama)


def test_one_layer_more_in_the_configuration_than_in_the_files(llama):
    configure(llama, num_hidden_layers=4)
    assert "model.layers.3.* (9); config.json has more layers than the files, by 1" in refusal(llama)


def test_a_wrong_prefix_on_every_name(llama):
    rewrite(llama, lambda tensors: {f"foo.{name}": t for name, t in tensors.items()})
    message = refusal(llama)
    assert "model.layers.0.* (9)" in message and "foo.model.layers.0.* (9)" in message


def test_other_shapes_are_named(llama):
    configure(llama, intermediate_size=96)
    assert "model.layers.0.mlp.down_proj.weight is (32, 64), expected (32, 96)" in refusal(llama)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mixtral", "opt", "bloom", "mamba", "gemma2", "falcon"])
def test_whichever_weight_is_missing_the_model_is_refused(kind, models, tmp_path, seed):
    """Any weight but the head, also one of many that are put together into one (experts)."""
    folder = models(kind)
    look(folder)
    names = [n for n in sorted(load_file(folder / WEIGHTS)) if not n.startswith("lm_head")]
    for i, name in enumerate(np.random.default_rng(seed).choice(names, 3, replace=False)):
        changed = copied(folder, tmp_path / str(i))
        drop(changed, str(name))
        assert refusal(changed), name


def test_an_expert_that_is_missing_is_named(models, tmp_path):
    folder = copied(models("mixtral"), tmp_path / "model")
    drop(folder, "layers.1.block_sparse_moe.experts.2.w1")
    assert "model.layers.1.block_sparse_moe.experts.2.w1.weight" in refusal(folder)


def test_a_model_of_the_base_class_has_the_same_states_and_no_next_tokens(models, tmp_path, seed):
    whole, base = models("llama"), tmp_path / "base"
    AutoModel.from_pretrained(whole).save_pretrained(base)
    write_tokenizer(base)
    assert not any(n.startswith(("model.", "lm_head")) for n in load_file(base / WEIGHTS))
    sentences = Sequences.of(random_sentences(seed, VOCAB, longest=12, count=4))
    (ours, prepared), (theirs, _) = open_transformers(base), open_transformers(whole)
    assert np.array_equal(all_states(ours, sentences), all_states(theirs, sentences))
    assert "no output embedding" in prepared.head_problem
    assert any("no output embedding" in note for note in prepared.notes)
    source = locate(Model(id=str(base)), Path("/"))
    check_weights(source, predicts=False)
    with pytest.raises(ModelError, match="no output embedding"):
        check_weights(source, predicts=True)


def test_tied_embeddings_may_be_stored_under_either_name(models, tmp_path, seed):
    folder = models("llama", tie_word_embeddings=True)
    other = copied(folder, tmp_path / "model")
    rewrite(other, lambda tensors: tensors | {"lm_head.weight": tensors.pop("model.embed_tokens.weight")})
    assert look(folder).has_head and look(other).has_head
    sentences = Sequences.of(random_sentences(seed, VOCAB, longest=12, count=4))
    states = [all_states(open_transformers(f)[0], sentences) for f in (folder, other)]
    assert np.array_equal(*states)


def test_fewer_layers_in_the_configuration_are_said(llama):
    configure(llama, num_hidden_layers=2)
    assert look(llama).notes == (
        "config.json has 2 decoder layers; the files' further layers are left out: model.layers.2.* (9)",
    )


@pytest.mark.parametrize("kind", ["deepseek_v3", "glm4_moe"])
def test_layers_that_predict_several_tokens_ahead_are_said(kind, tmp_path):
    settings = {**EXPERTS, **(LATENT if kind == "deepseek_v3" else {"num_key_value_heads": 2, "head_dim": 8})}
    folder = saved(tmp_path / "model", kind, n_group=1, topk_group=1, num_nextn_predict_layers=1, **settings)
    assert look(folder).notes == ()
    rewrite(folder, lambda tensors: tensors | {"model.layers.3.eh_proj.weight": torch.zeros(32, 64)})
    assert look(folder).notes == (
        "config.json has 3 decoder layers; layers that predict several tokens ahead are left out: "
        "model.layers.3.eh_proj.weight",
    )


def test_weights_beside_the_decoder_are_said(llama):
    beside = {"vision_tower.a.weight": torch.zeros(3), "vision_tower.b.weight": torch.zeros(3)}
    rewrite(llama, lambda tensors: tensors | beside)
    assert look(llama).notes == ("its files hold weights that LlamaForCausalLM does not use: vision_tower.* (2)",)


def test_weights_in_used_layers_that_have_no_place_are_refused(llama):
    """A configuration without `attention_bias` would leave the biases of the files out."""
    rewrite(llama, lambda tensors: tensors | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(32)})
    assert "no place: model.layers.0.self_attn.q_proj.bias" in refusal(llama)


def test_buffers_that_are_computed_may_be_in_the_files(llama):
    relics = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4),
        "model.layers.0.self_attn.masked_bias": torch.tensor(-1e4),
        "model.layers.1.self_attn.bias": torch.ones(1, 1, 8, 8),
    }
    rewrite(llama, lambda tensors: tensors | relics)
    assert look(llama).notes == ()


def test_scales_without_their_configuration_are_refused(llama):
    def scaled(tensors):
        return tensors | {f"{n}_scale_inv": torch.ones(1, 1) for n in tensors if n.endswith("proj.weight")}

    rewrite(llama, scaled)
    assert "quantised, and config.json has no quantization_config" in refusal(llama)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.uint8])
def test_codes_without_their_configuration_are_refused(dtype, llama):
    rewrite(llama, lambda tensors: {n: t.to(dtype) if "proj" in n else t for n, t in tensors.items()})
    assert "no quantization_config" in refusal(llama)


def test_packed_weights_without_their_configuration_are_refused(llama):
    def packed(tensors):
        for name in [n for n in tensors if n.endswith("proj.weight")]:
            del tensors[name]
            stem = name.removesuffix("weight")
            tensors |= {f"{stem}qweight": torch.zeros(4, 32, dtype=torch.int32), f"{stem}scales": torch.ones(1, 32)}

    rewrite(llama, packed)
    assert "quantised, and config.json has no quantization_config" in refusal(llama)


def test_weights_of_an_adapter_are_refused(llama):
    name = "model.layers.0.self_attn.q_proj"
    rewrite(llama, lambda tensors: tensors | {f"{name}.lora_A.weight": torch.zeros(2, 32)})
    assert "are those of an adapter" in refusal(llama)


def test_the_class_that_the_configuration_names_is_taken_where_the_usual_one_does_not_fit(tmp_path):
    """Emu3 is registered as a text model, whose names those of the model with pictures do not fit."""
    from transformers import Emu3Config, Emu3ForConditionalGeneration

    pictures = {"<image>": 300, "<|extra_200|>": 301, "<|visual token 000000|>": 302, "<|visual token 000001|>": 303}
    eyes = {"base_channels": 32, "channel_multiplier": [1], "num_res_blocks": 1, "embed_dim": 4, "codebook_size": 8}
    config = Emu3Config(text_config={**COMMON, "num_key_value_heads": 2}, vq_config=eyes, vocabulary_map=pictures)
    Emu3ForConditionalGeneration(config).save_pretrained(tmp_path / "model")
    fit = look(tmp_path / "model")
    assert fit.loader is Emu3ForConditionalGeneration
    assert "loaded as Emu3ForConditionalGeneration" in fit.notes[0]
    configure(tmp_path / "model", architectures=["Emu3ForCausalLM"])
    assert "text_model.model.layers.0" in refusal(tmp_path / "model")


def test_a_class_of_another_architecture_is_said(llama):
    configure(llama, architectures=["MistralForCausalLM"])
    (note,) = look(llama).notes
    assert "names MistralForCausalLM, but its model_type is llama: it is loaded as LlamaForCausalLM" in note


def test_the_report_of_the_load_itself_is_checked_too(llama):
    """Files of a hub model may not be there yet when a job is checked."""
    source = locate(Model(id=str(llama)), Path("/"))
    fit = examine(source)
    drop(llama, "layers.1.mlp.up_proj")
    with pytest.raises(ModelError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        _read(source, fit, torch.float32, torch.device("cpu"), 1)


def test_random_weights_need_no_files(llama):
    (llama / WEIGHTS).unlink()
    assert look(llama, random_weights=True).has_head


def test_names_in_few_words():
    names = [f"model.layers.{k}.{part}" for k in range(5) for part in "ab"]
    assert fold(["lm_head.weight", *names]) == "lm_head.weight, model.layers.0.* (2), model.layers.1.* (2) and 3 more"
    assert fold(["a.10.x", "a.9.x"]) == "a.9.x, a.10.x"
