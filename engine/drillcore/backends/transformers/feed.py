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

from drillcore.backends.transformers.flex_attention import PackMask
from drillcore.backends.transformers.masks import AttentionKinds, pack_masks
from drillcore.tokens.batches import Batch

Feed = Callable[[Batch], tuple[dict[str, Any], Tensor]]


class Feeder:
    """Turns batches into arguments of one model's decoder.

    packed: batches are packs, not padded sentences. flex_nodes: nodes of a batch where packs go through FlexAttention
    at fixed shapes; None for an additive dense mask.
    """

    def __init__(
        self, kinds: AttentionKinds, device: torch.device, dtype: torch.dtype, *, packed: bool, flex_nodes: int | None
    ) -> None:
        self._kinds = kinds
        self._device, self._dtype = device, dtype
        self._packed, self._flex_nodes = packed, flex_nodes
        self._masks: dict[tuple[int, str], PackMask] = {}

    def feed(self, batch: Batch) -> tuple[dict[str, Any], Tensor]:
        """Arguments of the decoder, and the nodes to gather."""
        ids_RW, depth_RW, ends_RW = (
            self._to_device(self._filled(array, fill))
            for array, fill in ((batch.token_ids_RW, 0), (batch.position_ids_RW, 0), (batch.subtree_end_RW, -1))
        )
        nodes_G = self._to_device(batch.node_G)
        if not self._packed:
            # In a padded row every real node's subtree ends where the sentence does.
            return {"input_ids": ids_RW, "attention_mask": (depth_RW < ends_RW[:, :1]).long()}, nodes_G
        mask = self._flex_mask(ends_RW, depth_RW) if self._flex_nodes else self._dense_mask(ends_RW, depth_RW)
        return {"input_ids": ids_RW, "position_ids": depth_RW, "attention_mask": mask}, nodes_G

    def _to_device(self, array: NDArray[np.int64]) -> Tensor:
        if self._device.type != "cuda":
            return torch.tensor(array, device=self._device)
        # A copy from pageable memory would wait for the running pass.
        return torch.from_numpy(np.ascontiguousarray(array)).pin_memory().to(self._device, non_blocking=True)

    def _filled(self, array_RW: NDArray[np.int64], fill: int) -> NDArray[np.int64]:
        """With rows of padding up to the fixed number, where shapes are fixed; fill -1: each node its own subtree."""
        if self._flex_nodes is None:
            return array_RW
        num_rows, width = array_RW.shape
        missing = max(1, self._flex_nodes // width) - num_rows
        if missing <= 0:
            return array_RW
        row = np.arange(1, width + 1) if fill < 0 else np.full(width, fill)
        return np.concatenate([array_RW, np.tile(row, (missing, 1))])

    def _dense_mask(self, ends_RW: Tensor, depth_RW: Tensor) -> Any:
        return pack_masks(ends_RW, depth_RW, self._kinds, self._dtype)

    def _flex_mask(self, ends_RW: Tensor, depth_RW: Tensor) -> Any:
        num_rows, width = ends_RW.shape
        masks = {}
        for kind in self._kinds.kinds:
            if (width, kind) not in self._masks:
                window = self._kinds.window if kind == "sliding_attention" else None
                self._masks[width, kind] = PackMask(num_rows, width, window, self._device)
            masks[kind] = self._masks[width, kind].fill(ends_RW, depth_RW)
        return masks if self._kinds.by_kind else next(iter(masks.values()))
