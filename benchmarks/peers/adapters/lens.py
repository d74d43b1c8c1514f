"""TransformerLens: the bridge's `run_with_cache` on batches of 32 as they come, keeping residual streams only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from padding import right_padded
from transformer_lens.model_bridge import TransformerBridge

PACKAGES = ("transformer-lens", "torch", "transformers")
BATCH = 32


def load(model: str, threads: int, dtype: str) -> Callable[[list[Any]], Any]:
    """Read the model; the function takes token ids and returns float32 states [sentence, L + 2, hidden]."""
    torch.set_num_threads(threads)
    bridge = TransformerBridge.boot_transformers(model, device="cpu", dtype=getattr(torch, dtype))
    names = ["blocks.0.hook_in", *(f"blocks.{k}.hook_out" for k in range(bridge.cfg.n_layers)), "ln_final.hook_out"]

    def run(sentences: list[Any]) -> Any:
        batches = []
        for start in range(0, len(sentences), BATCH):
            ids, mask, last = right_padded(sentences[start : start + BATCH])
            with torch.inference_mode():
                _, cache = bridge.run_with_cache(ids, attention_mask=mask, return_type=None, names_filter=names)
            row = torch.arange(len(ids))
            batches.append(torch.stack([cache[name][row, last] for name in names], dim=1).float().numpy())
        return np.concatenate(batches)

    return run
