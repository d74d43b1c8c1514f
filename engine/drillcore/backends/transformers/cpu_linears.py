"""Linear layers on a CPU through oneDNN, with weights laid out for it once; no public call of PyTorch does that.

PyTorch hands float32 products to MKL, which is slow on processors that are not Intel's, and lays bfloat16 weights out
in every call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

NAME = "onednn_pieces"
# oneDNN adds up all products of a row in one sum; four sums of a quarter each round as little as PyTorch does.
LONG, PIECES = 1024, 4

# Dtypes whose linear layers go through oneDNN.
DTYPES = (torch.float32, torch.bfloat16)

Forward = Callable[[Tensor], Tensor]


def is_available() -> bool:
    """Whether this PyTorch has oneDNN's prepared linear layers."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def are_worth(decoder_layers: nn.Module, dtype: torch.dtype, memory_bytes: int) -> bool:
    """Whether to lay out these layers' weights; a rule, not a measurement: two runs must give the same bytes.

    memory_bytes: of the worker.
    """
    weight_bytes = sum(p.numel() * p.element_size() for p in decoder_layers.parameters())
    return dtype in DTYPES and is_available() and 8 * weight_bytes < memory_bytes


class PreparedLinears:
    """The linear modules inside the decoder layers; `use` puts the prepared ones in place, `rest` the model's own."""

    def __init__(self, decoder_layers: nn.Module, num_rows: int) -> None:
        """Lay the weights out for batches of `num_rows` nodes; takes as much memory as the weights do."""
        self._forwards: list[tuple[nn.Module, Forward]] = []
        inside: set[nn.Module] = set()
        for module in decoder_layers.modules():
            if module in inside:
                continue
            if is_gated_mlp(module):
                self._forwards.append((module, _gated_in_pieces(module, num_rows)))
                inside.update(module.modules())
            elif is_plain_linear(module):
                self._forwards.append((module, _in_pieces(module.weight, module.bias, num_rows)))

    def use(self) -> None:
        """Compute with oneDNN."""
        for module, forward in self._forwards:
            vars(module)["forward"] = forward

    def rest(self) -> None:
        """Compute as PyTorch does."""
        for module, _ in self._forwards:
            vars(module).pop("forward", None)


def is_plain_linear(module: object) -> TypeGuard[nn.Linear]:
    """Whether a module is PyTorch's linear layer with weights that are numbers: codes are tensors of other classes.

    One that computes in a way of its own, with quantised activations say, is not.

    >>> is_plain_linear(nn.Linear(2, 2)), is_plain_linear(nn.ReLU())
    (True, False)
    """
    return type(module) is nn.Linear and type(module.weight) is nn.Parameter and "forward" not in vars(module)


def is_gated_mlp(module: nn.Module) -> bool:
    """Whether a module computes down(act(gate(x)) * up(x)) with linear layers of these names, and nothing else."""
    gated: Any = module
    linears = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    # Subclasses of nn.Linear (quantised layers, adapters) compute something else.
    if not all(map(is_plain_linear, linears)) or not callable(getattr(module, "act_fn", None)):
        return False
    states = torch.randn(4, gated.gate_proj.in_features, generator=torch.Generator().manual_seed(0))
    states = states.to(gated.gate_proj.weight.dtype)
    with torch.inference_mode():
        wanted = gated.down_proj(gated.act_fn(gated.gate_proj(states)) * gated.up_proj(states))
        try:
            result = module.forward(states)
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
            return False
    return isinstance(result, Tensor) and result.shape == wanted.shape and torch.allclose(result, wanted)


def _gated_in_pieces(mlp: Any, num_rows: int) -> Forward:
    """A gated MLP's forward pass, a piece of its inner width at a time: intermediate values stay in the CPU's cache."""
    downs = _columns(mlp.down_proj.weight, mlp.down_proj.bias)
    pieces = zip(_rows(mlp.gate_proj, len(downs)), _rows(mlp.up_proj, len(downs)), downs, strict=True)
    ways = [[_in_pieces(weight, bias, num_rows) for weight, bias in piece] for piece in pieces]

    def forward(states: Tensor) -> Tensor:
        return _total(down(mlp.act_fn(gate(states)).mul_(up(states))) for gate, up, down in ways)

    return forward


def _in_pieces(weight: Tensor, bias: Tensor | None, num_rows: int) -> Forward:
    """A linear layer's forward pass; many inputs are cut into pieces, whose products are added."""
    ways = [prepared(*piece, num_rows) for piece in _columns(weight, bias)]
    if len(ways) == 1:
        return ways[0]

    def forward(states: Tensor) -> Tensor:
        parts = states.tensor_split(PIECES, dim=-1)
        return _total(way(part) for way, part in zip(ways, parts, strict=True))

    return forward


def _rows(linear: nn.Linear, count: int) -> list[tuple[Tensor, Tensor | None]]:
    """Weights and biases of a layer, its outputs cut into pieces."""
    biases = [None] * count if linear.bias is None else linear.bias.tensor_split(count)
    return list(zip(linear.weight.tensor_split(count), biases, strict=True))


def _columns(weight: Tensor, bias: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
    """Weights of a layer, many inputs cut into pieces; the bias goes with the first piece.

    Below float32 the sum of a row is exact enough, and each piece would be rounded.
    """
    is_cut = weight.shape[1] >= LONG and weight.dtype == torch.float32
    pieces = weight.tensor_split(PIECES if is_cut else 1, dim=1)
    return [(piece, None if i else bias) for i, piece in enumerate(pieces)]


def _total(parts: Iterator[Tensor]) -> Tensor:
    """The sum of tensors, added into the first one."""
    total = next(parts)
    for part in parts:
        total.add_(part)
    return total


def prepared(weight: Tensor, bias: Tensor | None, num_rows: int) -> Callable[[Tensor], Tensor]:
    """A linear layer with its weights laid out for inputs of `num_rows` rows, in one product."""
    if not weight.numel():
        return partial(nn.functional.linear, weight=weight, bias=bias)  # oneDNN has no product with nothing
    ops: Any = torch.ops.mkldnn
    weight, bias = weight.detach(), None if bias is None else bias.detach()
    laid_out, width = ops._reorder_linear_weight(weight.contiguous(), num_rows), weight.shape[0]

    def forward(states: Tensor) -> Tensor:
        flat = states.reshape(-1, states.shape[-1])
        products: Tensor = ops._linear_pointwise(flat, laid_out, bias, "none", [], "")
        return products.view(*states.shape[:-1], width)

    return forward
