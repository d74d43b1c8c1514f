"""GGUF files of tiny llamas, written with the gguf library."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
from transformers import AutoModelForCausalLM

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "embed_tokens": "token_embd",
    "norm": "output_norm",
}


def write_gguf(llama: Path, path: Path, kind: str) -> dict[str, np.ndarray]:
    """Quantise a tiny llama; the dequantised weights by their names in transformers. kind: such as Q4_0."""
    model = AutoModelForCausalLM.from_pretrained(llama)
    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    _add_tokens(writer, llama, config.vocab_size)
    dequantised = {}
    for name, tensor in model.state_dict().items():
        values, heads = tensor.numpy(), 0
        if "q_proj" in name or "k_proj" in name:
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        written = _turned(values, heads) if heads else values
        if values.ndim == 1:
            writer.add_tensor(_called(name), written)
            dequantised[name] = values
            continue
        quantisation = gguf.GGMLQuantizationType[kind]
        codes = gguf.quants.quantize(np.ascontiguousarray(written), quantisation)
        writer.add_tensor(_called(name), codes, raw_dtype=quantisation)
        read = gguf.quants.dequantize(codes, quantisation).reshape(values.shape)
        dequantised[name] = _turned(read, heads, back=True) if heads else read
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return dequantised


def _called(name: str) -> str:
    if name == "lm_head.weight":
        return "output.weight"
    parts = name.removeprefix("model.").removesuffix(".weight").split(".")
    if parts[0] != "layers":
        return f"{NAMES[parts[0]]}.weight"
    return f"blk.{parts[1]}.{NAMES['.'.join(parts[2:])]}.weight"


def _turned(values: np.ndarray, heads: int, *, back: bool = False) -> np.ndarray:
    """Rows in the order of llama.cpp, whose rotation pairs neighbours; or back."""
    half = len(values) // heads // 2
    shape = (heads, half, 2, -1) if back else (heads, 2, half, -1)
    return values.reshape(shape).swapaxes(1, 2).reshape(values.shape)


def _add_tokens(writer: gguf.GGUFWriter, llama: Path, size: int) -> None:
    vocabulary = json.loads((llama / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    pieces = {number: piece for piece, number in vocabulary.items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([pieces.get(i, f"<unused{i}>") for i in range(size)])
    writer.add_token_merges([])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
