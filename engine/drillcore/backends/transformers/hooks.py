"""Forward hooks that gather the wanted rows at every wanted layer, inside the forward pass.

Only G × K × H values leave the pass, never all tokens of a layer. Works on any decoder whose layers are in one
`ModuleList` and return the residual stream first.

Shape legend: R rows, W width, G gathered nodes, K layers, H hidden size, S rows of a group that are means, T nodes that
they are means of.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from drillcore.backends.transformers.last_mlp import DeepestMlp
from drillcore.backends.transformers.trace import first_tensor
from drillcore.errors import ModelError
from drillcore.tokens.places import Gathering


@dataclass(frozen=True)
class Bags:
    """Nodes whose mean is wanted. node_T: flat nodes of all bags; begin_S: where those of each begin."""

    node_T: Tensor
    begin_S: Tensor

    def means(self, states_MH: Tensor) -> Tensor:
        """The mean [S, H] of each bag's states, added up in float32."""
        node_T, begin_S = self.node_T.to(states_MH.device), self.begin_S.to(states_MH.device)
        return nn.functional.embedding_bag(node_T, states_MH.float(), begin_S, mode="mean")


class Gatherer:
    """Hooks on a decoder that copy the wanted nodes of every wanted layer into one tensor.

    decoder_layers: up to the deepest wanted one, whose MLP then computes the wanted nodes only. num_layers: L of the
    whole model. skipped: layers that text alone does not run; they leave the states of the one before.

    `begin(node_G)` says which nodes (flat indices into R × W); after the forward pass `finish(last)` returns
    [G, K, H] in the model's dtype on its first device. Means are added up in float32 beside them: `means` has
    [S, K, H] of each.
    """

    def __init__(
        self,
        decoder_layers: nn.ModuleList,
        layers: Sequence[int],
        hidden_size: int,
        num_layers: int,
        skipped: Collection[int] = (),
    ) -> None:
        self._layers, self._hidden_size = list(layers), hidden_size
        self._slot = {layer: slot for slot, layer in enumerate(layers)}
        self._final = num_layers + 1
        self._rows_G: Tensor | None = None
        self._read: Tensor | None = None
        self._bags: list[Bags] = []
        self.means: list[Tensor] = []
        self._states_GKH: Tensor | None = None
        self._filled: set[int] = set()
        self._handles = [
            module.register_forward_hook(self._after(k))
            for k, module in enumerate(decoder_layers, 1)
            if k in self._slot
        ]
        self._mlp = DeepestMlp(decoder_layers[-1], lambda: self._read)
        entered = {0, *skipped} & self._slot.keys()
        for k in entered:
            following = next(m for n, m in enumerate(decoder_layers, 1) if n > k and n not in skipped)
            self._handles.append(following.register_forward_pre_hook(self._before(k), with_kwargs=True))

    def keep_shortcut_if_exact(self, decoder: nn.Module, ids_T: Tensor, dtype: torch.dtype) -> None:
        """Compute the whole MLP of the deepest layer where something after it reads more than the wanted nodes.

        ids_T: a sentence. Only its last node is wanted; the MLP's others are made not a number, which spreads.
        """
        with torch.inference_mode(), self._mlp.poisoned():
            self.begin(torch.tensor([len(ids_T) - 1], device=ids_T.device), dtype)
            try:
                output = decoder(input_ids=ids_T[None], use_cache=False)
                states = self.finish(first_tensor(output))
            finally:
                self.cancel()
        if not torch.isfinite(states).all():
            self.compute_whole_mlp()

    def compute_whole_mlp(self) -> None:
        """Compute the MLP of the deepest layer for every node from now on."""
        self._mlp.remove()

    def begin(self, node_G: Tensor, dtype: torch.dtype, bags: Sequence[Bags] = (), read: Tensor | None = None) -> None:
        """Set the nodes to gather in the next pass. read: those nodes and all of the bags, each once."""
        self._rows_G, self._read = node_G, node_G if read is None else read
        self._filled.clear()
        self._bags = list(bags)
        self.means = [
            torch.empty((len(b.begin_S), len(self._layers), self._hidden_size), device=node_G.device) for b in bags
        ]
        self._states_GKH = torch.empty(
            (len(node_G), len(self._layers), self._hidden_size), dtype=dtype, device=node_G.device
        )

    def begin_places(
        self, wanted: Gathering, to_device: Callable[[NDArray[np.int64]], Tensor], dtype: torch.dtype
    ) -> None:
        """Set what to gather in the next pass for several groups."""
        bags = [Bags(to_device(mean.node_T), to_device(mean.begin_S)) for mean in wanted.means]
        self.begin(to_device(wanted.node_G), dtype, bags, to_device(wanted.read) if bags else None)

    def finish(self, last_RWH: Tensor | None) -> Tensor:
        """States [G, K, H] of the pass; `last_RWH` is the decoder's own output, after the final norm."""
        if self._final in self._slot:
            self._gather(self._final, last_RWH)
        missing = set(self._layers) - self._filled
        if missing or self._states_GKH is None:
            raise ModelError(f"the hooks of layers {sorted(missing)} did not fire", hint="Please report this model.")
        states = self._states_GKH
        self.cancel()
        return states

    def cancel(self) -> None:
        """Gather nothing in the following passes, also after one that failed."""
        self._rows_G = self._read = self._states_GKH = None
        self._bags = []

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._mlp.remove()

    def _gather(self, layer: int, hidden_RWH: Tensor | None) -> None:
        if self._rows_G is None or self._states_GKH is None or hidden_RWH is None:
            return
        flat = hidden_RWH.reshape(-1, hidden_RWH.shape[-1])
        rows = self._rows_G if self._rows_G.device == flat.device else self._rows_G.to(flat.device)
        self._states_GKH[:, self._slot[layer]] = flat.index_select(0, rows).to(self._states_GKH.device)
        for bags, means_SKH in zip(self._bags, self.means, strict=True):
            means_SKH[:, self._slot[layer]] = bags.means(flat).to(means_SKH.device)
        self._filled.add(layer)

    def _after(self, layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self._gather(layer, first_tensor(output))

        return hook

    def _before(self, layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._gather(layer, first_tensor([kwargs.get("hidden_states"), *args, *kwargs.values()]))

        return hook
