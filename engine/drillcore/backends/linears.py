"""Linear layers on a CPU through oneDNN with weights laid out for it once, which no call of PyTorch's own does.

PyTorch hands float32 products to MKL, which is slow on processors that are not Intel's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

NAME = "onednn_pieces"
# oneDNN adds up all products of a row in one go; four sums of a quarter each round as little as PyTorch's own.
LONG, PIECES = 1024, 4


def is_there() -> bool:
    """Whether this PyTorch has oneDNN's prepared linear layers."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class PreparedLinears:
    """The linear layers of a model's blocks; `use` puts the prepared ones in place, `rest` the model's own."""

    def __init__(self, blocks: nn.Module, num_rows: int) -> None:
        """Lay the weights out for batches of `num_rows` nodes; takes as much memory as they do."""
        self._forwards: list[tuple[nn.Linear, Callable[[Tensor], Tensor]]] = [
            # Subclasses (quantised layers, adapters) compute something else.
            (module, _in_pieces(module, num_rows))
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


def _in_pieces(module: nn.Linear, num_rows: int) -> Callable[[Tensor], Tensor]:
    """The layer's forward pass; where its inputs are many they are cut into pieces, whose products are added."""
    bias = None if module.bias is None else module.bias.detach()
    if module.in_features < LONG:
        return prepared(module.weight.detach(), bias, num_rows)
    weights = module.weight.detach().tensor_split(PIECES, dim=1)
    ways = [prepared(weight, None if i else bias, num_rows) for i, weight in enumerate(weights)]

    def forward(states: Tensor) -> Tensor:
        parts = states.tensor_split(PIECES, dim=-1)
        found = ways[0](parts[0])
        for way, part in zip(ways[1:], parts[1:], strict=True):
            found.add_(way(part))
        return found

    return forward


def prepared(weight: Tensor, bias: Tensor | None, num_rows: int) -> Callable[[Tensor], Tensor]:
    """A linear layer with its weights laid out for inputs of `num_rows` rows, in one product."""
    ops: Any = torch.ops.mkldnn
    laid_out, width = ops._reorder_linear_weight(weight.contiguous(), num_rows), weight.shape[0]

    def forward(states: Tensor) -> Tensor:
        flat = states.reshape(-1, states.shape[-1])
        found: Tensor = ops._linear_pointwise(flat, laid_out, bias, "none", [], "")
        return found.view(*states.shape[:-1], width)

    return forward
