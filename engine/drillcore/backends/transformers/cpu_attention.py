"""Attention over narrow packs on a CPU: two batched matrix products, grouped queries folded into one.

PyTorch's flash attention on a CPU cuts narrow rows into pieces too small for its products; whole rows run faster there.

Shape legend: R rows, W width, A query heads, B key heads, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NAME = "drillcore_products"
# Beyond, the scores of a row are more than they save; SDPA takes over.
WIDEST = 128
# What transformers' SDPA function minds beside the mask; the rest of what a model passes on it ignores.
SPECIAL = ("softcap", "position_bias", "cache")


def register() -> None:
    """Make the attention function known to transformers under `NAME`."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, products_attention)


def products_attention(
    module: torch.nn.Module,
    query_RAWD: Tensor,
    key_RBWD: Tensor,
    value_RBWD: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in each layer, with a mask that is added; wide rows and special cases go to SDPA."""
    num_rows, num_heads, width, size = query_RAWD.shape
    if width > WIDEST or any(rest.get(name) is not None for name in SPECIAL):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query_RAWD, key_RBWD, value_RBWD, attention_mask, scaling=scaling, **rest
        )
        return found
    num_groups = num_rows * key_RBWD.shape[1]
    queries = query_RAWD.reshape(num_groups, -1, size)
    scores = queries.new_empty((num_rows, num_heads, width, width)).copy_(attention_mask).view(num_groups, -1, width)
    keys = key_RBWD.reshape(num_groups, width, size).transpose(1, 2)
    scores.baddbmm_(queries, keys, alpha=size**-0.5 if scaling is None else scaling)
    mixed = torch.bmm(torch.softmax(scores, -1), value_RBWD.reshape(num_groups, width, -1))
    return mixed.view(num_rows, num_heads, width, -1).transpose(1, 2).contiguous(), None
