"""Plain `transformers`, one sentence at a time: no packs, no batches, no gathering hooks.

Shape legend: C sentences, K layers, H hidden size.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
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
from drillcore.tokens.places import Places
from drillcore.tokens.sequences import Sequences

# Sentences by which a quantised model's noise is measured, batches of each, and sentences beside it in a batch.
MEASURED, NUM_BATCHES, COMPANIONS = 8, 2, 3
# Hidden states of the sentences that pass through streamed layers at a time: more are more memory, fewer more reading.
TOGETHER_BYTES = 256 * 2**20


@pinned()
def compute_alone(loaded: Loaded, layers: Sequence[int], sentences: Sequences, places: Places | None = None) -> Alone:
    """States of each sentence alone at these layers; in float32 where the weights can be converted.

    places: tokens that the mean is taken over, in float64; the last one where there are none. The model must run as
    `transformers` runs it: its own attention, no packs. Its precision is put back.
    """
    started, own = time.perf_counter(), dtype_name(loaded.dtype)
    peaks = list[NDArray[np.float64]]()
    states_CKH = single_states(loaded, layers, sentences, places, peaks)
    noise_CK, dtype = np.zeros(states_CKH.shape[:2]), own
    if loaded.can_be_raised:
        own_CKH, dtype = states_CKH, "float32"
        with loaded.in_precision(torch.float32):
            states_CKH = single_states(loaded, layers, sentences, places)
        noise_CK = np.nan_to_num(relative_errors(own_CKH, states_CKH))
    elif loaded.is_quantised:
        noise_CK = quantised_noise(loaded, layers, sentences, states_CKH, places)
    routed, seconds = is_routed(loaded.decoder.config), time.perf_counter() - started
    peaks_CK3 = np.stack(peaks) if peaks else None
    machine, quantised = _machine(loaded), loaded.is_quantised
    return Alone(states_CKH, noise_CK, dtype, own, machine, routed, seconds, peaks_CK3, quantised)


@pinned()
def suspects_noise(
    loaded: Loaded, layers: Sequence[int], sentences: Sequences, places: Places | None = None
) -> NDArray[np.float64]:
    """How far plain `transformers` is off for each sentence [C, K], asked of those that seem to be wrong.

    In float32 from float64; in a lower precision from float32, the largest of what other ways to compute give: a
    sentence amplifies the rounding of one way and not that of another. Zero for quantised weights.
    """
    if loaded.is_quantised or loaded.dtype == torch.float32:
        return float32_noise(loaded, layers, sentences, places)
    found = _other_ways(loaded, layers, sentences, sentences, places)
    with loaded.in_precision(torch.float32):
        exact_CKH = single_states(loaded, layers, sentences, places)
    return _largest(found, exact_CKH)


@pinned()
def float32_noise(
    loaded: Loaded, layers: Sequence[int], sentences: Sequences, places: Places | None = None
) -> NDArray[np.float64]:
    """How far float32 is from float64 for each sentence alone [C, K]: rare tokens amplify rounding a hundredfold.

    Zero for quantised weights, which have no values in float64, and where the architecture does not compute in it.
    """
    if loaded.is_quantised:
        return np.zeros((len(sentences), len(layers)))
    single_CKH = single_states(loaded, layers, sentences, places)
    double_CKH = loaded.in_float64(lambda: single_states(loaded, layers, sentences, places))
    return np.nan_to_num(relative_errors(single_CKH, single_CKH if double_CKH is None else double_CKH))


def quantised_noise(
    loaded: Loaded,
    layers: Sequence[int],
    sentences: Sequences,
    alone_CKH: NDArray[np.float32],
    places: Places | None = None,
) -> NDArray[np.float64]:
    """How far the states of sentences [C, K] are from those alone where plain `transformers` computes otherwise.

    In two batches with other sentences, cut from these, and alone with another attention function, which rounds in
    another way: codes of activations jump where rounding does. alone_CKH: states of the sentences alone. Some
    sentences are measured; zero for the others.
    """
    noise_CK = np.zeros(alone_CKH.shape[:2])
    if not len(sentences):
        return noise_CK
    chosen = np.unique(np.linspace(0, len(sentences) - 1, MEASURED).astype(np.int64))
    some = sentences.take(chosen), None if places is None else places.take(chosen)
    noise_CK[chosen] = _largest(_other_ways(loaded, layers, sentences, *some), alone_CKH[chosen])
    return noise_CK


def _other_ways(
    loaded: Loaded, layers: Sequence[int], texts: Sequences, sentences: Sequences, places: Places | None
) -> list[NDArray[np.float32]]:
    """States [C, K, H] of sentences in batches with others, cut from the texts, and alone with another attention."""
    tokens, draw = np.concatenate([np.asarray(s, np.int64) for s in texts]), np.random.default_rng(0)
    found = []
    for _ in range(NUM_BATCHES):
        starts = draw.integers(0, len(tokens), (len(sentences), COMPANIONS, 1))
        beside = [tokens[(s + np.arange(len(t))) % len(tokens)] for s, t in zip(starts, sentences, strict=True)]
        found.append(single_states(loaded, layers, sentences, places, beside=beside))
    with _other_attention(loaded.causal) as is_other:
        if is_other:
            found.append(single_states(loaded, layers, sentences, places))
    return found


def _largest(found: Sequence[NDArray[np.float32]], want_CKH: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(np.max([np.nan_to_num(relative_errors(f, want_CKH)) for f in found], axis=0))


@contextmanager
def _other_attention(causal: Any) -> Iterator[bool]:
    """Eager attention in the place of PyTorch's; gives whether the model takes it."""
    own = causal.config._attn_implementation
    try:
        if own == "sdpa":
            causal.set_attn_implementation("eager")
        yield own == "sdpa" and causal.config._attn_implementation == "eager"
    finally:
        if own == "sdpa":
            causal.set_attn_implementation(own)


def alone_states(
    source: ModelSource, extract: Extract, layers: Sequence[int], sentences: Sequences, places: Places | None = None
) -> Alone:
    """Read the model, compute each sentence alone, and free it; raises what `load_model` raises."""
    with plain_model(source, extract, layers) as loaded:
        return compute_alone(loaded, layers, sentences, places)


def load_plain(source: ModelSource, extract: Extract, layers: Sequence[int]) -> Loaded:
    """The model as `transformers` runs it, up to the deepest of these layers; raises what `load_model` raises."""
    if extract.tensor_parallel > 1 and torch.cuda.is_available():
        # An engine would share it out over devices: it may not fit on one.
        source = replace(source, model=source.model.model_copy(update={"device_map": "auto", "offload": True}))
    return load_model(source, extract, max(layers))


@contextmanager
def plain_model(source: ModelSource, extract: Extract, layers: Sequence[int]) -> Iterator[Loaded]:
    """The same, with the job's threads; freed when the context ends."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads(extract))
    loaded = load_plain(source, extract, layers)
    try:
        yield loaded
    finally:
        torch.set_num_threads(before)
        loaded.close()
        del loaded
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def single_states(
    loaded: Loaded,
    layers: Sequence[int],
    sentences: Sequences,
    places: Places | None = None,
    peaks: list[NDArray[np.float64]] | None = None,
    beside: Sequence[NDArray[np.int64]] | None = None,
) -> NDArray[np.float32]:
    """States [C, K, H] of each sentence alone, in the precision that the model has now.

    places: tokens that the mean is taken over; the last one where there are none. beside: of each sentence, others of
    its length that are computed in the same batch. peaks: gets the peaks [K, 3] of
    each sentence, as `Alone` has them. NaN where `transformers` gives no state. Raises ModelError where it gives
    one that is not finite.
    """
    found: list[tuple[NDArray[np.float32], NDArray[np.float64] | None]] = []
    with _last_block(loaded) as last:

        def one(number: int) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
            taken = _Taken(None if places is None else places.slice(number, number + 1).index_Q)
            others = None if beside is None else beside[number]
            return _single(loaded, layers, sentences[number], taken, last, others)

        for numbers in _at_a_time(loaded, sentences):
            found += loaded.together([partial(one, number) for number in numbers])
    if peaks is not None:
        peaks += [peaks_K3 for _, peaks_K3 in found if peaks_K3 is not None]
    if not found:
        return np.empty((0, len(layers), 0), np.float32)
    return np.stack([states_KH for states_KH, _ in found])


def _at_a_time(loaded: Loaded, sentences: Sequences) -> Iterator[list[int]]:
    """Numbers of sentences whose hidden states of all layers and tokens are in memory at a time."""
    if loaded.streamed is None:
        yield list(range(len(sentences)))
        return
    hidden = loaded.decoder.config.get_text_config(decoder=True).hidden_size
    each, numbers, num_bytes = 8 * hidden * (loaded.cut + 1), list[int](), 0
    for number, length in enumerate(sentences.lengths_N.tolist()):
        if numbers and num_bytes + each * length > TOGETHER_BYTES:
            yield numbers
            numbers, num_bytes = [], 0
        numbers.append(number)
        num_bytes += each * length
    yield numbers


def _single(
    loaded: Loaded,
    layers: Sequence[int],
    sentence: NDArray[np.int32],
    taken: _Taken,
    last: Sequence[Tensor],
    beside: NDArray[np.int64] | None,
) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
    """States [K, H] of one sentence alone, and the peaks [K, 3] of its tokens where several count.

    last: as `_last_block` gives it.
    """
    by_layer = self_check.reference(loaded.decoder, sentence, loaded.cut, loaded.ending.places, taken.whole, beside)
    # Their list has layer L after the final norm only.
    by_layer[loaded.cut] = taken.whole(last[0][: len(sentence)])
    pooled = {k: taken.pool(by_layer[_key(loaded, k)]) for k in layers if _key(loaded, k) in by_layer}
    given = {k: state_H.float() for k, (state_H, _) in pooled.items()}
    if not all(bool(state_H.isfinite().all()) for state_H in given.values()):
        what = f"a sentence of {len(sentence)} tokens alone, in {dtype_name(loaded.dtype)}"
        error = not_finite(loaded.decoder, what)
        raise ModelError(f"model {loaded.model}: {error}", hint=error.hint)
    missing_H = torch.full_like(last[0][-1], torch.nan)
    states_KH = np.stack([given.get(k, missing_H).float().cpu().numpy() for k in layers])
    if taken.index is None:
        return states_KH, None
    return states_KH, np.array([pooled[k][1] if k in pooled else (0.0, 0.0, 0) for k in layers], np.float64)


@dataclass(frozen=True)
class _Taken:
    """Which tokens of a sentence count. index: their numbers; None for the last one."""

    index: NDArray[np.int64] | None

    def whole(self, states_TH: Tensor) -> Tensor:
        """The states of those tokens alone."""
        return states_TH[-1:] if self.index is None else states_TH[torch.as_tensor(self.index, device=states_TH.device)]

    def pool(self, states_TH: Tensor) -> tuple[Tensor, tuple[float, float, int]]:
        """Their mean, and the peak among them."""
        if len(states_TH) == 1:
            return states_TH[0], (1.0, 0.0, 0)
        wide_TH = states_TH.double()
        size_T = wide_TH.norm(dim=1)
        largest = int(size_T.argmax())
        others = float(size_T.sum() - size_T[largest])
        peak = float(size_T[largest])
        token = 0 if self.index is None else int(self.index[largest])
        return wide_TH.mean(dim=0), (peak / max(float(size_T.median()), 1e-30), peak / max(others, 1e-30), token)


def _key(loaded: Loaded, layer: int) -> int:
    """`reference` numbers the norm after the last layer that was read, which is deeper only in the whole model."""
    return loaded.cut + 1 if layer > loaded.cut else layer


@contextmanager
def _last_block(loaded: Loaded) -> Iterator[list[Tensor]]:
    """A list whose only entry is all tokens' states [T, H] after the last decoder layer, of the latest pass."""
    last: list[Tensor] = [torch.empty(0)]

    def keep(module: Any, arguments: Any, output: Any) -> None:
        hidden_RWH = first_tensor(output)
        if hidden_RWH is not None:
            last[0] = hidden_RWH.reshape(-1, hidden_RWH.shape[-1])

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
