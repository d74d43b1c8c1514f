"""Decoder layers as compiled graphs, and forward passes whose states stay on the device."""

from __future__ import annotations

from typing import Any

import torch


class CompiledLayers:
    """All decoder layers but the deepest, each compiled as one graph; in use inside a `with`.

    The deepest stays eager, since its MLP takes another number of nodes in every batch. drillcore's own hooks stand
    outside the graphs.
    """

    def __init__(self, loaded: Any) -> None:
        self._causal, self._layers = loaded.causal, list(loaded.decoder_layers)[:-1]
        self._forwards = [
            torch.compile(type(layer).forward.__get__(layer), dynamic=False, fullgraph=True) for layer in self._layers
        ]

    def __enter__(self) -> CompiledLayers:
        self._drop_capturing_hooks()
        for layer, forward in zip(self._layers, self._forwards, strict=True):
            vars(layer)["forward"] = forward
        return self

    def __exit__(self, *_: Any) -> None:
        for layer in self._layers:
            vars(layer).pop("forward", None)

    def _drop_capturing_hooks(self) -> None:
        # Every pass with output_hidden_states=True leaves hooks of transformers that read a ContextVar, which no graph
        # takes in.
        for module in self._causal.modules():
            for key, hook in list(module._forward_hooks.items()):
                if "output_capturing" in getattr(hook, "__qualname__", ""):
                    del module._forward_hooks[key]
            vars(module).pop("_output_capturing_hooks_installed", None)


def run_on_device(backend: Any, work: Any) -> None:
    """The passes of some work alone, nothing copied to the host: what the device could do."""
    with torch.inference_mode():
        for batch in work.parts:
            arguments, nodes_G = backend._feeder.feed(batch)
            backend._gatherer.begin(nodes_G, backend._loaded.dtype)
            backend._gatherer.finish(backend._loaded.decoder(use_cache=False, **arguments).last_hidden_state)
