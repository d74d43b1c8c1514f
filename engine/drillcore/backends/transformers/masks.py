"""Attention masks of packs and padded batches, for whatever kinds of attention a model's layers have.

Shape legend: R rows, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class AttentionKinds:
    """What the layers of a model attend to.

    kinds: `full_attention`, `sliding_attention`, or others, as configurations name them. window: nodes a sliding layer
    sees, itself included. by_kind: the model wants a mask for each kind.
    """

    kinds: tuple[str, ...]
    window: int | None

    @property
    def by_kind(self) -> bool:
        """Whether the model takes a dictionary of masks."""
        return len(self.kinds) > 1

    @property
    def packable(self) -> bool:
        """Whether an ancestor mask can say what these layers attend to."""
        return set(self.kinds) <= {"full_attention", "sliding_attention"}


def attention_kinds(config: Any) -> AttentionKinds:
    """Read the kinds from a configuration."""
    text = config.get_text_config(decoder=True)
    window = getattr(text, "sliding_window", None)
    listed = getattr(text, "layer_types", None)
    kinds = listed or (["sliding_attention"] if window else ["full_attention"])
    return AttentionKinds(tuple(sorted(set(kinds))), window)


def ancestors(subtree_end_RW: Tensor, position_RW: Tensor, window: int | None = None) -> Tensor:
    """Which key each query may see, [R, W, W] bool: its ancestors and itself, at most `window` nodes back."""
    node = torch.arange(subtree_end_RW.shape[1], device=subtree_end_RW.device)
    query, key = node[None, :, None], node[None, None, :]
    allowed = (key <= query) & (query < subtree_end_RW[:, None, :])
    if window is not None:
        allowed &= position_RW[:, :, None] - position_RW[:, None, :] < window
    return allowed


def additive(allowed_RWW: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to add to scores, [R, 1, W, W]: 0 where allowed, else the dtype's minimum.

    Eager attention adds its mask, so that booleans would be silently wrong; SDPA takes both.
    """
    mask = torch.zeros(allowed_RWW.shape, dtype=dtype, device=allowed_RWW.device)
    return mask.masked_fill_(~allowed_RWW, torch.finfo(dtype).min)[:, None]


def pack_masks(
    subtree_end_RW: Tensor, position_RW: Tensor, attention: AttentionKinds, dtype: torch.dtype
) -> Tensor | dict[str, Tensor]:
    """The mask, or one for each kind, to give to a model as `attention_mask`."""
    masks = {}
    deepest = int(position_RW.max()) + 1
    for kind in attention.kinds:
        window = attention.window if kind == "sliding_attention" else None
        # A window that no sentence outgrows hides nothing.
        window = window if window is not None and window < deepest else None
        masks[kind] = additive(ancestors(subtree_end_RW, position_RW, window), dtype)
    return masks if attention.by_kind else next(iter(masks.values()))
