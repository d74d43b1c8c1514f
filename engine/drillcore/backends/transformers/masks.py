"""Attention masks of packs, for the kinds of attention that a model's layers have.

Shape legend: R rows, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class AttentionKinds:
    """What the decoder layers of a model attend to.

    kinds: `full_attention`, `sliding_attention`, or others, as configurations name them. window: nodes a sliding layer
    sees, itself included; None without a limit.
    """

    kinds: tuple[str, ...]
    window: int | None

    @property
    def by_kind(self) -> bool:
        """Whether the model takes a dictionary of masks."""
        return len(self.kinds) > 1

    @property
    def packable(self) -> bool:
        """Whether ancestor masks can express what these layers attend to."""
        return set(self.kinds) <= {"full_attention", "sliding_attention"}


def attention_kinds(config: Any) -> AttentionKinds:
    """Read the kinds from a configuration."""
    text = config.get_text_config(decoder=True)
    window = getattr(text, "sliding_window", None)
    listed = getattr(text, "layer_types", None)
    kinds = listed or (["sliding_attention"] if window else ["full_attention"])
    return AttentionKinds(tuple(sorted(set(kinds))), window)


def ancestors(subtree_end_RW: Tensor, position_RW: Tensor, window: int | None = None) -> Tensor:
    """Which key each query may see, [R, W, W] bool: its ancestors and itself, at most `window` nodes back.

    subtree_end_RW: one past the last node of each node's subtree. position_RW: each node's depth in its sentence.

    Two sentences that share their first token, nodes 1 and 2 being siblings:

    >>> ancestors(torch.tensor([[3, 2, 3]]), torch.tensor([[0, 1, 1]])).int().tolist()
    [[[1, 0, 0], [1, 1, 0], [1, 0, 1]]]
    """
    node = torch.arange(subtree_end_RW.shape[1], device=subtree_end_RW.device)
    query, key = node[None, :, None], node[None, None, :]
    allowed = (key <= query) & (query < subtree_end_RW[:, None, :])
    if window is not None:
        allowed &= position_RW[:, :, None] - position_RW[:, None, :] < window
    return allowed


def additive(allowed_RWW: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to add to scores, [R, 1, W, W]: 0 where allowed, else the dtype's minimum.

    Eager attention adds its mask, so a boolean one would be silently wrong; SDPA accepts both.

    >>> additive(torch.tensor([[[True, False], [True, True]]]), torch.float16).tolist()
    [[[[0.0, -65504.0], [0.0, 0.0]]]]
    """
    mask = torch.zeros(allowed_RWW.shape, dtype=dtype, device=allowed_RWW.device)
    return mask.masked_fill_(~allowed_RWW, torch.finfo(dtype).min)[:, None]


def pack_masks(
    subtree_end_RW: Tensor, position_RW: Tensor, attention: AttentionKinds, dtype: torch.dtype
) -> Tensor | dict[str, Tensor]:
    """A model's `attention_mask` for packs: [R, 1, W, W], or a dictionary of them by kind where layers differ."""
    masks = {}
    deepest = int(position_RW.max()) + 1
    for kind in attention.kinds:
        window = attention.window if kind == "sliding_attention" else None
        # A window wider than every sentence hides nothing.
        window = window if window is not None and window < deepest else None
        masks[kind] = additive(ancestors(subtree_end_RW, position_RW, window), dtype)
    return masks if attention.by_kind else next(iter(masks.values()))
