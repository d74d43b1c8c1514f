"""The self-check: our states against `transformers` one sentence at a time, independent of our hooks.

Shape legend: C sentences of the check, K layers, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from drillcore.backends.base import SelfCheck
from drillcore.errors import ModelError
from drillcore.tokens.sequences import Sequences

# Packed sentences differ from single ones by rounding only; a leaked token or a wrong position gives 1e-2 and more.
BOUNDS = {"float32": 1e-4, "bfloat16": 6e-2, "float16": 1e-2}
MAX_SENTENCE = 512
# Their `hidden_states` start after the first decoder layer: the embedding has no entry.
NO_EMBEDDING_ENTRY = ("mamba", "mamba2", "falcon_mamba")


def check_sentences(sample: Sequences, vocab_size: int, max_tokens: int | None) -> Sequences:
    """Sentences that would reveal a mistake: some of the job, and random ones, short and long, that share prefixes.

    max_tokens: longest sentence that the model takes, or None.
    """
    draw = np.random.default_rng(0)
    longest = min(MAX_SENTENCE, max_tokens or MAX_SENTENCE)
    trunk = draw.integers(0, vocab_size, min(24, longest)).astype(np.int32)
    sentences = [trunk[:1], trunk[:5], trunk]
    # Branches of the trunk: two at the same node, one further down, and one that shares nothing with it.
    for cut, tail in ((5, 1), (5, 9), (12, 3), (0, 2)):
        sentences.append(np.concatenate([trunk[:cut], draw.integers(0, vocab_size, tail)])[:longest].astype(np.int32))
    own = [np.asarray(s[:longest], np.int32) for s in sample]
    if own:
        order = np.argsort([len(s) for s in own], kind="stable")
        own = [own[i] for i in {int(order[0]), int(order[len(order) // 2]), int(order[-1])}]
    return Sequences.of([s for s in sentences + own if len(s)])


def reference(decoder: Any, sentence: NDArray[np.int32], num_layers: int) -> dict[int, Tensor]:
    """States [H] of the last token by layer, this sentence alone, from `output_hidden_states=True`.

    Layer L is missing: transformers returns it after the final norm only, which is layer L + 1. Raises ModelError
    where the decoder does not return its hidden states.
    """
    device = next(decoder.parameters()).device
    ids = torch.as_tensor(np.asarray(sentence, np.int64), device=device)[None]
    with torch.inference_mode():
        states = decoder(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    if states is None or len(states) != num_layers + 1:
        raise ModelError(f"{type(decoder).__name__} does not return its hidden states", hint="It is not supported yet.")
    if decoder.config.model_type in NO_EMBEDDING_ENTRY:
        states = (decoder.get_input_embeddings()(ids), *states[:-2], states[-1])
    layers = {k: states[k][0, -1] for k in range(num_layers)}
    layers[num_layers + 1] = states[num_layers][0, -1]
    return layers


def relative_errors(
    states_CKH: NDArray[Any],
    sentences: Sequences,
    layers: Sequence[int],
    decoder: nn.Module,
    norm: Callable[[Tensor], Tensor] | None,
    num_layers: int,
) -> dict[int, float]:
    """Worst ‖a − b‖₂ / ‖b‖₂ over the sentences, by layer.

    states_CKH: of the sentences at `layers`. Layer L is compared after the final norm, recomputed here.
    """
    worst: dict[int, float] = {}
    for c, sentence in enumerate(sentences):
        alone = reference(decoder, sentence, num_layers)
        for slot, layer in enumerate(layers):
            want = alone[num_layers + 1 if layer == num_layers else layer]
            got = torch.as_tensor(states_CKH[c, slot], device=want.device)
            if layer == num_layers and norm is not None:
                got = norm(got.to(want.dtype))
            difference = (got.double() - want.double()).norm() / want.double().norm().clamp_min(1e-30)
            # max() would drop a NaN.
            value = float(difference)
            worst[layer] = value if np.isnan(value) else max(worst.get(layer, 0.0), value)
    return worst


def is_causal(decoder: nn.Module, sentence: NDArray[np.int32]) -> bool:
    """Whether the state of a token does not depend on the tokens after it."""
    device = next(decoder.parameters()).device
    ids = torch.as_tensor(np.asarray(sentence, np.int64), device=device)[None]
    with torch.inference_mode():
        whole = decoder(input_ids=ids, use_cache=False).last_hidden_state[0, len(sentence) // 2 - 1].double()
        part = decoder(input_ids=ids[:, : len(sentence) // 2], use_cache=False).last_hidden_state[0, -1].double()
    return bool((whole - part).norm() <= 0.1 * part.norm())


def make_check(
    layout: str, dtype: str, errors: dict[int, float], num_sentences: int, notes: tuple[str, ...] = ()
) -> SelfCheck:
    """The result for these errors, with the bound of the dtype."""
    return SelfCheck(layout, BOUNDS[dtype], errors, num_sentences, notes)
