"""The self-check of the `transformers` backend: its batches against the same model one sentence at a time.

Shape legend: C sentences of the check, K layers, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drillcore.backends import self_check
from drillcore.backends.alone import (
    BOUND,
    FLOAT32_NOISE_FACTOR,
    LARGEST_NOISE,
    OWN_DTYPE_BOUNDS,
    ROUTED_BOUND,
    Alone,
    quantised_bound,
    relative_errors,
)
from drillcore.backends.base import SelfCheck
from drillcore.backends.device import dtype_name
from drillcore.backends.lengths import LengthRules, is_routed
from drillcore.backends.self_check import CheckSentences
from drillcore.backends.transformers.loading import Loaded
from drillcore.backends.transformers.plain import compute_alone, quantised_noise, single_states
from drillcore.errors import ModelError
from drillcore.tokens.sequences import Sequences

# Bound of what follows a token in float64.
FLOAT64_BOUND = 1e-6

Errors = list[dict[int, float]]


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

    @property
    def as_returned(self) -> list[int]:
        """The layers as `transformers` returns them: layer L after the final norm only, which is layer L + 1."""
        cut = self.loaded.cut
        return [cut + 1 if k == cut else k for k in self.layers]

    def alone(self, sentences: Sequences) -> NDArray[np.float32]:
        """States [C, K, H] of each sentence alone, as returned, in the precision that the model has now."""
        with self.as_transformers():
            return single_states(self.loaded, self.as_returned, sentences)

    def quantised_noise(self, sentences: Sequences, alone_CKH: NDArray[np.float32]) -> NDArray[np.float64]:
        """How far plain `transformers` is from those states in other batches [C, K]."""
        with self.as_transformers():
            return quantised_noise(self.loaded, self.as_returned, sentences, alone_CKH)

    def errors(self, states_CKH: NDArray[Any], alone_CKH: NDArray[np.float32], dtype: torch.dtype) -> Errors:
        """Errors of our states by sentence and layer. dtype: that the model computes in now."""
        loaded, ours_CKH = self.loaded, np.array(states_CKH, np.float32)
        if loaded.cut in self.layers and loaded.final_norm is not None:
            slot, device = self.layers.index(loaded.cut), loaded.causal.get_input_embeddings().weight.device
            with torch.inference_mode():
                normed_CH = loaded.final_norm(torch.from_numpy(ours_CKH[:, slot]).to(device, dtype))
            ours_CKH[:, slot] = normed_CH.float().cpu().numpy()
        return self.differences(ours_CKH, alone_CKH)

    def differences(self, got_CKH: NDArray[Any], alone_CKH: NDArray[np.float32]) -> Errors:
        """Relative errors of states as returned, of the layers that `transformers` gives."""
        given_CK = np.logical_not(np.isnan(alone_CKH).any(axis=2)).tolist()
        errors_CK: list[list[float]] = relative_errors(got_CKH, alone_CKH).tolist()
        return [
            {k: error for k, error, given in zip(self.layers, errors_K, given_K, strict=True) if given}
            for errors_K, given_K in zip(errors_CK, given_CK, strict=True)
        ]


def run_check(
    checked: Checked,
    sentences: CheckSentences,
    states: Callable[[CheckSentences, torch.dtype], NDArray[Any]],
    layout: str,
    most: float = 0.0,
) -> SelfCheck:
    """Compare structure in float32, and a lower dtype with its own noise.

    states: gives the states [C, K, H] of the sentences from batches of this layout that compute in a dtype. most: the
    noise of quantised weights in batches is allowed up to this; 0 where each sentence is computed alone. Raises
    ModelError where a token's state depends on the tokens after it, or is not finite.
    """
    own, raised, every = checked.loaded.dtype, checked.loaded.can_be_raised, sentences.all()
    dtype = torch.float32 if raised else own
    with checked.loaded.in_precision(dtype) if raised else nullcontext():
        states_CKH = states(sentences, dtype)
        alone_CKH = checked.alone(every)
        _refuse_unless_causal(checked, every)
        errors_C = checked.errors(states_CKH, alone_CKH, dtype)
    if own == torch.float32 and not checked.loaded.is_quantised:
        errors_C = _without_noise(checked, every, states_CKH, alone_CKH, errors_C)
    name = dtype_name(dtype)
    only: tuple[str, ...] = (
        (f"self-check in {name} only, since the weights are quantised",) if dtype != torch.float32 else ()
    )
    bound = OWN_DTYPE_BOUNDS[name]
    if checked.loaded.is_quantised and most:
        errors_C, bound, notes = _with_quantised_noise(checked, every, alone_CKH, errors_C, max(bound, most))
        only += notes
    elif checked.loaded.is_quantised:
        only += ("one sentence at a time: in batches the quantised weights give other states",)
    check = _result(layout, errors_C, bound, only)
    if not raised or not check.passed:
        return check
    ours_C = checked.errors(states(sentences, own), alone_CKH, own)
    return _with_rounding(checked, check, ours_C, checked.differences(checked.alone(every), alone_CKH))


def _with_quantised_noise(
    checked: Checked, sentences: Sequences, alone_CKH: NDArray[np.float32], errors_C: Errors, most: float
) -> tuple[Errors, float, tuple[str, ...]]:
    """What is held to which bound for quantised weights in batches, and a note on their noise.

    Where a sentence differs by more than `most` between alone and in batches, no batch is right, whatever these errors
    are: the noise is the error then.
    """
    noise_CK = checked.quantised_noise(sentences, alone_CKH)
    worst, own = float(noise_CK.max(initial=0.0)), OWN_DTYPE_BOUNDS[dtype_name(checked.loaded.dtype)]
    if worst > most:
        return [dict(zip(checked.layers, noise_K, strict=True)) for noise_K in noise_CK.tolist()], most, ()
    said = f"quantised: a sentence's states differ by {worst:.1e} at worst between alone and in batches"
    return errors_C, max(own, quantised_bound(noise_CK, most)), (said,) * (worst > BOUND)


def reference_states(checked: Checked, sentences: Sequences) -> Alone:
    """Each sentence alone, as returned; for another engine's check.

    Raises ModelError where a token's state depends on the tokens after it, or is not finite.
    """
    loaded, alone = checked.loaded, compute_alone(checked.loaded, checked.as_returned, sentences)
    with loaded.in_precision(torch.float32) if loaded.can_be_raised else nullcontext():
        _refuse_unless_causal(checked, sentences)
    return alone


def check_engine(
    checked: Checked, states_CKH: NDArray[Any], alone: Alone, layout: str, notes: tuple[str, ...]
) -> SelfCheck:
    """The check of another engine's states of the sentences of `reference_states`.

    Such an engine runs in one precision only: below float32 its distance from float32 is held to the noise of one
    sentence at a time, which a mistake of structure exceeds many times.
    """
    errors_C, bound = (
        checked.errors(states_CKH, alone.states_CKH, checked.loaded.dtype),
        OWN_DTYPE_BOUNDS[alone.own_dtype],
    )
    if alone.dtype == alone.own_dtype:
        return _result(layout, errors_C, bound, notes)
    # A single sentence may be twice as noisy as the noisiest one alone; the root mean square is held to less.
    check = _result(layout, errors_C, max(bound, 2 * float(alone.noise_CK.max())), notes)
    noise_C = [
        {k: noise_K[checked.layers.index(k)] for k in errors}
        for errors, noise_K in zip(errors_C, alone.noise_CK.tolist(), strict=True)
    ]
    return _with_rounding(checked, check, errors_C, noise_C)


def _result(layout: str, errors_C: Errors, bound: float, notes: tuple[str, ...] = ()) -> SelfCheck:
    return SelfCheck(layout, bound, self_check.worst_by_layer(errors_C), len(errors_C), notes)


def _with_rounding(checked: Checked, check: SelfCheck, ours_C: Errors, noise_C: Errors) -> SelfCheck:
    routed, name = is_routed(checked.loaded.decoder.config), dtype_name(checked.loaded.dtype)
    return replace(check, rounding=self_check.rounding_check(name, ours_C, noise_C, routed=routed))


def _refuse_unless_causal(checked: Checked, sentences: Sequences) -> None:
    """Raise ModelError where a token's state depends on the tokens after it, in the present precision."""
    loaded = checked.loaded
    bound = BOUND if loaded.can_be_raised else OWN_DTYPE_BOUNDS[dtype_name(loaded.dtype)]
    # Scales of activations may be those of the whole sentence.
    bound = ROUTED_BOUND if loaded.is_quantised else bound
    with checked.as_transformers():
        find = partial(self_check.first_difference, loaded.decoder, sentences, checked.rules, together=loaded.together)
        difference = find(bound)
        if difference is not None and difference < LARGEST_NOISE and loaded.dtype == torch.float32:
            # A deep model may be that noisy in float32: float64 tells.
            exact = loaded.in_float64(lambda: [find(FLOAT64_BOUND)])
            difference = difference if exact is None else exact[0]
    if difference is not None:
        raise ModelError(
            f"model {loaded.model} is not a causal decoder: what follows a token changes its state by {difference:.1g}",
            hint="Only decoders that read from left to right are supported.",
        )


def _without_noise(
    checked: Checked,
    sentences: Sequences,
    states_CKH: NDArray[Any],
    alone_CKH: NDArray[np.float32],
    errors_C: Errors,
) -> Errors:
    """Errors of float32, less a multiple of the model's own noise in float32 where they are out of bounds.

    A few sentences of deep models are that noisy. Only those are computed in float64.
    """
    suspects = np.array([c for c, e in enumerate(errors_C) if BOUND < max(e.values()) < LARGEST_NOISE], np.int64)
    if not len(suspects):
        return errors_C
    result_C = list(errors_C)
    exact_CKH = checked.loaded.in_float64(lambda: checked.alone(sentences.take(suspects)))
    if exact_CKH is None:
        return errors_C
    ours_C = checked.errors(states_CKH[suspects], exact_CKH, checked.loaded.dtype)
    noise_C = checked.differences(alone_CKH[suspects], exact_CKH)
    for c, ours, noise in zip(suspects.tolist(), ours_C, noise_C, strict=True):
        result_C[c] = {k: max(0.0, ours[k] - FLOAT32_NOISE_FACTOR * noise[k]) for k in ours}
    return result_C
