"""A model's final norm and unembedding without its decoder layers, for states that are already stored.

Both are proved: the states of one sentence put through them must give the logits that the whole model gives.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drillcore.backends.base import prediction_refused
from drillcore.backends.source import locate
from drillcore.backends.transformers.loading import Loaded, load_model
from drillcore.backends.transformers.surroundings import pinned
from drillcore.backends.transformers.trace import relative_error
from drillcore.job.extract import Extract
from drillcore.job.model import Model

# The same operations on the same shape differ by nothing or by rounding; a scale that is left out by 1e-1 and more.
BOUNDS = {torch.float32: 1e-4, torch.float16: 3e-3, torch.bfloat16: 2e-2}


class Head:
    """The end of one model, in the dtype and on the device of its extraction."""

    @pinned()
    def __init__(self, model: Model, base: str, extract: Extract) -> None:
        """Read the model; raises ModelError, also where its head is not proved."""
        source = locate(model, Path(base))
        # Layers after the first are cut off before the model is moved to the device.
        self._loaded = load_model(source, extract, 1)
        del self._loaded.decoder_layers[:]
        unproved = head_problem(self._loaded)
        if unproved:
            raise prediction_refused(model.id, unproved)

    @pinned()
    def logits(self, states_GH: NDArray[np.floating[Any]], *, normed: bool = False) -> NDArray[np.float32]:
        """Logits [G, V] of states [G, H] of any layer; normed: they are of layer L + 1, after the final norm."""
        return unembed(self._loaded, states_GH, normed=normed)


@lru_cache(maxsize=1)
def open_head(model: Model, base: str, extract: Extract) -> Head:
    """The head of a model, cached until another one is opened; raises ModelError."""
    return Head(model, base, extract)


@cache
def _only_states() -> Any:
    """The class of a decoder's output that holds states alone; made once, since PyTorch registers every such class."""
    from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

    class OnlyStates(BaseModelOutputWithPastAndCrossAttentions):
        def __getattr__(self, name: str) -> None:
            """Everything else that a head passes on (caches, router logits) is None."""

    return OnlyStates


@contextmanager
def replaced_decoder(loaded: Loaded, states_GH: Tensor) -> Any:
    """Inside, the model uses `states_GH` as its decoder's output and applies its own head, scale and softcap."""
    original, output = loaded.decoder.forward, _only_states()
    loaded.decoder.forward = lambda *_, **__: output(last_hidden_state=states_GH[None])
    try:
        yield
    finally:
        loaded.decoder.forward = original


@pinned()
def head_problem(loaded: Loaded) -> str:
    """Why token prediction through this final norm and head would be wrong; empty where both are proved.

    The states of one sentence at layers L and L + 1 must give the model's own logits.
    """
    ending = loaded.ending
    if not loaded.has_head:
        return "its files hold no output embedding, which would be drawn at random"
    if ending.final_norm is None:
        return "what follows its last decoder layer could not be found by running it"
    if ending.logits_TV is None:
        return ending.problem
    bound = BOUNDS[loaded.dtype]
    for layer, states_TH in (("L", ending.block_TH), ("L + 1", ending.output_TH)):
        try:
            logits_TV = torch.from_numpy(_logits(loaded, states_TH, normed=layer != "L"))
        except Exception as error:  # whatever an architecture's own code raises without its decoder
            return f"its head does not run on states alone ({type(error).__name__}: {str(error).splitlines()[0]})"
        if logits_TV.shape != ending.logits_TV.shape:
            return f"its head gives logits of shape {tuple(logits_TV.shape)}, not {tuple(ending.logits_TV.shape)}"
        off = relative_error(logits_TV, ending.logits_TV)
        if not off <= bound:
            return f"states of layer {layer} give other logits than the model's own: error {off:.2g}, bound {bound:g}"
    return ""


def unembed(loaded: Loaded, states_GH: NDArray[np.floating[Any]], *, normed: bool = False) -> NDArray[np.float32]:
    """Logits [G, V] of states [G, H]: the model's own final norm, unembedding, scale and softcap.

    normed: the states are already past the final norm.
    """
    return _logits(loaded, torch.as_tensor(states_GH), normed=normed)


def _logits(loaded: Loaded, states_GH: Tensor, *, normed: bool) -> NDArray[np.float32]:
    device = loaded.causal.get_input_embeddings().weight.device
    with torch.inference_mode():
        states = states_GH.to(device=device, dtype=loaded.dtype)
        if loaded.final_norm is not None and not normed:
            states = loaded.final_norm(states)
        with replaced_decoder(loaded, states):
            logits = loaded.causal(input_ids=torch.zeros((1, len(states)), dtype=torch.long, device=device)).logits
        logits_GV: NDArray[np.float32] = logits[0].float().cpu().numpy()
        return logits_GV
