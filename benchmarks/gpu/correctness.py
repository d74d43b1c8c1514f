"""Packed states and those of one sentence at a time, both against float32 with the very same weights.

Random weights drawn in float32 are other weights than those drawn in bfloat16, so the float32 reference is given the
model's own, widened. Two controls show that the check can fail: states of sentences whose first token is another, and
states of the wrong sentence.

Shape legend: N sentences, K layers compared, H hidden size. Layer L itself is left out, of which `transformers` shows
only what the final norm makes of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.ceilings import CUDA
from benchmarks.gpu.compiled import is_compiled, uncompiled
from benchmarks.gpu.models import open_backend, random_model
from benchmarks.gpu.peers import plain_attention
from drillcore.backends import self_check
from drillcore.backends.base import all_states
from drillcore.tokens.sequences import Sequences

CHECKED = 16
# Packed may be so many times as far from float32 as one sentence alone in the same dtype is.
TIMES_ALONE = 1.5
# One sentence alone further away than this is not the same model.
UNRELATED = 0.5


def exact_decoder(source: Any, backend: Any) -> Any:
    """The decoder in float32 with the backend's weights; the backend's own where it is in float32."""
    loaded = backend._loaded
    if loaded.dtype == torch.float32:
        return loaded.decoder
    causal = random_model(source, torch.float32).eval().requires_grad_(False)
    with torch.no_grad():
        for wide, narrow in zip(causal.parameters(), loaded.causal.parameters(), strict=True):
            wide.copy_(narrow)
    return causal.get_decoder()


def states_alone(decoder: Any, tokens: Sequences, num_layers: int) -> np.ndarray:
    """States [N, K, H] float32 of each last token, one sentence at a time through transformers."""
    states = []
    for sentence in tokens:
        by_layer = self_check.reference(decoder, np.asarray(sentence), num_layers)
        states.append(torch.stack([by_layer[k].float() for k in (*range(num_layers), num_layers + 1)]).cpu().numpy())
    return np.stack(states)


def worst_by_layer(got_NKH: np.ndarray, want_NKH: np.ndarray) -> np.ndarray:
    """Relative error ‖a − b‖₂ / ‖b‖₂ of each layer, the worst sentence."""
    return (np.linalg.norm(got_NKH - want_NKH, axis=-1) / np.linalg.norm(want_NKH, axis=-1)).max(0)


def within(errors_K: np.ndarray, alone_K: np.ndarray) -> bool:
    """Whether every layer is about as near to float32 as one sentence alone is."""
    near = errors_K <= TIMES_ALONE * np.maximum(alone_K, 1e-5)
    return bool(near.all() and alone_K.max() < UNRELATED)


def other_beginnings(tokens: Sequences, vocab_size: int) -> Sequences:
    """The same sentences with another first token, where that is not the only one."""
    changed = [np.array(sentence) for sentence in tokens]
    for sentence in changed:
        if len(sentence) > 1:
            sentence[0] = (sentence[0] + 1) % vocab_size
    return Sequences.of(changed)


def check(source: Any, backend: Any, tokens: Sequences) -> dict[str, Any]:
    """The worst errors of `packed`, `alone`, `uncompiled` and of the controls, and whether all is as it must be.

    `right`: packed states, with compiled layers and without, are within 1.5 times the error of one sentence alone,
    layer by layer, and both controls fail that same test.
    """
    num_layers = backend._loaded.cut
    layers = [*range(num_layers), num_layers + 1]
    with plain_attention(backend) as loaded:
        want = states_alone(exact_decoder(source, backend), tokens, num_layers)
        if CUDA:
            torch.cuda.empty_cache()
        alone_K = worst_by_layer(states_alone(loaded.decoder, tokens, num_layers), want)
    changed = other_beginnings(tokens, backend.facts.vocab_size)
    errors = {
        "packed": worst_by_layer(all_states(backend, tokens)[:, layers], want),
        "control_first_token": worst_by_layer(all_states(backend, changed)[:, layers], want),
        "control_other_sentence": worst_by_layer(want[::-1], want),
    }
    if is_compiled(backend):
        with uncompiled(backend):
            errors["uncompiled"] = worst_by_layer(all_states(backend, tokens)[:, layers], want)
    verdicts = {way: within(errors_K, alone_K) != way.startswith("control") for way, errors_K in errors.items()}
    return {
        "right": all(verdicts.values()),
        "compiled": is_compiled(backend),
        "verdicts": verdicts,
        "alone": float(alone_K.max()),
        **{way: float(errors_K.max()) for way, errors_K in errors.items()},
        "packed_by_layer": errors["packed"].tolist(),
        "alone_by_layer": alone_K.tolist(),
    }


def check_architecture(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A small model of some architecture on sentences of many lengths that share beginnings."""
    source, backend = open_backend(config, folder)
    draw = np.random.default_rng(1)
    drawn = [draw.integers(3, config["vocab_size"], n) for n in (1, 2, 7, 20, 33, 64, 90, 200)]
    siblings = [np.append(np.arange(5, 30), last) for last in range(3, 9)]
    tokens = Sequences.of([*drawn, *siblings])
    prepared = backend.prepare(tokens, None)
    verdict = check(source, backend, tokens)
    backend.close()
    return {**verdict, "layout": prepared.check.layout, "notes": list(prepared.notes)}
