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
from drillcore.backends.alone import Alone, relative_errors_CK
from drillcore.backends.lengths import is_routed
from drillcore.backends.source import ModelSource
from drillcore.backends.transformers.loading import Loaded, load_model
from drillcore.backends.transformers.precision import computing_in, is_convertible
from drillcore.backends.transformers.surroundings import pinned
from drillcore.job.fields import Extract
from drillcore.system.machine import num_cores
from drillcore.tokens.sequences import Sequences


@pinned()
def compute_alone(loaded: Loaded, layers: Sequence[int], sentences: Sequences) -> Alone:
    """States of each sentence alone at these layers; in float32 where the weights can be converted.

    The model must run as `transformers` runs it: its own attention, no packs. Its precision is put back.
    """
    started, own = time.perf_counter(), _name(loaded.dtype)

    def result(states_CKH: NDArray[np.float32], noise_CK: NDArray[np.float64], dtype: str) -> Alone:
        routed, seconds = is_routed(loaded.decoder.config), time.perf_counter() - started
        return Alone(states_CKH, noise_CK, dtype, own, _machine(loaded), routed, seconds)

    if loaded.dtype == torch.float32 or not is_convertible(loaded.causal):
        states_CKH = _states(loaded, layers, sentences)
        return result(states_CKH, np.zeros(states_CKH.shape[:2]), own)
    with computing_in(loaded.causal, loaded.decoder_layers, torch.float32):
        states_CKH = _states(loaded, layers, sentences)
    noise_CK = relative_errors_CK(_states(loaded, layers, sentences), states_CKH)
    return result(states_CKH, np.nan_to_num(noise_CK), "float32")


@pinned()
def float32_noise(loaded: Loaded, layers: Sequence[int], sentences: Sequences) -> NDArray[np.float64]:
    """How far float32 is from float64 for each sentence alone [C, K]: rare tokens amplify rounding a hundredfold."""
    single_CKH = _states(loaded, layers, sentences)
    with computing_in(loaded.causal, loaded.decoder_layers, torch.float64):
        double_CKH = _states(loaded, layers, sentences)
    return np.nan_to_num(relative_errors_CK(single_CKH, double_CKH))


def alone_states(source: ModelSource, extract: Extract, layers: Sequence[int], sentences: Sequences) -> Alone:
    """Read the model, compute each sentence alone, and free it; raises what `load_model` raises."""
    with plain_model(source, extract, layers) as loaded:
        return compute_alone(loaded, layers, sentences)


@contextmanager
def plain_model(source: ModelSource, extract: Extract, layers: Sequence[int]) -> Iterator[Loaded]:
    """The model as `transformers` runs it, up to the deepest of these layers; freed when the context ends."""
    torch.set_num_threads(num_cores() if extract.threads == "auto" else extract.threads)
    if extract.tensor_parallel > 1 and torch.cuda.is_available():
        # An engine would share it out over devices: it may not fit on one.
        source = replace(source, model=source.model.model_copy(update={"device_map": "auto"}))
    loaded = load_model(source, extract, max(layers))
    try:
        yield loaded
    finally:
        del loaded
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _states(loaded: Loaded, layers: Sequence[int], sentences: Sequences) -> NDArray[np.float32]:
    """States [C, K, H] in the precision that the model has now; NaN where transformers gives none."""
    rows: list[NDArray[np.float32]] = []
    with _last_block(loaded) as last:
        for sentence in sentences:
            by_layer = dict(self_check.reference(loaded.decoder, sentence, loaded.cut, loaded.ending.places))
            # Their list has layer L after the final norm only.
            by_layer[loaded.cut] = last[0]
            hidden_size = len(last[0])
            missing_H = torch.full((hidden_size,), torch.nan)
            rows.append(np.stack([_on_host(by_layer.get(_key(loaded, k), missing_H)) for k in layers]))
    if not rows:
        return np.empty((0, len(layers), 0), np.float32)
    return np.stack(rows)


def _key(loaded: Loaded, layer: int) -> int:
    """`reference` numbers the norm after the last layer that was read, which is deeper only in the whole model."""
    return loaded.cut + 1 if layer > loaded.cut else layer


def _on_host(state_H: Tensor) -> NDArray[np.float32]:
    state: NDArray[np.float32] = state_H.float().cpu().numpy()
    return state


@contextmanager
def _last_block(loaded: Loaded) -> Iterator[list[Tensor]]:
    """A list whose only entry is the last token's state after the last decoder layer, of the latest pass."""
    last: list[Tensor] = [torch.empty(0)]

    def keep(module: Any, arguments: Any, output: Any) -> None:
        hidden_RWH = output[0] if isinstance(output, tuple | list) else output
        last[0] = hidden_RWH[0, -1]

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


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
