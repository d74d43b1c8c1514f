"""The settings of a vLLM engine, resolved from job, model and machine, and the check that memory is enough."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Any

from drillcore.backends.device import choose_device, choose_dtype, dtype_name, num_threads
from drillcore.backends.source import ModelSource
from drillcore.errors import RunError
from drillcore.job.extract import Extract
from drillcore.system.machine import free_memory_bytes

GIB = 2**30
# Longest sentence: all its keys and values must be in memory at once. Longer ones are left to `transformers`.
LONGEST_ON_CPU, LONGEST_ON_GPU = 4096, 32_768
# Position schemes that depend on the engine's longest sentence; below the switching length all of them agree.
SWITCHING_POSITIONS = ("dynamic", "longrope")


@dataclass(frozen=True)
class Settings:
    """Settings of an engine, which all decide bytes; JSON-ready.

    batch_nodes: tokens of one step at most, so the prefill chunk; max_sequences: requests in one step; block_tokens:
    tokens of a block of the prefix cache; max_tokens: longest sentence; threads: on a CPU, of all ranks; kv_gib: memory
    of the prefix cache on a CPU; kv_blocks: its blocks, None until an engine has counted them.
    """

    dtype: str
    batch_nodes: int
    max_sequences: int
    block_tokens: int
    max_tokens: int
    tensor_parallel: int
    threads: int
    kv_gib: int | None
    kv_blocks: int | None = None


def resolve_settings(source: ModelSource, extract: Extract, stored: dict[str, Any] | None) -> Settings:
    """The stored settings, or new ones for this job and machine; raises JobError for a device that is not there."""
    if stored is not None:
        return Settings(**{f.name: stored[f.name] for f in fields(Settings)})
    device = choose_device(extract)
    on_cpu, dtype = device.type == "cpu", choose_dtype(source, extract, device)
    nodes = (2048 if on_cpu else 8192) if extract.batch_tokens == "auto" else extract.batch_tokens
    block = 32 if on_cpu else 16
    token_bytes = _kv_bytes(source.config, dtype.itemsize) // extract.tensor_parallel
    kv_gib = _kv_gib(source, token_bytes) if on_cpu else None
    longest = min(source.facts.max_tokens or LONGEST_ON_GPU, _switching_length(source.config) or LONGEST_ON_GPU)
    if kv_gib is not None:
        longest = min(longest, kv_gib * GIB // max(1, token_bytes) // block * block)
    return Settings(
        dtype=dtype_name(dtype),
        batch_nodes=nodes,
        max_sequences=min(256, nodes),
        block_tokens=block,
        max_tokens=min(longest, LONGEST_ON_GPU),
        tensor_parallel=extract.tensor_parallel,
        threads=num_threads(extract),
        kv_gib=kv_gib,
    )


def _kv_bytes(config: Any, itemsize: int) -> int:
    """Bytes of a token's keys and values in all decoder layers; an upper bound where some layers keep fewer."""
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * heads * size * itemsize)


def _kv_gib(source: ModelSource, token_bytes: int) -> int:
    """GiB for the prefix cache on a CPU: the user's setting, or room for one long sentence and a little more."""
    gib = os.environ.get("VLLM_CPU_KVCACHE_SPACE")
    if gib:
        return int(gib)
    return 1 + min(source.facts.max_tokens or LONGEST_ON_CPU, LONGEST_ON_CPU) * token_bytes // GIB


def _switching_length(config: Any) -> int | None:
    text = config.get_text_config(decoder=True)
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    if rope.get("rope_type") not in SWITCHING_POSITIONS:
        return None
    length: int | None = rope.get("original_max_position_embeddings") or getattr(
        text, "original_max_position_embeddings", None
    )
    return length


def check_memory(source: ModelSource, settings: Settings, weight_bytes: int) -> None:
    """Raise RunError, before anything starts, where memory is too small for weights and prefix cache."""
    import torch

    kv_bytes = (settings.kv_gib or 0) * GIB * settings.tensor_parallel
    if settings.kv_gib is not None:
        free, where = free_memory_bytes(), "the host has"
        remedy = "Set VLLM_CPU_KVCACHE_SPACE (GiB) lower, or take a smaller dtype."
    else:
        free = sum(torch.cuda.mem_get_info(i)[0] for i in range(settings.tensor_parallel))
        where, remedy = f"{settings.tensor_parallel} GPUs have", "Set extract.tensor_parallel higher."
    if weight_bytes + kv_bytes > free:
        raise RunError(
            f"vLLM has too little memory for {source.model.id}: {weight_bytes / GIB:.1f} GiB of weights and "
            f"{kv_bytes / GIB:.1f} GiB of prefix cache, {where} {free / GIB:.1f} GiB free",
            hint=remedy,
        )
