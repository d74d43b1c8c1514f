"""The best common practice on `transformers`: sentences sorted by length, base model without LM head, no KV cache,
forward hooks that keep the last token only, right-padded batches of about 2,048 tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from padding import blocks_of, right_padded
from transformers import AutoModel

PACKAGES = ("torch", "transformers")
BATCH_TOKENS = 2048


def load(model: str, threads: int, dtype: str) -> Callable[[list[Any]], Any]:
    """Read the model; the function takes token ids and returns float32 states [sentence, L + 2, hidden]."""
    torch.set_num_threads(threads)
    decoder = AutoModel.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
    num_blocks, hidden_size = decoder.config.num_hidden_layers, decoder.config.hidden_size
    layers: list[torch.Tensor] = []
    last_token: list[torch.Tensor] = []

    def last(hidden: torch.Tensor) -> torch.Tensor:
        return hidden[torch.arange(len(hidden)), last_token[0]]

    def before(module: Any, args: Any, kwargs: Any) -> None:
        layers.append(last(args[0] if args else kwargs["hidden_states"]))

    def after(module: Any, args: Any, output: Any) -> None:
        layers.append(last(output[0] if isinstance(output, tuple) else output))

    blocks = blocks_of(decoder, num_blocks)
    blocks[0].register_forward_pre_hook(before, with_kwargs=True)
    for block in blocks:
        block.register_forward_hook(after)

    def run(sentences: list[Any]) -> Any:
        states = np.empty((len(sentences), num_blocks + 2, hidden_size), np.float32)
        for batch in length_sorted(sentences):
            ids, mask, place = right_padded([sentences[i] for i in batch])
            last_token[:] = [place]
            layers.clear()
            with torch.inference_mode():
                output = decoder(input_ids=ids, attention_mask=mask, use_cache=False)
                layers.append(last(output.last_hidden_state))
                states[batch] = torch.stack(layers, dim=1).float().numpy()
        return states

    return run


def length_sorted(sentences: list[Any]) -> list[list[int]]:
    """Batches of sentence numbers, longest first, of at most BATCH_TOKENS with their padding."""
    order = sorted(range(len(sentences)), key=lambda i: -len(sentences[i]))
    batches: list[list[int]] = []
    for i in order:
        if batches and (len(batches[-1]) + 1) * len(sentences[batches[-1][0]]) <= BATCH_TOKENS:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
