"""The self-check of the `transformers` backend: its batches against the same model one sentence at a time.

Shape legend: C sentences of the check, K layers, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drillcore.backends import self_check
from drillcore.backends.alone import BOUND, OWN_DTYPE_BOUNDS
from drillcore.backends.base import SelfCheck
from drillcore.backends.lengths import LengthRules, is_routed
from drillcore.backends.self_check import CheckSentences
from drillcore.backends.transformers.loading import Loaded
from drillcore.backends.transformers.precision import computing_in, is_convertible
from drillcore.errors import ModelError

# No more than this is taken for noise of float32; bound of float64.
LARGEST_NOISE, FLOAT64_BOUND = 1e-2, 1e-6

Errors = list[dict[int, float]]
Alone = list[dict[int, Tensor]]


@dataclass(frozen=True)
class Checked:
    """What is checked.

    layers: numbers of the layer contract. as_transformers: a context in which the model runs as `transformers` would
    run it.
    """

    loaded: Loaded
    layers: Sequence[int]
    rules: LengthRules
    as_transformers: Callable[[], AbstractContextManager[None]] = nullcontext

    def alone(self, sentences: CheckSentences) -> Alone:
        """States of each sentence alone, in the precision that the model has now."""
        loaded = self.loaded
        with self.as_transformers():
            return [self_check.reference(loaded.decoder, s, loaded.cut, loaded.ending.places) for s in sentences.all()]

    def errors(self, states_CKH: NDArray[Any], alone_C: Alone, dtype: torch.dtype) -> Errors:
        """Errors of each sentence by layer. dtype: that the model computes in now."""
        norm, cut = self.loaded.final_norm, self.loaded.cut
        errors_C = []
        for states_KH, alone in zip(states_CKH, alone_C, strict=True):
            like = torch.empty(0, dtype=dtype, device=alone[cut + 1].device)
            ours = self_check.comparable(states_KH, self.layers, norm, cut, like)
            errors_C.append(self_check.differences(ours, alone, cut))
        return errors_C

    def noise(self, alone_C: Alone, exact_C: Alone) -> Errors:
        """Errors of single sentences in one precision against another, by layer of the job."""
        cut = self.loaded.cut
        errors_C = []
        for alone, exact in zip(alone_C, exact_C, strict=True):
            # Layer L is compared after the final norm, as ours is.
            states = {
                k: alone[cut + 1 if k == cut else k] for k in self.layers if (cut + 1 if k == cut else k) in alone
            }
            errors_C.append(self_check.differences(states, exact, cut))
        return errors_C

    def in_precision(self, dtype: torch.dtype) -> AbstractContextManager[None]:
        """A context in which the model computes in `dtype`."""
        return computing_in(self.loaded.causal, self.loaded.decoder_layers, dtype)


def run_check(
    checked: Checked,
    sentences: CheckSentences,
    states: Callable[[CheckSentences, torch.dtype], NDArray[Any]],
    layout: str,
    model_id: str,
) -> SelfCheck:
    """Compare structure in float32, and a lower dtype with its own noise.

    states: gives the states [C, K, H] of the sentences from batches of this layout that compute in a dtype. Raises
    ModelError where a token's state depends on the tokens after it.
    """
    own = checked.loaded.dtype
    if own == torch.float32 or not is_convertible(checked.loaded.causal):
        name = _name(own)
        notes = () if own == torch.float32 else (f"self-check in {name} only, since the weights are quantised",)
        states_CKH = states(sentences, own)
        _refuse_unless_causal(checked, sentences, model_id, OWN_DTYPE_BOUNDS[name])
        alone_C = checked.alone(sentences)
        errors_C = checked.errors(states_CKH, alone_C, own)
        if own == torch.float32:
            errors_C = _without_noise(checked, sentences, states_CKH, alone_C, errors_C)
        return _result(layout, errors_C, OWN_DTYPE_BOUNDS[name], notes)
    with checked.in_precision(torch.float32):
        states_CKH = states(sentences, torch.float32)
        _refuse_unless_causal(checked, sentences, model_id, BOUND)
        exact_C = checked.alone(sentences)
        errors_C = checked.errors(states_CKH, exact_C, torch.float32)
    check = _result(layout, errors_C, BOUND)
    if not check.passed:
        return check
    return _with_rounding(checked, check, states(sentences, own), checked.alone(sentences), exact_C)


def reference_states(checked: Checked, sentences: CheckSentences, model_id: str) -> tuple[Alone, Alone | None]:
    """Each sentence alone, in the model's dtype and, where that is lower, in float32; for another engine's check.

    Raises ModelError where a token's state depends on the tokens after it.
    """
    own = checked.loaded.dtype
    if own == torch.float32 or not is_convertible(checked.loaded.causal):
        _refuse_unless_causal(checked, sentences, model_id, OWN_DTYPE_BOUNDS[_name(own)])
        return _on_host(checked.alone(sentences)), None
    with checked.in_precision(torch.float32):
        _refuse_unless_causal(checked, sentences, model_id, BOUND)
        exact_C = _on_host(checked.alone(sentences))
    return _on_host(checked.alone(sentences)), exact_C


def check_engine(
    checked: Checked,
    states_CKH: NDArray[Any],
    alone_C: Alone,
    exact_C: Alone | None,
    layout: str,
    notes: tuple[str, ...],
) -> SelfCheck:
    """The check of another engine's states of the sentences of `reference_states`.

    Such an engine runs in one precision only: below float32 its distance from float32 is held to the noise of one
    sentence at a time, which a mistake of structure exceeds many times.
    """
    own = checked.loaded.dtype
    if exact_C is None:
        errors_C = checked.errors(states_CKH, alone_C, own)
        return _result(layout, errors_C, OWN_DTYPE_BOUNDS[_name(own)], notes)
    errors_C = checked.errors(states_CKH, exact_C, own)
    noise = max(max(errors.values()) for errors in checked.noise(alone_C, exact_C))
    # One sentence may be twice as unlucky as the unluckiest one alone.
    check = _result(layout, errors_C, max(OWN_DTYPE_BOUNDS[_name(own)], 2 * noise), notes)
    return _with_rounding(checked, check, states_CKH, alone_C, exact_C)


def _on_host(alone_C: Alone) -> Alone:
    return [{k: state_H.cpu() for k, state_H in alone.items()} for alone in alone_C]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _result(layout: str, errors_C: Errors, bound: float, notes: tuple[str, ...] = ()) -> SelfCheck:
    return SelfCheck(layout, bound, self_check.worst_by_layer(errors_C), len(errors_C), notes)


def _with_rounding(
    checked: Checked, check: SelfCheck, states_CKH: NDArray[Any], alone_C: Alone, exact_C: Alone
) -> SelfCheck:
    own = checked.loaded.dtype
    ours_C = checked.errors(states_CKH, exact_C, own)
    noise_C = checked.noise(alone_C, exact_C)
    routed = is_routed(checked.loaded.decoder.config)
    return replace(check, rounding=self_check.rounding_check(_name(own), ours_C, noise_C, routed=routed))


def _refuse_unless_causal(checked: Checked, sentences: CheckSentences, model_id: str, bound: float) -> None:
    decoder = checked.loaded.decoder
    with checked.as_transformers():
        difference = self_check.first_difference(decoder, sentences.all(), checked.rules, bound)
        if difference is not None and difference < LARGEST_NOISE and checked.loaded.dtype == torch.float32:
            # A deep model may be that noisy in float32: float64 tells.
            with checked.in_precision(torch.float64):
                difference = self_check.first_difference(decoder, sentences.all(), checked.rules, FLOAT64_BOUND)
    if difference is not None:
        raise ModelError(
            f"model {model_id} is not a causal decoder: what follows a token changes its state by {difference:.1g}",
            hint="Only decoders that read from left to right are supported.",
        )


def _without_noise(
    checked: Checked, sentences: CheckSentences, states_CKH: NDArray[Any], alone_C: Alone, errors_C: Errors
) -> Errors:
    """Errors of float32, less a multiple of the model's own noise in float32 where they are out of bounds.

    A few sentences of deep models are that noisy. Only those are computed in float64.
    """
    suspects = [c for c, e in enumerate(errors_C) if BOUND < max(e.values()) < LARGEST_NOISE]
    if not suspects:
        return errors_C
    every, result_C = sentences.all(), list(errors_C)
    with checked.in_precision(torch.float64):
        exact_C = checked.alone(CheckSentences(every.take(np.array(suspects))))
    ours_C = checked.errors(states_CKH[suspects], exact_C, checked.loaded.dtype)
    noise_C = checked.noise([alone_C[c] for c in suspects], exact_C)
    for c, ours, noise in zip(suspects, ours_C, noise_C, strict=True):
        result_C[c] = {k: max(0.0, ours[k] - self_check.FLOAT32_NOISE_FACTOR * noise[k]) for k in ours}
    return result_C
