"""Attention over wide packs on a CPU: a tile of queries at a time, against its ancestors and itself only.

A dense mask makes each node pay for all nodes of its pack. Here it pays for its own sentence, however wide the pack.

Shape legend: R rows, W width, A query heads, B key heads, D head size, Q queries of a tile, K keys of a tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drillcore.backends.transformers.cpu_attention import SPECIAL, WIDEST, products_attention

NAME = "drillcore_trees"
# Queries of a tile: fewer are more calls, more share fewer ancestors.
TILE = 64


@dataclass(frozen=True)
class Tile:
    """Queries `low` to `high` - 1 of a row.

    keys_K: the columns that they attend to, ascending; None for all columns before `high`. num_whole: that many of the
    first are seen by every query. mask: what to add to the scores of the others, [Q, K - num_whole].
    """

    row: int
    low: int
    high: int
    keys_K: Tensor | None
    num_whole: int
    mask: Tensor


class TreeMask(Tensor):
    """What a model's layers are handed as a mask of shape [R, 1, W, W]; it holds the tiles and takes no memory itself.

    A slice or a copy of it has no tiles, and attention refuses it.
    """

    tiles: tuple[Tile, ...] | None = None

    @staticmethod
    def of(
        subtree_end_RW: NDArray[np.int64], depth_RW: NDArray[np.int64], window: int | None, dtype: torch.dtype
    ) -> TreeMask:
        """The mask of a batch. window: nodes that a query sees at most, itself included."""
        num_rows, width = subtree_end_RW.shape
        mask = torch.zeros(1, dtype=dtype).expand(num_rows, 1, width, width).as_subclass(TreeMask)
        mask.tiles = tuple(
            tile for row in range(num_rows) for tile in _tiles(row, subtree_end_RW[row], depth_RW[row], window, dtype)
        )
        return mask


def _tiles(
    row: int, ends_W: NDArray[np.int64], depth_W: NDArray[np.int64], window: int | None, dtype: torch.dtype
) -> Iterator[Tile]:
    column_W = np.arange(len(ends_W))
    for low in range(0, len(ends_W), TILE):
        high = min(len(ends_W), low + TILE)
        query_Q = column_W[low:high, None]
        # Ancestors of the first query: no other column before the tile is an ancestor of any of its queries.
        above = np.flatnonzero(ends_W[:low] > low)
        is_whole = ends_W[above] >= high
        if window is not None:
            near = depth_W[above] > depth_W[low:high].min() - window
            is_whole &= depth_W[above] > depth_W[low:high].max() - window
            above, is_whole = above[near], is_whole[near]
        whole = above[is_whole]
        others = np.concatenate([above[~is_whole], column_W[low:high]])
        seen = (others <= query_Q) & (query_Q < ends_W[others])
        if window is not None:
            seen &= depth_W[low:high, None] - depth_W[others] < window
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(torch.from_numpy(~seen), torch.finfo(dtype).min)
        keys_K = np.concatenate([whole, others])
        everything = len(keys_K) == high and bool((keys_K == column_W[:high]).all())
        yield Tile(row, low, high, None if everything else torch.from_numpy(keys_K), len(whole), mask)


def trees_attention(
    module: torch.nn.Module,
    query_RAWD: Tensor,
    key_RBWD: Tensor,
    value_RBWD: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Attention [R, W, A, D] as transformers calls it in each layer; a dense mask [R, 1, W, W] goes another way.

    Raises ValueError where the layer does something to scores that tiles do not, or the model has changed the mask.
    """
    if not isinstance(attention_mask, TreeMask):
        if query_RAWD.dtype == torch.float32 or query_RAWD.shape[2] > WIDEST:
            return products_attention(module, query_RAWD, key_RBWD, value_RBWD, attention_mask, scaling, **rest)
        # In float32 whatever the model computes in: the scores are few, and SDPA keeps them so too.
        wide = query_RAWD.float(), key_RBWD.float(), value_RBWD.float()
        mixed, _ = products_attention(module, wide[0], wide[1], wide[2], attention_mask, scaling, **rest)
        return mixed.to(query_RAWD.dtype), None
    special = [name for name in SPECIAL if rest.get(name) is not None]
    if special or attention_mask.tiles is None or key_RBWD.shape[2] != query_RAWD.shape[2]:
        raise ValueError(f"tiles cannot attend here ({', '.join(special) or 'the mask or the keys are others'})")
    num_rows, num_heads, width, _ = query_RAWD.shape
    mixed_RWAD = value_RBWD.new_empty((num_rows, width, num_heads, value_RBWD.shape[-1]))
    grouped = key_RBWD.shape[1] != num_heads
    for tile in attention_mask.tiles:
        keys, values = (_columns(x[tile.row : tile.row + 1], tile) for x in (key_RBWD, value_RBWD))
        mask = torch.nn.functional.pad(tile.mask, (tile.num_whole, 0))[None, None]
        mixed = torch.nn.functional.scaled_dot_product_attention(
            query_RAWD[tile.row : tile.row + 1, :, tile.low : tile.high],
            keys,
            values,
            attn_mask=mask,
            scale=scaling,
            enable_gqa=grouped,
        )
        mixed_RWAD[tile.row, tile.low : tile.high] = mixed[0].transpose(0, 1)
    return mixed_RWAD, None


def _columns(x_1BWD: Tensor, tile: Tile) -> Tensor:
    return x_1BWD[:, :, : tile.high] if tile.keys_K is None else x_1BWD.index_select(2, tile.keys_K)
