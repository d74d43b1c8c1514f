"""A model's final norm and unembedding without its decoder layers, for states that are already stored."""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drillcore.backends.source import locate
from drillcore.backends.transformers.loading import Loaded, load_model
from drillcore.job.fields import Extract, Model


class Head:
    """The end of one model, in the dtype and on the device of its extraction."""

    def __init__(self, model: Model, base: str, extract: Extract) -> None:
        """Read the model; raises ModelError."""
        source = locate(model, Path(base))
        # Layers after the first are cut off before the model is moved to the device.
        self._loaded = load_model(source, extract, 1)
        del self._loaded.decoder_layers[:]

    def logits(self, states_GH: NDArray[np.floating[Any]], *, normed: bool = False) -> NDArray[np.float32]:
        """Logits [G, V] of states [G, H] of any layer; normed: they are of layer L + 1, after the final norm."""
        return unembed(self._loaded, states_GH, normed=normed)


@lru_cache(maxsize=1)
def open_head(model: Model, base: str, extract: Extract) -> Head:
    """The head of a model, cached until another one is opened; raises ModelError."""
    return Head(model, base, extract)


@contextmanager
def replaced_decoder(loaded: Loaded, states_GH: Tensor) -> Any:
    """Inside, the model uses `states_GH` as its decoder's output and applies its own head, scale and softcap."""
    from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

    class OnlyStates(BaseModelOutputWithPastAndCrossAttentions):
        def __getattr__(self, name: str) -> None:
            """Everything else that a head passes on (caches, router logits) is None."""

    original = loaded.decoder.forward
    loaded.decoder.forward = lambda *_, **__: OnlyStates(last_hidden_state=states_GH[None])
    try:
        yield
    finally:
        loaded.decoder.forward = original


def unembed(loaded: Loaded, states_GH: NDArray[np.floating[Any]], *, normed: bool = False) -> NDArray[np.float32]:
    """Logits [G, V] of states [G, H]: the model's own final norm, unembedding, scale and softcap.

    normed: the states are already past the final norm.
    """
    device = loaded.causal.get_input_embeddings().weight.device
    with torch.inference_mode():
        states = torch.as_tensor(states_GH, device=device).to(loaded.dtype)
        if loaded.final_norm is not None and not normed:
            states = loaded.final_norm(states)
        with replaced_decoder(loaded, states):
            logits = loaded.causal(input_ids=torch.zeros((1, len(states)), dtype=torch.long, device=device)).logits
        logits_GV: NDArray[np.float32] = logits[0].float().cpu().numpy()
        return logits_GV
