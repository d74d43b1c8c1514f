"""A `transformers` loop as most people write it: batches of 32 as they come, `output_hidden_states=True`.

The one thing added is a hook on the last block: the tuple holds its output after the final norm only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from padding import blocks_of, right_padded
from transformers import AutoModelForCausalLM

PACKAGES = ("torch", "transformers")
BATCH = 32


def load(model: str, threads: int, dtype: str) -> Callable[[list[Any]], Any]:
    """Read the model; the function takes token ids and returns float32 states [sentence, L + 2, hidden]."""
    torch.set_num_threads(threads)
    causal = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
    num_blocks = causal.config.num_hidden_layers
    last_block: list[torch.Tensor] = []

    def take(module: Any, args: Any, output: Any) -> None:
        last_block[:] = [output[0] if isinstance(output, tuple) else output]

    blocks_of(causal.get_decoder(), num_blocks)[-1].register_forward_hook(take)

    def run(sentences: list[Any]) -> Any:
        batches = []
        for start in range(0, len(sentences), BATCH):
            ids, mask, last = right_padded(sentences[start : start + BATCH])
            with torch.no_grad():
                states = causal(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
            row = torch.arange(len(ids))
            layers = [*states[:num_blocks], last_block[0], states[num_blocks]]
            batches.append(torch.stack([layer[row, last] for layer in layers], dim=1).float().numpy())
        return np.concatenate(batches)

    return run
