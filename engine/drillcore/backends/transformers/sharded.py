"""Loads a model in shards and compares it with itself as a whole: the self-check's own reference is in shards too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from drillcore.backends.alone import BOUND, FLOAT32_NOISE_FACTOR, LARGEST_NOISE, OWN_DTYPE_BOUNDS, relative_errors
from drillcore.backends.device import choose_device, choose_dtype
from drillcore.backends.source import ModelSource
from drillcore.backends.transformers.loading import Loaded, load_model
from drillcore.backends.transformers.plain import alone_states, compute_alone, float32_noise
from drillcore.backends.transformers.shards import Shards, threads_of_each
from drillcore.backends.transformers.streamed.proof import proved
from drillcore.errors import SelfCheckError
from drillcore.job.extract import Extract
from drillcore.system.machine import free_memory_bytes
from drillcore.tokens.sequences import Sequences

# Of free memory, the share that a whole model's weights may take for the comparison, beside what a pass takes.
SHARE = 0.7
NUM_TOKENS = 32


def load(source: ModelSource, extract: Extract, layers: Sequence[int]) -> Loaded:
    """The model up to the deepest of these layers, in shards or with streamed layers where the job says so.

    Raises what `load_model` raises; RunError where a process of it ends, SelfCheckError where shards give other states
    than the whole model, or streamed layers others than those that accelerate reads.
    """
    if extract.tensor_parallel == 1:
        loaded = load_model(source, extract, layers[-1])
        return loaded if loaded.streamed is None else _proved(source, loaded)
    sentence = _sentence(source)
    whole_1KH = _whole_states(source, extract, layers, sentence)
    torch.set_num_threads(threads_of_each(extract))
    shards = Shards(source, extract)
    try:
        loaded = load_model(source, extract, layers[-1], shards)
        note = _compare(loaded, layers, sentence, whole_1KH)
    except BaseException:
        shards.close()
        raise
    return replace(loaded, notes=(*loaded.notes, note))


def _proved(source: ModelSource, loaded: Loaded) -> Loaded:
    try:
        return proved(source, loaded)
    except BaseException:
        loaded.close()
        raise


def _sentence(source: ModelSource) -> Sequences:
    ids = np.random.default_rng(0).integers(0, source.facts.vocab_size, NUM_TOKENS)
    return Sequences.of([ids.tolist()])


def _whole_states(
    source: ModelSource, extract: Extract, layers: Sequence[int], sentence: Sequences
) -> NDArray[np.float32] | None:
    """States [1, K, H] of one sentence by the whole model on one device; None where it has no memory for that."""
    device = choose_device(extract)
    size = choose_dtype(source, extract, device).itemsize * source.facts.num_parameters
    free = torch.cuda.mem_get_info(0)[0] if device.type == "cuda" else free_memory_bytes()
    if size > SHARE * free:
        return None
    alone = extract.model_copy(update={"tensor_parallel": 1})
    return alone_states(source, alone, layers, sentence).states_CKH


def _compare(loaded: Loaded, layers: Sequence[int], sentence: Sequences, whole_1KH: NDArray[np.float32] | None) -> str:
    """A note on the comparison; raises SelfCheckError where states differ by more than rounding."""
    assert loaded.shards is not None
    ranks = loaded.shards.ranks
    if whole_1KH is None:
        return f"in {ranks} shards; not compared with the whole model, for which one device has no memory"
    alone = compute_alone(loaded, layers, sentence)
    error = float(np.nan_to_num(relative_errors(alone.states_CKH, whole_1KH)).max())
    bound = OWN_DTYPE_BOUNDS[alone.dtype]
    if bound == BOUND and BOUND < error < LARGEST_NOISE:
        bound = max(BOUND, FLOAT32_NOISE_FACTOR * float(float32_noise(loaded, layers, sentence).max()))
    if not error <= bound:
        raise SelfCheckError(
            f"model {loaded.model}: its states in {ranks} shards are not the whole model's ({error:.2g} off)",
            hint="Leave extract.tensor_parallel out; please report the architecture.",
        )
    return f"in {ranks} shards; within {error:.1e} of the whole model for one sentence"
