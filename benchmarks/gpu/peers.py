"""The peers that run without anything to install, on the same weights in the same process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from drillcore.tokens.sequences import Sequences

LOOP_BATCH, PADDED_TOKENS = 32, 16_384


@contextmanager
def plain_attention(backend: Any) -> Iterator[Any]:
    """The backend's model as transformers runs it by default; what drillcore changes is put back at the end."""
    with backend._as_transformers():
        yield backend._loaded


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
    with plain_attention(backend) as loaded, torch.no_grad():
        for start in range(0, len(tokens), LOOP_BATCH):
            rows = np.arange(start, min(start + LOOP_BATCH, len(tokens)))
            ids, mask, last = _padded(tokens, rows, loaded.device)
            states = loaded.causal(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
            at = torch.arange(len(ids), device=loaded.device)
            torch.stack([s[at, last] for s in states], dim=1).float().cpu()


def hf_padded(backend: Any, tokens: Sequences) -> None:
    """The best common practice: sorted by length, base model, no cache, hooks that keep the last token."""
    states: list[torch.Tensor] = []
    place: list[Any] = [None, None]

    def hook(module: Any, args: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        states.append(hidden[place[0], place[1]])

    order = np.argsort(-tokens.lengths_N, kind="stable")
    low = 0
    with plain_attention(backend) as loaded, torch.inference_mode():
        handles = [layer.register_forward_hook(hook) for layer in loaded.decoder_layers]
        while low < len(order):
            count = max(1, PADDED_TOKENS // int(tokens.lengths_N[order[low]]))
            ids, mask, last = _padded(tokens, order[low : low + count], loaded.device)
            place[:] = [torch.arange(len(ids), device=loaded.device), last]
            states.clear()
            output = loaded.decoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            torch.stack([*states, output[place[0], last]], dim=1).float().cpu()
            low += count
        for handle in handles:
            handle.remove()


PEERS = {"hf_loop": hf_loop, "hf_padded": hf_padded}


def share_for(peer: str, tokens: Sequences) -> Sequences:
    """The first sentences, as many as a peer's rate needs: neither gains from more, and the loop is slow."""
    enough = min(512, len(tokens))
    return tokens.slice(0, enough if peer == "hf_loop" else max(enough, len(tokens) // 4))
