"""Linear layers on a CPU through oneDNN with weights laid out for it once, which no call of PyTorch's own does.

PyTorch hands float32 products to MKL, which is slow on processors that are not Intel's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

NAME = "onednn"


def is_there() -> bool:
    """Whether this PyTorch has oneDNN's prepared linear layers."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class PreparedLinears:
    """The linear layers of a model's blocks; `use` puts the prepared ones in place, `rest` the model's own."""

    def __init__(self, blocks: nn.Module, num_rows: int) -> None:
        """Lay the weights out for batches of `num_rows` nodes; takes as much memory as they do."""
        self._forwards: list[tuple[nn.Linear, Callable[[Tensor], Tensor]]] = [
            # Subclasses (quantised layers, adapters) compute something else.
            (module, prepared(module, num_rows))
            for module in blocks.modules()
            if type(module) is nn.Linear
        ]

    def use(self) -> None:
        """Compute with oneDNN."""
        for module, forward in self._forwards:
            vars(module)["forward"] = forward

    def rest(self) -> None:
        """Compute as PyTorch does."""
        for module, _ in self._forwards:
            vars(module).pop("forward", None)


def prepared(module: nn.Linear, num_rows: int) -> Callable[[Tensor], Tensor]:
    """The layer's forward pass with its weights laid out for inputs of `num_rows` rows."""
    ops: Any = torch.ops.mkldnn
    weight, bias, width = ops._reorder_linear_weight(module.weight.detach(), num_rows), module.bias, module.out_features

    def forward(states: Tensor) -> Tensor:
        flat = states.reshape(-1, states.shape[-1])
        found: Tensor = ops._linear_pointwise(flat, weight, bias, "none", [], "")
        return found.view(*states.shape[:-1], width)

    return forward
