"""Plain `transformers`, one sentence at a time: no packs, no batches, no gathering hooks.

Shape legend: C sentences, K layers, H hidden size.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drillcore.backends import self_check
from drillcore.backends.alone import Alone, relative_errors
from drillcore.backends.device import dtype_name, num_threads
from drillcore.backends.lengths import is_routed
from drillcore.backends.source import ModelSource
from drillcore.backends.transformers.loading import Loaded, load_model
from drillcore.backends.transformers.surroundings import pinned
from drillcore.backends.transformers.trace import first_tensor, not_finite
from drillcore.errors import ModelError
from drillcore.job.extract import Extract
from drillcore.tokens.sequences import Sequences


@pinned()
def compute_alone(loaded: Loaded, layers: Sequence[int], sentences: Sequences) -> Alone:
    """States of each sentence alone at these layers; in float32 where the weights can be converted.

    The model must run as `transformers` runs it: its own attention, no packs. Its precision is put back.
    """
    started, own = time.perf_counter(), dtype_name(loaded.dtype)
    states_CKH = single_states(loaded, layers, sentences)
    noise_CK, dtype = np.zeros(states_CKH.shape[:2]), own
    if loaded.can_be_raised:
        own_CKH, dtype = states_CKH, "float32"
        with loaded.in_precision(torch.float32):
            states_CKH = single_states(loaded, layers, sentences)
        noise_CK = np.nan_to_num(relative_errors(own_CKH, states_CKH))
    routed, seconds = is_routed(loaded.decoder.config), time.perf_counter() - started
    return Alone(states_CKH, noise_CK, dtype, own, _machine(loaded), routed, seconds)


@pinned()
def float32_noise(loaded: Loaded, layers: Sequence[int], sentences: Sequences) -> NDArray[np.float64]:
    """How far float32 is from float64 for each sentence alone [C, K]: rare tokens amplify rounding a hundredfold."""
    single_CKH = single_states(loaded, layers, sentences)
    with loaded.in_precision(torch.float64):
        double_CKH = single_states(loaded, layers, sentences)
    return np.nan_to_num(relative_errors(single_CKH, double_CKH))


def alone_states(source: ModelSource, extract: Extract, layers: Sequence[int], sentences: Sequences) -> Alone:
    """Read the model, compute each sentence alone, and free it; raises what `load_model` raises."""
    with plain_model(source, extract, layers) as loaded:
        return compute_alone(loaded, layers, sentences)


def load_plain(source: ModelSource, extract: Extract, layers: Sequence[int]) -> Loaded:
    """The model as `transformers` runs it, up to the deepest of these layers; raises what `load_model` raises."""
    if extract.tensor_parallel > 1 and torch.cuda.is_available():
        # An engine would share it out over devices: it may not fit on one.
        source = replace(source, model=source.model.model_copy(update={"device_map": "auto"}))
    return load_model(source, extract, max(layers))


@contextmanager
def plain_model(source: ModelSource, extract: Extract, layers: Sequence[int]) -> Iterator[Loaded]:
    """The same, with the job's threads; freed when the context ends."""
    torch.set_num_threads(num_threads(extract))
    loaded = load_plain(source, extract, layers)
    try:
        yield loaded
    finally:
        del loaded
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def single_states(loaded: Loaded, layers: Sequence[int], sentences: Sequences) -> NDArray[np.float32]:
    """States [C, K, H] of each sentence alone, in the precision that the model has now.

    NaN where `transformers` gives no state. Raises ModelError where it gives one that is not finite.
    """
    rows: list[NDArray[np.float32]] = []
    with _last_block(loaded) as last:
        for sentence in sentences:
            by_layer = self_check.reference(loaded.decoder, sentence, loaded.cut, loaded.ending.places)
            # Their list has layer L after the final norm only.
            by_layer[loaded.cut] = last[0]
            given = {k: state_H.float() for k in layers if (state_H := by_layer.get(_key(loaded, k))) is not None}
            if not all(bool(state_H.isfinite().all()) for state_H in given.values()):
                what = f"a sentence of {len(sentence)} tokens alone, in {dtype_name(loaded.dtype)}"
                error = not_finite(loaded.decoder, what)
                raise ModelError(f"model {loaded.model}: {error}", hint=error.hint)
            missing_H = torch.full_like(last[0], torch.nan)
            rows.append(np.stack([given.get(k, missing_H).float().cpu().numpy() for k in layers]))
    if not rows:
        return np.empty((0, len(layers), 0), np.float32)
    return np.stack(rows)


def _key(loaded: Loaded, layer: int) -> int:
    """`reference` numbers the norm after the last layer that was read, which is deeper only in the whole model."""
    return loaded.cut + 1 if layer > loaded.cut else layer


@contextmanager
def _last_block(loaded: Loaded) -> Iterator[list[Tensor]]:
    """A list whose only entry is the last token's state after the last decoder layer, of the latest pass."""
    last: list[Tensor] = [torch.empty(0)]

    def keep(module: Any, arguments: Any, output: Any) -> None:
        hidden_RWH = first_tensor(output)
        if hidden_RWH is not None:
            last[0] = hidden_RWH.reshape(-1, hidden_RWH.shape[-1])[-1]

    handle = loaded.decoder_layers[-1].register_forward_hook(keep)
    try:
        yield last
    finally:
        handle.remove()


def _machine(loaded: Loaded) -> str:
    """What else than the model and the libraries decides the last bits."""
    if loaded.device.type == "cuda":
        return str(torch.cuda.get_device_name(loaded.device))
    return f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
