"""Decoder layers as compiled graphs, one for each kind of layer and shape of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from drillcore.system.logs import take_over_logs

# In the numerics. Inductor may choose how to compute by timing what is fastest here, and so other bits in another run;
# its deterministic mode does not.
NAME = "inductor, deterministic"


class CompiledLayers:
    """All decoder layers but the deepest, each compiled as a whole; `use` puts the graphs in place, `rest` the layers.

    The deepest stays as it is, since its MLP takes another number of nodes in every batch. Hooks on the layers stand
    outside the graphs. Raises, in the first pass, what PyTorch raises where it cannot compile a layer as one graph.
    """

    def __init__(self, causal: nn.Module, decoder_layers: nn.ModuleList) -> None:
        self._causal, self._layers = causal, list(decoder_layers)[:-1]
        inductor: Any = torch._inductor.config
        inductor.deterministic = True
        take_over_logs("torch")
        self._forwards = [
            torch.compile(type(layer).forward.__get__(layer), dynamic=False, fullgraph=True) for layer in self._layers
        ]

    def use(self) -> None:
        """Compute with the graphs."""
        self._drop_capturing_hooks()
        for layer, forward in zip(self._layers, self._forwards, strict=True):
            vars(layer)["forward"] = forward

    def rest(self) -> None:
        """Compute as transformers does."""
        for layer in self._layers:
            vars(layer).pop("forward", None)

    def _drop_capturing_hooks(self) -> None:
        # Each pass with output_hidden_states=True leaves hooks of transformers that read a ContextVar, which no graph
        # takes in.
        for module in self._causal.modules():
            for key, hook in list(module._forward_hooks.items()):
                if "output_capturing" in getattr(hook, "__module__", "") + getattr(hook, "__qualname__", ""):
                    del module._forward_hooks[key]
            vars(module).pop("_output_capturing_hooks_installed", None)


@dataclass(frozen=True)
class Compilations:
    """What was compiled in this process so far: seconds, graphs, and breaks between graphs."""

    seconds: float
    graphs: int
    breaks: int

    @staticmethod
    def so_far() -> Compilations:
        """As PyTorch counts them."""
        from torch._dynamo import utils

        times = utils.compilation_time_metrics.get("_compile.compile_inner", [])
        breaks = sum(utils.counters["graph_break"].values())
        return Compilations(sum(times), utils.counters["stats"]["unique_graphs"], breaks)

    def since(self, before: Compilations) -> Compilations:
        """What was compiled after another moment."""
        return Compilations(self.seconds - before.seconds, self.graphs - before.graphs, self.breaks - before.breaks)
