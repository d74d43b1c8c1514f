"""Forward hooks that gather the wanted rows at every wanted layer, inside the forward pass.

Only G × K × H values leave the pass, never all tokens of a layer. Works on any decoder whose layers are in one
`ModuleList` and return the residual stream first.

Shape legend: R rows, W width, G gathered nodes, K layers, H hidden size, S rows of a group that are means, T nodes that
they are means of.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

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


class Store(Protocol):
    """Where the rows that a pass gathers go."""

    def put(self, slot: int, rows_GH: Tensor, means: Sequence[Tensor]) -> None:
        """Take one layer's: of the nodes, and the means [S, H] of each bag; `slot` is its place among those wanted."""


class InMemory:
    """Rows of all layers, held until the pass is over.

    states_GKH: in the model's dtype. means: [S, K, H] of each bag, float32.
    """

    def __init__(
        self, num_nodes: int, num_means: Sequence[int], size: tuple[int, int], dtype: torch.dtype, device: torch.device
    ) -> None:
        self.states_GKH = torch.empty((num_nodes, *size), dtype=dtype, device=device)
        self.means = [torch.empty((count, *size), device=device) for count in num_means]

    def put(self, slot: int, rows_GH: Tensor, means: Sequence[Tensor]) -> None:
        """Take one layer's."""
        self.states_GKH[:, slot] = rows_GH.to(self.states_GKH.device)
        for means_SKH, mean_SH in zip(self.means, means, strict=True):
            means_SKH[:, slot] = mean_SH.to(means_SKH.device)


@dataclass
class Pass:
    """What is gathered in one forward pass. rows_G: wanted nodes; read: those, and all of the bags. filled: layers."""

    rows_G: Tensor
    read: Tensor
    bags: Sequence[Bags]
    store: Store
    filled: set[int] = field(default_factory=set)


class Gatherer:
    """Hooks on a decoder that copy the wanted nodes of every wanted layer into one tensor.

    decoder_layers: up to the deepest wanted one, whose MLP then computes the wanted nodes only. num_layers: L of the
    whole model. skipped: layers that text alone does not run; they leave the states of the one before.

    `begin(node_G)` says which nodes (flat indices into R × W); after the forward pass `finish(last)` returns
    [G, K, H] in the model's dtype on its first device. Means are added up in float32 beside them.
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
        # Of the pass that runs now; a pass that is parked in between keeps its own.
        self.current: Pass | None = None
        self._handles = [
            module.register_forward_hook(self._after(k))
            for k, module in enumerate(decoder_layers, 1)
            if k in self._slot
        ]
        self._mlp = DeepestMlp(decoder_layers[-1], lambda: None if self.current is None else self.current.read)
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

    def begin(self, node_G: Tensor, dtype: torch.dtype) -> None:
        """Set the nodes to gather in the next pass."""
        self.current = Pass(node_G, node_G, (), InMemory(len(node_G), (), self.size, dtype, node_G.device))

    def begin_places(
        self,
        wanted: Gathering,
        to_device: Callable[[NDArray[np.int64]], Tensor],
        dtype: torch.dtype,
        store: Store | None = None,
    ) -> Sequence[Tensor]:
        """Set what to gather in the next pass for several groups; gives means [S, K, H] if no `store` takes them."""
        bags = [Bags(to_device(mean.node_T), to_device(mean.begin_S)) for mean in wanted.means]
        node_G = to_device(wanted.node_G)
        kept = InMemory(
            0 if store else len(node_G), [0 if store else len(b.begin_S) for b in bags], self.size, dtype, node_G.device
        )
        self.current = Pass(node_G, to_device(wanted.read) if bags else node_G, bags, store or kept)
        return kept.means

    @property
    def size(self) -> tuple[int, int]:
        """Layers and values of each node."""
        return len(self._layers), self._hidden_size

    def finish(self, last_RWH: Tensor | None) -> Tensor:
        """End the pass, whose rows are in memory; states [G, K, H]. `last_RWH`: as `end` takes it."""
        kept = self.current.store if self.current is not None else None
        self.end(last_RWH)
        assert isinstance(kept, InMemory)
        return kept.states_GKH

    def end(self, last_RWH: Tensor | None) -> None:
        """End the pass; `last_RWH` is the decoder's own output, after the final norm."""
        if self._final in self._slot:
            self._gather(self._final, last_RWH)
        missing = set(self._layers) - (self.current.filled if self.current is not None else set())
        if missing:
            raise ModelError(f"the hooks of layers {sorted(missing)} did not fire", hint="Please report this model.")
        self.cancel()

    def cancel(self) -> None:
        """Gather nothing in the following passes, also after one that failed."""
        self.current = None

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._mlp.remove()

    def _gather(self, layer: int, hidden_RWH: Tensor | None) -> None:
        if self.current is None or hidden_RWH is None:
            return
        now, flat = self.current, hidden_RWH.reshape(-1, hidden_RWH.shape[-1])
        rows_GH = flat.index_select(0, now.rows_G if now.rows_G.device == flat.device else now.rows_G.to(flat.device))
        now.store.put(self._slot[layer], rows_GH, [bags.means(flat) for bags in now.bags])
        now.filled.add(layer)

    def _after(self, layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self._gather(layer, first_tensor(output))

        return hook

    def _before(self, layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._gather(layer, first_tensor([kwargs.get("hidden_states"), *args, *kwargs.values()]))

        return hook
