"""FlexAttention over packs: sparse masks computed from the subtree intervals, at few fixed shapes.

No mask is evaluated. A key tile j before a query tile i holds an ancestor of some query if and only if its largest
subtree end lies beyond the first node of i, and only ancestors of all queries if and only if its smallest subtree end
lies at or beyond the end of i.

Shape legend: R rows, W width, N tiles of a row, B nodes of a tile, A heads, D head size.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

NAME = "drillcore_packs"
# Nodes of a tile: FlexAttention skips, keeps or masks tiles of queries by keys (its BlockMask).
TILE = 128
# Shapes that one model may be compiled for, and all together: rows, width, heads, head size, dtype, kind of layer. Past
# the limit PyTorch would silently fall back to a path that holds all scores.
SHAPES, ALL_SHAPES = 256, 4096
_compiled: Any = None


def set_up() -> None:
    """Let PyTorch compile attention, for as many shapes as models and batches have."""
    global _compiled
    limits: Any = torch._dynamo.config
    limits.fail_on_recompile_limit_hit = True
    limits.recompile_limit = max(limits.recompile_limit, SHAPES)
    limits.accumulated_recompile_limit = max(limits.accumulated_recompile_limit, ALL_SHAPES)
    if _compiled is None:
        _compiled = torch.compile(flex_attention, dynamic=False)


def refusals() -> tuple[type[Exception], ...]:
    """What PyTorch raises past the limit of shapes: an Exception and nothing more special."""
    dynamo = sys.modules.get("torch._dynamo.exc")
    return () if dynamo is None else (dynamo.FailOnRecompileLimitHit,)


def forget() -> None:
    """Forget what was compiled for a model that is closed, so that any number of models may follow it."""
    if _compiled is not None:
        torch._dynamo.reset()


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
    """Attention [R, W, A, D] as transformers calls it in each layer; grouped queries share keys and values."""

    cap = softcap or 1.0
    if query_RAWD.device.type == "cpu":
        # Inside a compiled layer, PyTorch's attention on a CPU misreads views that begin inside a tensor.
        query_RAWD, key_RAWD, value_RAWD = (x.contiguous() for x in (query_RAWD, key_RAWD, value_RAWD))

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
    """The mask of one shape; its buffers stay in place, so that nothing is compiled again for the next batch."""

    def __init__(self, num_rows: int, width: int, window: int | None, device: torch.device) -> None:
        if width % TILE:
            raise ValueError(f"packs are {width} nodes wide, which is not a multiple of {TILE}")
        self._shape, self._window = (num_rows, width), window
        reach = window or width
        ends = torch.arange(1, width + 1, device=device, dtype=torch.int32).repeat(num_rows, 1)
        depths = torch.zeros(num_rows, width, device=device, dtype=torch.int32)
        self._ends_RW, self._depth_RW = ends, depths

        def ancestor(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (key <= query) & (query < ends[row, key])

        def near_ancestor(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return ancestor(row, head, query, key) & (depths[row, query] - depths[row, key] < reach)

        self._mask_mod = ancestor if window is None else near_ancestor

    def hold(self, ends_RW: Tensor, depth_RW: Tensor) -> None:
        """Let masks of this shape be those of a batch, whose own was made before."""
        self._ends_RW.copy_(ends_RW)
        self._depth_RW.copy_(depth_RW)

    def fill(self, ends_RW: Tensor, depth_RW: Tensor) -> BlockMask:
        """The mask of a batch, from its subtree ends and depths [R, W]."""
        self.hold(ends_RW, depth_RW)
        some_RNN, all_RNN = interval_tiles(self._ends_RW)
        if self._window is not None:
            # A window cuts through tiles that hold only ancestors.
            all_RNN = torch.zeros_like(all_RNN)
        partial, whole = some_RNN & ~all_RNN, all_RNN
        width = self._shape[1]
        return BlockMask.from_kv_blocks(
            *_listed(partial),
            *_listed(whole),
            BLOCK_SIZE=TILE,
            mask_mod=self._mask_mod,
            seq_lengths=(width, width),
            compute_q_blocks=False,
        )


def interval_tiles(ends_RW: Tensor) -> tuple[Tensor, Tensor]:
    """Two masks [R, N, N] by query tile and key tile: some key is an ancestor of some query; every key of every query.

    ends_RW: subtree ends, W a multiple of `TILE`. A tile counts as holding ancestors of its own queries.

    >>> some, every = interval_tiles(torch.full((1, 2 * TILE), 2 * TILE))  # one sentence of two tiles
    >>> some.int().tolist(), every.int().tolist()
    ([[[1, 0], [1, 1]]], [[[0, 0], [1, 0]]])
    """
    num_rows, width = ends_RW.shape
    ends_RNB = ends_RW.view(num_rows, width // TILE, TILE)
    highest, lowest = ends_RNB.amax(-1), ends_RNB.amin(-1)
    tile = torch.arange(width // TILE, device=ends_RW.device)
    before = tile[None, :, None] > tile[None, None, :]
    same = tile[None, :, None] == tile[None, None, :]
    start = (tile * TILE)[None, :, None]
    some = (before & (highest[:, None, :] > start)) | same
    every = before & (lowest[:, None, :] >= start + TILE)
    return some, every


def _listed(chosen_RNN: Tensor) -> tuple[Tensor, Tensor]:
    """Counts [R, 1, N] and indices [R, 1, N, N], the chosen tiles first, as BlockMask expects them."""
    counts = chosen_RNN.sum(-1, dtype=torch.int32)[:, None]
    order = torch.argsort(chosen_RNN.to(torch.int8), dim=-1, descending=True, stable=True).to(torch.int32)[:, None]
    return counts.contiguous(), order.contiguous()
