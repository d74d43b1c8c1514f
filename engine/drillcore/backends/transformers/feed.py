"""From a batch to the arguments of a decoder: ids, positions and masks on the device.

Shape legend: R rows, W width, G gathered nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drillcore.backends.transformers import cpu_trees as trees
from drillcore.backends.transformers import flex_attention as flex
from drillcore.backends.transformers.cpu_attention import WIDEST
from drillcore.backends.transformers.flex_attention import PackMask
from drillcore.backends.transformers.masks import AttentionKinds, pack_masks
from drillcore.tokens.batches import Batch


class Feeder:
    """Turns batches into arguments of one model's decoder.

    dtype: of states and masks. packed: batches are packs, not padded sentences. attention: the name of the function
    that reads their masks.
    """

    def __init__(
        self, kinds: AttentionKinds, device: torch.device, dtype: torch.dtype, *, packed: bool, attention: str
    ) -> None:
        self._kinds = kinds
        self._device, self.dtype = device, dtype
        self._packed, self._attention = packed, attention
        self._masks: dict[tuple[int, int, str], PackMask] = {}
        self._fed: tuple[Tensor, Tensor] | None = None

    def feed(self, batch: Batch) -> dict[str, Any]:
        """Arguments of the decoder."""
        ids_RW, depth_RW, ends_RW = (
            self.to_device(array) for array in (batch.token_ids_RW, batch.position_ids_RW, batch.subtree_end_RW)
        )
        if not self._packed:
            # In a padded row every real node's subtree ends where the sentence does.
            return {"input_ids": ids_RW, "attention_mask": (depth_RW < ends_RW[:, :1]).long()}
        if self._attention == flex.NAME:
            mask = self._flex_mask(ends_RW, depth_RW)
            self._fed = ends_RW, depth_RW
        elif self._attention == trees.NAME and ids_RW.shape[1] > WIDEST:
            mask = self._tree_mask(batch)
        else:
            mask = pack_masks(ends_RW, depth_RW, self._kinds, self.dtype)
        return {"input_ids": ids_RW, "position_ids": depth_RW, "attention_mask": mask}

    def kept(self) -> Callable[[], None]:
        """Puts back, when called, what masks of this shape say of the batch that was fed last: batches share it."""
        if self._fed is None:
            return _nothing
        fed = self._fed

        def refill() -> None:
            self._fed = fed
            for (*shape, _), mask in self._masks.items():
                if tuple(shape) == tuple(fed[0].shape):
                    mask.hold(*fed)

        return refill

    def to_device(self, array: NDArray[np.int64]) -> Tensor:
        """An array on the device, copied while a pass runs."""
        if self._device.type != "cuda":
            return torch.tensor(array, device=self._device)
        # A copy from pageable memory would wait for the running pass.
        return torch.from_numpy(np.ascontiguousarray(array)).pin_memory().to(self._device, non_blocking=True)

    def _tree_mask(self, batch: Batch) -> Any:
        return self._by_kind(
            lambda _, window: trees.TreeMask.of(batch.subtree_end_RW, batch.position_ids_RW, window, self.dtype)
        )

    def _flex_mask(self, ends_RW: Tensor, depth_RW: Tensor) -> Any:
        num_rows, width = ends_RW.shape

        def mask(kind: str, window: int | None) -> Any:
            key = (num_rows, width, kind)
            if key not in self._masks:
                self._masks[key] = PackMask(num_rows, width, window, self._device)
            return self._masks[key].fill(ends_RW, depth_RW)

        return self._by_kind(mask)

    def _by_kind(self, mask: Callable[[str, int | None], Any]) -> Any:
        """One mask, or a dictionary of them where the model's layers differ."""
        kinds, window = self._kinds, self._kinds.window
        masks = {kind: mask(kind, window if kind == "sliding_attention" else None) for kind in kinds.kinds}
        return masks if kinds.by_kind else next(iter(masks.values()))


def _nothing() -> None:
    """Put back what batches do not share."""
