"""Linear layers that share their input as one product: query, key and value; gate and up.

Shape legend: R rows, W width, H inputs, O outputs of one layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from drillcore.backends.transformers.cpu_linears import is_plain_linear

# In the numerics: a wider product may be added up in another order.
NAME = "siblings"


class MergedLinears:
    """Groups of linear layers of one module that are given the same states; `use` merges them, `rest` takes them apart.

    The layers' weights become parts of the merged ones, so that they take no more memory. Only plain `nn.Linear`s are
    merged, which the model calls one after the other with one tensor in a short sentence. Raises ValueError where there
    are none.
    """

    def __init__(self, decoder: nn.Module, decoder_layers: Iterable[nn.Module], ids_T: Tensor) -> None:
        layers = list(decoder_layers)
        self._groups = [_Group(*found) for found in _siblings(decoder, layers, ids_T)]
        if not self._groups:
            raise ValueError("no linear layers share their input")

    def use(self) -> None:
        """Compute merged products."""
        for group in self._groups:
            group.use()

    def rest(self) -> None:
        """Compute each product for itself, as transformers does."""
        for group in self._groups:
            group.rest()


class _Group:
    """Linear layers of one module, by name, and what takes their places."""

    def __init__(self, parent: nn.Module, linears: dict[str, nn.Linear]) -> None:
        self._parent, self._linears = parent, linears
        own = list(linears.values())
        self._merged = nn.Linear(own[0].in_features, sum(m.out_features for m in own), bias=False, device="meta")
        for name in self._tensors():
            whole = torch.cat([getattr(m, name).detach() for m in own])
            setattr(self._merged, name, nn.Parameter(whole, requires_grad=False))
        handed = _Handed()
        self._stand_ins = [
            _First(self._merged, [m.out_features for m in own], handed),
            *(_Later(m, i, handed, is_last=i == len(own) - 2) for i, m in enumerate(own[1:])),
        ]

    def _tensors(self) -> list[str]:
        return [name for name in ("weight", "bias") if getattr(next(iter(self._linears.values())), name) is not None]

    def use(self) -> None:
        """Put the merged layer in place; the weights of the others become parts of it."""
        for name, stand_in in zip(self._linears, self._stand_ins, strict=True):
            self._parent._modules[name] = stand_in
        own = list(self._linears.values())
        for name in self._tensors():
            # Anew each time: a run in another precision leaves each weight a tensor of its own, of the same values.
            parts = getattr(self._merged, name).data.split([m.out_features for m in own])
            for linear, part in zip(own, parts, strict=True):
                getattr(linear, name).data = part

    def rest(self) -> None:
        """Put the layers themselves in place."""
        self._parent._modules.update(self._linears)


class _Handed:
    """Products that were computed already, and of what."""

    def __init__(self) -> None:
        self.states: Tensor | None = None
        self.products: tuple[Tensor, ...] = ()


class _First(nn.Module):
    """Computes the products of all layers of a group, and hands those of the others on."""

    def __init__(self, merged: nn.Linear, sizes: list[int], handed: _Handed) -> None:
        super().__init__()
        self.merged, self._sizes, self._handed = merged, sizes, handed

    @property
    def weight(self) -> Tensor:
        """Weights [O, H] of this layer alone."""
        return self.merged.weight[: self._sizes[0]]

    def forward(self, states_RWH: Tensor) -> Tensor:
        """Products [R, W, O] of this layer."""
        products: Tensor = self.merged(states_RWH)
        parts: tuple[Tensor, ...] = products.split(self._sizes, dim=-1)
        self._handed.states, self._handed.products = states_RWH, parts[1:]
        return parts[0]


class _Later(nn.Module):
    """Takes the products that the first layer of its group computed of the same states; of others it computes them."""

    def __init__(self, own: nn.Linear, place: int, handed: _Handed, *, is_last: bool) -> None:
        super().__init__()
        self.weight, self.bias = own.weight, own.bias
        self._place, self._handed, self._is_last = place, handed, is_last

    def forward(self, states_RWH: Tensor) -> Tensor:
        """Products [R, W, O] of this layer."""
        handed = self._handed
        if handed.states is not states_RWH:
            return nn.functional.linear(states_RWH, self.weight, self.bias)
        products: Tensor = handed.products[self._place]
        if self._is_last:
            handed.states, handed.products = None, ()
        return products


def _siblings(
    decoder: nn.Module, layers: list[nn.Module], ids_T: Tensor
) -> list[tuple[nn.Module, dict[str, nn.Linear]]]:
    """Layers, by name, that their module calls one after the other with the same tensor, and that can be merged."""
    calls: list[tuple[nn.Linear, Tensor]] = []

    def note(module: Any, args: tuple[Any, ...]) -> None:
        if args:
            calls.append((module, args[0]))

    modules = [m for layer in layers for m in layer.modules()]
    homes = {child: (m, name) for m in modules for name, child in m._modules.items() if child is not None}
    handles = [m.register_forward_pre_hook(note) for m in modules if is_plain_linear(m)]
    try:
        with torch.inference_mode():
            decoder(input_ids=ids_T[None], use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    once = Counter(linear for linear, _ in calls)
    groups: list[tuple[nn.Module, dict[str, nn.Linear]]] = []
    before: Tensor | None = None
    for linear, states in calls:
        parent, name = homes[linear]
        if before is not states or groups[-1][0] is not parent:
            groups.append((parent, {}))
        groups[-1][1][name] = linear
        before = states
    return [g for g in groups if len(g[1]) > 1 and all(once[m] == 1 for m in g[1].values()) and _agree(g[1].values())]


def _agree(group: Iterable[nn.Linear]) -> bool:
    """Whether weights can be parts of one tensor: one dtype, one device, biases in all or in none, nothing hooked."""
    kinds = {(m.weight.dtype, m.weight.device, m.bias is None) for m in group}
    return len(kinds) == 1 and not any(hasattr(m, "_hf_hook") for m in group)
