"""Tiny random models of real architectures, written as local directories with a tokenizer of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VOCAB = 384

_LLAMA = {"num_key_value_heads": 2, "intermediate_size": 64}
_SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]

# model_type -> settings beyond the common ones. Three blocks, width 32, four heads.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": {**_LLAMA, "head_dim": 8},
    "gemma": {**_LLAMA, "head_dim": 8},
    "gemma2": {**_LLAMA, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 4, "layer_types": _SLIDING},
    "gemma3_text": {**_LLAMA, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 4, "layer_types": _SLIDING},
    "mistral": {**_LLAMA, "sliding_window": 4, "head_dim": 8},
    "mixtral": {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 512},
    "gpt_neox": {"intermediate_size": 64},
    "phi": {"intermediate_size": 64},
    "gpt_neo": {"attention_types": [[["global", "local", "local"], 1]], "window_size": 16},
    "phi3": {**_LLAMA, "pad_token_id": 0},
    "olmo2": _LLAMA,
    "smollm3": {**_LLAMA, "pad_token_id": 0},
    "granite": {**_LLAMA, "logits_scaling": 3.0, "residual_multiplier": 0.5, "embedding_multiplier": 2.0},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "cohere": {**_LLAMA, "logit_scale": 0.25},
    "starcoder2": {**_LLAMA, "sliding_window": 4},
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False},
    "bloom": {"n_layer": 3, "n_head": 4},
    # Final norms under names of their own.
    "biogpt": {"intermediate_size": 64},
    "xglm": {"d_model": 32, "num_layers": 3, "attention_heads": 4, "ffn_dim": 64},
    "lfm2": {**_LLAMA, "layer_types": ["conv", "full_attention", "conv"]},
    "mamba": {"state_size": 8, "intermediate_size": 64},
}
PACKED = [a for a in ARCHITECTURES if a not in ("bloom", "mamba", "lfm2", "gpt_neo")]


def tiny_config(architecture: str, **changes: Any) -> Any:
    from transformers import AutoConfig

    common = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "initializer_range": 0.2,
    }
    return AutoConfig.for_model(architecture, **{**common, **ARCHITECTURES[architecture], **changes})


def tiny_model(folder: Path, architecture: str = "llama", *, seed: int = 0, **changes: Any) -> Path:
    """Write a model with random weights and a byte-level tokenizer; the directory."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(architecture, **changes))
    # Norms start at one, which would hide a norm that is left out or taken twice.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and "mixer" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """One token a byte, with a beginning-of-sentence token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2} | {c: i + 3 for i, c in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "padding_side": "left",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
