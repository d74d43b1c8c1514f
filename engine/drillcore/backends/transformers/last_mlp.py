"""The MLP of the deepest decoder layer on the gathered nodes only, where nothing after it reads the others.

Exact, since an MLP treats each node by itself. One MLP of 30 is 2.5 % of a model's work. Some decoder layers do read
other nodes after it, in a convolution over the last few tokens, say; `Gatherer.keep_shortcut_if_exact` finds them.

Shape legend: R rows, W width, G gathered nodes, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# Nodes come in multiples of this: oneDNN keeps the code that it compiled for each number of rows.
STEP = 64


class DeepestMlp:
    """Hooks on the `mlp` of a decoder layer, if that takes a single tensor; no effect while `rows` gives None."""

    def __init__(self, decoder_layer: nn.Module, rows: Callable[[], Tensor | None]) -> None:
        self._rows = rows
        self._nodes_G: Tensor | None = None
        self._shape: torch.Size | None = None
        self._handles: list[Any] = []
        self._elsewhere = 0.0
        mlp = getattr(decoder_layer, "mlp", None)
        if isinstance(mlp, nn.Module):
            self._handles += [mlp.register_forward_pre_hook(self._choose), mlp.register_forward_hook(self._put_back)]

    @contextmanager
    def poisoned(self) -> Iterator[None]:
        """Inside, nodes that are left out are not a number, which spreads to whatever reads them."""
        self._elsewhere = float("nan")
        try:
            yield
        finally:
            self._elsewhere = 0.0

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def _choose(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        self._nodes_G, self._shape = self._rows(), None
        # BLOOM's MLP takes the residual stream too and adds it.
        if self._nodes_G is None or len(args) != 1 or args[0].ndim != 3:
            return None
        self._nodes_G, self._shape = self._nodes_G.to(args[0].device), args[0].shape
        spare = self._nodes_G[-1:].expand(-len(self._nodes_G) % STEP)
        chosen = torch.cat([self._nodes_G, spare])
        return (args[0].reshape(-1, args[0].shape[-1]).index_select(0, chosen)[None],)

    def _put_back(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """The output at its nodes, and zeros elsewhere, which nothing reads."""
        if self._nodes_G is None or self._shape is None:
            return None
        states_1GH = output[0] if isinstance(output, tuple) else output
        states_RWH = states_1GH.new_full((*self._shape[:2], states_1GH.shape[-1]), self._elsewhere)
        states_RWH.view(-1, states_RWH.shape[-1])[self._nodes_G] = states_1GH[0, : len(self._nodes_G)]
        return (states_RWH, *output[1:]) if isinstance(output, tuple) else states_RWH
