"""Models built from published configurations with random weights, and synthetic sentences as token ids.

Configurations: the models' own config.json on their hub pages (SmolLM2: HuggingFaceTB; Llama 3.x: Meta).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from drillcore.tokens.sequences import Sequences

SEED = 0
_LLAMA3 = {
    "vocab_size": 128_256,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "bos_token_id": 128_000,
    "eos_token_id": 128_001,
}
_SMOLLM2 = {"vocab_size": 49_152, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "tie_word_embeddings": True}


def _llama(hidden: int, inter: int, blocks: int, heads: int, kv: int, head_dim: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": hidden,
        "intermediate_size": inter, "num_hidden_layers": blocks, "num_attention_heads": heads,
        "num_key_value_heads": kv, "head_dim": head_dim, **more,
    }  # fmt: skip


CONFIGS: dict[str, dict[str, Any]] = {
    "toy": _llama(64, 128, 3, 4, 2, 16, vocab_size=512, max_position_embeddings=512),
    "SmolLM2-135M": _llama(576, 1536, 30, 9, 3, 64, rope_theta=100_000.0, **_SMOLLM2),
    "SmolLM2-1.7B": _llama(2048, 8192, 24, 32, 32, 64, rope_theta=130_000.0, **_SMOLLM2),
    "Llama-3.2-1B": _llama(2048, 8192, 16, 32, 8, 64, tie_word_embeddings=True, **_LLAMA3),
    "Llama-3.2-3B": _llama(3072, 8192, 28, 24, 8, 128, tie_word_embeddings=True, **_LLAMA3),
    "Llama-3.1-8B": _llama(4096, 14_336, 32, 32, 8, 128, tie_word_embeddings=False, **_LLAMA3),
}


def write_config(name: str, folder: Path) -> Path:
    """A model directory that holds its configuration alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIGS[name]), encoding="utf-8")
    return folder


def free_text(count: int, vocab: int) -> Sequences:
    """Lengths like those of review sentences (1 to 78 tokens, about 25 in the mean), nothing shared."""
    draw = np.random.default_rng(SEED)
    lengths = np.clip(draw.gamma(4.2, 6.1, count), 1, 78).astype(int)
    return Sequences.of([draw.integers(3, vocab, n) for n in lengths])


def templates(count: int, vocab: int) -> Sequences:
    """Statements on a template: a common beginning, a subject in two versions, a varied end; half of it shared."""
    draw = np.random.default_rng(SEED)
    start, middle = draw.integers(3, vocab, 3), draw.integers(3, vocab, 2)
    made = []
    while len(made) < count:
        subject = draw.integers(3, vocab, draw.integers(1, 4))
        ends = [draw.integers(3, vocab, draw.integers(1, 4)) for _ in range(2)]
        made += [np.concatenate([start, subject, middle, end]) for end in ends]
    order = draw.permutation(count)
    return Sequences.of([made[i] for i in order])


TEXTS = {"free text": free_text, "templates": templates}
