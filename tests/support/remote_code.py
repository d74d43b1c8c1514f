"""A tiny model whose folder ships its own code, as many do on the hub."""

from __future__ import annotations

import json
from pathlib import Path

from support.tiny import VOCAB, write_tokenizer

CONFIGURATION = """
from transformers import LlamaConfig


class TinyConfig(LlamaConfig):
    model_type = "tiny_with_code"
"""
MODEL = """
from transformers import LlamaForCausalLM

from .configuration_tiny import TinyConfig


class TinyForCausalLM(LlamaForCausalLM):
    config_class = TinyConfig
"""


def model_with_code(folder: Path) -> Path:
    """Write the model: a Llama under another name, with its code beside its weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=64, max_position_embeddings=512)).save_pretrained(folder)
    write_tokenizer(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    classes = {"AutoConfig": "configuration_tiny.TinyConfig", "AutoModelForCausalLM": "modeling_tiny.TinyForCausalLM"}
    config |= {"model_type": "tiny_with_code", "architectures": ["TinyForCausalLM"], "auto_map": classes}
    path.write_text(json.dumps(config), encoding="utf-8")
    (folder / "configuration_tiny.py").write_text(CONFIGURATION, encoding="utf-8")
    (folder / "modeling_tiny.py").write_text(MODEL, encoding="utf-8")
    return folder
