"""Models built from published configurations with random weights, and synthetic sentences as token ids.

Configurations: the models' own config.json on their hub pages (SmolLM2: HuggingFaceTB; Llama 3.x: Meta).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.ceilings import CUDA, DEVICE, DTYPE
from drillcore.backends.source import ModelSource, locate
from drillcore.backends.transformers import loading
from drillcore.backends.transformers.backend import TransformersBackend
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.runtime.work.tasks import ModelTask
from drillcore.tokens.sequences import Sequences

SEED = 0
LLAMA3 = {
    "vocab_size": 128_256,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "bos_token_id": 128_000,
    "eos_token_id": 128_001,
}
SMOLLM2 = {"vocab_size": 49_152, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "tie_word_embeddings": True}


def _llama(hidden: int, inner: int, num_layers: int, heads: int, kv: int, head_dim: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": num_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": head_dim,
        **more,
    }


CONFIGS: dict[str, dict[str, Any]] = {
    "toy": _llama(64, 128, 3, 4, 2, 16, vocab_size=512, max_position_embeddings=512),
    "SmolLM2-135M": _llama(576, 1536, 30, 9, 3, 64, rope_theta=100_000.0, **SMOLLM2),
    "SmolLM2-1.7B": _llama(2048, 8192, 24, 32, 32, 64, rope_theta=130_000.0, **SMOLLM2),
    "Llama-3.2-1B": _llama(2048, 8192, 16, 32, 8, 64, tie_word_embeddings=True, **LLAMA3),
    "Llama-3.2-3B": _llama(3072, 8192, 28, 24, 8, 128, tie_word_embeddings=True, **LLAMA3),
    "Llama-3.1-8B": _llama(4096, 14_336, 32, 32, 8, 128, tie_word_embeddings=False, **LLAMA3),
}
# Free text that takes about two seconds on an H100, in whole batches of 32,768 nodes.
SENTENCES = {
    "toy": 128,
    "SmolLM2-135M": 49_152,
    "Llama-3.2-1B": 20_480,
    "SmolLM2-1.7B": 12_650,
    "Llama-3.2-3B": 7590,
    "Llama-3.1-8B": 3795,
}
_SMALL = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "vocab_size": 2048,
    "max_position_embeddings": 2048,
    "num_attention_heads": 4,
}
# Small models of other architectures: grouped queries, norms of queries and keys, windows, capped scores.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "qwen3": {
        **_SMALL,
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "num_key_value_heads": 2,
        "head_dim": 128,
    },
    "gemma2": {
        **_SMALL,
        "model_type": "gemma2",
        "architectures": ["Gemma2ForCausalLM"],
        "num_key_value_heads": 2,
        "head_dim": 64,
        "sliding_window": 16,
        "query_pre_attn_scalar": 64,
    },
    "gemma3": {
        **_SMALL,
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "num_key_value_heads": 1,
        "head_dim": 64,
        "sliding_window": 16,
        "query_pre_attn_scalar": 64,
    },
}


def random_model(source: ModelSource, dtype: torch.dtype) -> Any:
    """Random weights, drawn where the model runs: eight billion of them take minutes on a CPU."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(SEED)
    with torch.device(DEVICE):
        return AutoModelForCausalLM.from_config(source.config, dtype=dtype)


@contextmanager
def drawn_on_device() -> Iterator[None]:
    """Random weights of backends that are opened inside come from `random_model`."""
    before = loading._random
    loading._random = random_model
    try:
        yield
    finally:
        loading._random = before


class GpuLike(TransformersBackend):
    """The backend as it is on a GPU: on a CPU, too, linear layers are PyTorch's own, which can be compiled."""

    def _takes_onednn(self) -> bool:
        return False


def open_backend(
    config: Mapping[str, Any], folder: Path, *, as_on_gpu: bool = True
) -> tuple[ModelSource, TransformersBackend]:
    """A backend for all layers with random weights, not yet prepared.

    as_on_gpu: on a CPU, too, packs go through FlexAttention and linear layers are PyTorch's own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    source = locate(Model(id=str(folder), random_weights=True), Path("/"))
    layers = tuple(range(source.facts.num_layers + 2))
    settings: dict[str, Any] = {"dtype": str(DTYPE).removeprefix("torch.")}
    if as_on_gpu and not CUDA:
        settings |= {"compile": "on", "batch_tokens": 1024}
    with drawn_on_device():
        return source, (GpuLike if as_on_gpu else TransformersBackend)(source, Extract(**settings), layers)


def model_task(backend: TransformersBackend, tokens: Sequences) -> ModelTask:
    """What a store needs to know of an opened backend."""
    model, layers = backend._source.model, backend._layers
    return ModelTask(model, "", "transformers", backend._extract, layers, None, tokens.slice(0, 1))


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
