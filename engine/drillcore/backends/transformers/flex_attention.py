"""FlexAttention over packs: block masks straight from the subtree intervals, at few fixed shapes.

The interval tree needs no mask evaluation: before query block i, key block j holds an ancestor of some query iff its
largest subtree end lies beyond i's first node, and only ancestors of all iff its smallest lies at or beyond i's end.

Shape legend: R rows, W width, N blocks of a row, A heads, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

NAME = "drillcore_packs"
BLOCK = 128
_compiled: Any = None


def register() -> None:
    """Make the attention function known to transformers under `NAME`."""
    from transformers import AttentionInterface

    global _compiled
    if _compiled is None:
        # Past the limit PyTorch would fall back to a slow path without a word.
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        _compiled = torch.compile(flex_attention, dynamic=False)
        AttentionInterface.register(NAME, packs_attention)


def packs_attention(
    module: torch.nn.Module,
    query_RAWD: Tensor,
    key_RAWD: Tensor,
    value_RAWD: Tensor,
    attention_mask: BlockMask,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in each layer; keys and values are not repeated for grouped queries."""

    cap = softcap or 1.0

    def capped(score: Tensor, *_: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    out = _compiled(
        query_RAWD,
        key_RAWD,
        value_RAWD,
        score_mod=capped if softcap is not None else None,
        block_mask=attention_mask,
        scale=scaling,
        enable_gqa=query_RAWD.shape[1] != key_RAWD.shape[1],
    )
    return out.transpose(1, 2).contiguous(), None


class PackMask:
    """The block mask of one shape: its buffers stay where they are, so that nothing is compiled again for a batch."""

    def __init__(self, num_rows: int, width: int, window: int | None, device: torch.device) -> None:
        if width % BLOCK:
            raise ValueError(f"packs of {width} nodes are no multiple of {BLOCK}")
        self._shape, self._window, reach = (num_rows, width), window, window or width
        ends = torch.arange(1, width + 1, device=device, dtype=torch.int32).repeat(num_rows, 1)
        depths = torch.zeros(num_rows, width, device=device, dtype=torch.int32)
        self._ends_RW, self._depth_RW = ends, depths

        def ancestor(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (key <= query) & (query < ends[row, key])

        def near_ancestor(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return ancestor(row, head, query, key) & (depths[row, query] - depths[row, key] < reach)

        self._mask_mod = ancestor if window is None else near_ancestor

    def fill(self, ends_RW: Tensor, depth_RW: Tensor) -> BlockMask:
        """The block mask of a batch."""
        self._ends_RW.copy_(ends_RW)
        self._depth_RW.copy_(depth_RW)
        some_RNN, all_RNN = interval_blocks(self._ends_RW)
        if self._window is not None:
            # A window cuts through blocks that hold only ancestors.
            all_RNN = torch.zeros_like(all_RNN)
        partial, whole = some_RNN & ~all_RNN, all_RNN
        width = self._shape[1]
        return BlockMask.from_kv_blocks(
            *_listed(partial), *_listed(whole),
            BLOCK_SIZE=BLOCK, mask_mod=self._mask_mod, seq_lengths=(width, width), compute_q_blocks=False,
        )  # fmt: skip


def interval_blocks(ends_RW: Tensor) -> tuple[Tensor, Tensor]:
    """For query block i and key block j: whether some key is some query's ancestor, and whether every one is of all."""
    num_rows, width = ends_RW.shape
    ends_RNB = ends_RW.view(num_rows, width // BLOCK, BLOCK)
    highest, lowest = ends_RNB.amax(-1), ends_RNB.amin(-1)
    block = torch.arange(width // BLOCK, device=ends_RW.device)
    before = block[None, :, None] > block[None, None, :]
    same = block[None, :, None] == block[None, None, :]
    start = (block * BLOCK)[None, :, None]
    some = (before & (highest[:, None, :] > start)) | same
    every = before & (lowest[:, None, :] >= start + BLOCK)
    return some, every


def _listed(chosen_RNN: Tensor) -> tuple[Tensor, Tensor]:
    """Counts [R, 1, N] and indices [R, 1, N, N], the chosen blocks first, as BlockMask wants them."""
    counts = chosen_RNN.sum(-1, dtype=torch.int32)[:, None]
    order = torch.argsort(chosen_RNN.to(torch.int8), dim=-1, descending=True, stable=True).to(torch.int32)[:, None]
    return counts.contiguous(), order.contiguous()
