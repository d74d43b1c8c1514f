"""Attention over narrow packs on a CPU: two batched matrix products, grouped queries folded into one.

PyTorch's flash attention on a CPU cuts narrow rows into pieces that are too small for its products; whole rows are
faster.

Shape legend: R rows, W width, A query heads, B key heads, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NAME = "drillcore_products"
# Widest row: above it the scores cost more than they save, and SDPA takes over.
WIDEST = 128
# Arguments beside the mask that transformers' SDPA function heeds; it ignores everything else that a model passes.
SPECIAL = ("softcap", "position_bias", "cache")


def products_attention(
    module: torch.nn.Module,
    query_RAWD: Tensor,
    key_RBWD: Tensor,
    value_RBWD: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Attention [R, W, A, D] as transformers calls it in each layer, with an additive mask [R, 1, W, W].

    Wide rows and special cases go to SDPA.
    """
    num_rows, num_heads, width, size = query_RAWD.shape
    if width > WIDEST or any(rest.get(name) is not None for name in SPECIAL):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output: tuple[Tensor, None] = sdpa_attention_forward(
            module, query_RAWD, key_RBWD, value_RBWD, attention_mask, scaling=scaling, **rest
        )
        return output
    num_groups = num_rows * key_RBWD.shape[1]
    queries = query_RAWD.reshape(num_groups, -1, size)
    scores = queries.new_empty((num_rows, num_heads, width, width)).copy_(attention_mask).view(num_groups, -1, width)
    keys = key_RBWD.reshape(num_groups, width, size).transpose(1, 2)
    scores.baddbmm_(queries, keys, alpha=size**-0.5 if scaling is None else scaling)
    mixed = torch.bmm(torch.softmax(scores, -1), value_RBWD.reshape(num_groups, width, -1))
    return mixed.view(num_rows, num_heads, width, -1).transpose(1, 2).contiguous(), None
