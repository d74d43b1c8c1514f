"""The peers that run without anything to install, on the same weights in the same process."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from drillcore.tokens.sequences import Sequences

LOOP_BATCH, PADDED_TOKENS = 32, 16_384


def _padded(
    tokens: Sequences, rows: np.ndarray, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    lengths = tokens.lengths_N[rows]
    ids = np.zeros((len(rows), int(lengths.max())), np.int64)
    for place, i in enumerate(rows.tolist()):
        ids[place, : lengths[place]] = tokens[i]
    mask = np.arange(ids.shape[1]) < lengths[:, None]
    return (
        torch.tensor(ids, device=device),
        torch.tensor(mask.astype(np.int64), device=device),
        torch.tensor(lengths - 1, device=device),
    )


def hf_loop(backend: Any, tokens: Sequences) -> None:
    """As most people write it: the whole model, 32 sentences at a time, output_hidden_states=True."""
    loaded = backend._loaded
    loaded.causal.set_attn_implementation("sdpa")
    with torch.no_grad():
        for start in range(0, len(tokens), LOOP_BATCH):
            rows = np.arange(start, min(start + LOOP_BATCH, len(tokens)))
            ids, mask, last = _padded(tokens, rows, loaded.device)
            states = loaded.causal(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
            at = torch.arange(len(ids), device=loaded.device)
            torch.stack([s[at, last] for s in states], dim=1).float().cpu()
    loaded.causal.set_attn_implementation(backend._numerics["attention"])


def hf_padded(backend: Any, tokens: Sequences) -> None:
    """The best common practice: sorted by length, base model, no cache, hooks that keep the last token."""
    loaded, kept = backend._loaded, []
    loaded.causal.set_attn_implementation("sdpa")
    place: list[Any] = [None, None]

    def hook(module: Any, args: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        kept.append(hidden[place[0], place[1]])

    handles = [b.register_forward_hook(hook) for b in loaded.blocks]
    order = np.argsort(-tokens.lengths_N, kind="stable")
    low = 0
    with torch.inference_mode():
        while low < len(order):
            count = max(1, PADDED_TOKENS // int(tokens.lengths_N[order[low]]))
            ids, mask, last = _padded(tokens, order[low : low + count], loaded.device)
            place[:] = [torch.arange(len(ids), device=loaded.device), last]
            kept.clear()
            output = loaded.decoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            torch.stack([*kept, output[place[0], last]], dim=1).float().cpu()
            low += count
    for handle in handles:
        handle.remove()
    loaded.causal.set_attn_implementation(backend._numerics["attention"])


PEERS = {"hf_loop": hf_loop, "hf_padded": hf_padded}
