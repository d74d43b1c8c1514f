"""The end of a decoder, found by what it does: what stands between its last layer and its output, and its logits.

Module names say nothing here. One short sentence runs through the whole model; the final norm is whatever turns the
output of the last decoder layer into the decoder's output.

Shape legend: T tokens of the sentence, G states, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from drillcore.backends.base import ModelFacts
from drillcore.backends.transformers.trace import (
    NUM_TOKENS,
    Call,
    describe,
    first_tensor,
    not_finite,
    places,
    refuse_other_shapes,
    relative_error,
    same_values,
    trace_decoder,
)
from drillcore.errors import ModelError


class Chain(nn.Sequential):
    """Modules that follow each other, applied to states [..., H]; none: the states as they are."""

    def forward(self, states: Any) -> Any:
        """Apply them in order."""
        for module in self:
            states = first_tensor(module(states))
        return states


@dataclass(frozen=True)
class Ending:
    """One short sentence through a whole model.

    final_norm: what turns the last decoder layer's output into the decoder's; None where that was not found.
    block_TH, output_TH: the two, in the model's dtype. logits_TV: the model's own; None where it gives none, and why in
    `problem`. ids_T: the sentence. deepest_TH: output of the deepest layer that is wanted. skipped: numbers of layers
    that text alone does not run. places: where layers 0 to L - 1 stand in transformers' `hidden_states`, None where one
    is not there; None where there are no hidden states.
    """

    final_norm: Callable[[Tensor], Tensor] | None
    ids_T: Tensor
    deepest_TH: Tensor
    block_TH: Tensor
    output_TH: Tensor
    logits_TV: Tensor | None
    problem: str = ""
    skipped: frozenset[int] = frozenset()
    places: tuple[int | None, ...] | None = None


def find_ending(
    causal: Any, decoder: nn.Module, decoder_layers: Iterable[nn.Module], facts: ModelFacts, deepest: int
) -> Ending:
    """Run a short sentence through a decoder, and through its whole model. deepest: how many of its layers are wanted.

    Raises ModelError where the decoder does not run, its layers do not give one state for each token, or the whole
    model runs it otherwise.
    """
    device = causal.get_input_embeddings().weight.device
    ids_T = torch.randint(facts.vocab_size, (NUM_TOKENS,), generator=torch.Generator().manual_seed(0)).to(device)
    layers = list(decoder_layers)
    trace = trace_decoder(decoder, layers, ids_T)
    refuse_other_shapes(trace, type(decoder).__name__, len(layers), facts.hidden_size)
    assert trace.output is not None
    if not bool(trace.output.isfinite().all()):
        raise not_finite(decoder, "a short sentence")
    _refuse_unless_causal(decoder, ids_T, trace.output)
    deepest_TH, block_TH, output_TH = (
        t.reshape(NUM_TOKENS, t.shape[-1]) for t in (trace.after(deepest), trace.made[len(layers)], trace.output)
    )
    return Ending(
        _proved(_chain(block_TH, output_TH, trace.calls), block_TH, output_TH),
        ids_T,
        deepest_TH,
        block_TH,
        output_TH,
        *_logits(causal, decoder, ids_T, output_TH),
        skipped=frozenset(range(1, len(layers) + 1)) - trace.made.keys(),
        places=places(trace, len(layers)),
    )


def _refuse_unless_causal(decoder: nn.Module, ids_T: Tensor, output: Tensor) -> None:
    """Raise ModelError where later tokens plainly change the states before them; the self-check looks closely."""
    few = NUM_TOKENS // 2
    try:
        with torch.inference_mode():
            part = first_tensor(decoder(input_ids=ids_T[None, :few], use_cache=False))
    except Exception:  # too short for some architectures: the self-check will say so
        return
    whole = output.reshape(NUM_TOKENS, -1)[:few]
    if part is None or part.numel() != whole.numel() or not relative_error(part.reshape(whole.shape), whole) <= 0.1:
        raise ModelError(
            f"{type(decoder).__name__} is not a causal decoder: what follows a token changes its state",
            hint="Only decoders that read from left to right are supported.",
        )


def _logits(causal: Any, decoder: nn.Module, ids_T: Tensor, output_TH: Tensor) -> tuple[Tensor | None, str]:
    """The whole model's logits [T, V] of a sentence, or why there are none."""
    made: list[Tensor | None] = []
    handle = decoder.register_forward_hook(lambda module, args, output: made.append(first_tensor(output)))
    try:
        with torch.inference_mode():
            logits = getattr(causal(input_ids=ids_T[None], use_cache=False), "logits", None)
    except Exception as error:  # whatever an architecture's own code raises: its decoder runs all the same
        return None, f"it does not run on token ids alone ({describe(error)})"
    finally:
        handle.remove()
    if len(made) != 1 or made[0] is None:
        return None, f"it runs {type(decoder).__name__} {len(made)} times for one sentence"
    if not near(made[0], output_TH):
        raise ModelError(
            f"{type(causal).__name__} gives {type(decoder).__name__} other positions or masks than a causal decoder's",
            hint="Its states of text alone would not be those of the whole model.",
        )
    if logits is None or logits.shape[:-1] != (1, NUM_TOKENS):
        return None, "it gives no logits for each token"
    return logits[0].float().cpu(), ""


def narrowing_of(ending: Ending, hidden_size: int) -> nn.Module | None:
    """The last module of a decoder that gives states narrower than its layers do; None where it keeps their width.

    Raises ModelError where the width changes in any other way.
    """
    width = ending.output_TH.shape[-1]
    if width == hidden_size:
        return None
    modules = list(ending.final_norm) if isinstance(ending.final_norm, Chain) else []
    with torch.inference_mode():
        before = Chain(*modules[:-1])(ending.block_TH)
    if not modules or before.shape[-1] != hidden_size:
        raise ModelError(
            f"the decoder gives states of width {width}, its layers of width {hidden_size}",
            hint="Layers of several widths are supported only where one last module makes the difference.",
        )
    return modules[-1]


def near(got: Tensor, want_TH: Tensor) -> bool:
    """Whether one run gave what another one gave; the same operations on the same shape differ by next to nothing."""
    return got.numel() == want_TH.numel() and relative_error(got.reshape(want_TH.shape), want_TH) <= 1e-2


def _chain(given: Tensor, goal: Tensor, calls: Sequence[Call]) -> list[nn.Module] | None:
    """Modules that were called one after the other and turned one tensor into the other, or None."""
    if same_values(given, goal):
        return []
    for k, call in enumerate(calls):
        if call.given is not None and call.made is not None and same_values(call.given, given):
            rest = _chain(call.made, goal, calls[k + 1 :])
            if rest is not None:
                return [call.module, *rest]
    return None


def _proved(modules: list[nn.Module] | None, block_TH: Tensor, output_TH: Tensor) -> Chain | None:
    """The modules as one, where they give the same again for a few states alone."""
    if modules is None:
        return None
    chain = Chain(*modules)
    try:
        with torch.inference_mode():
            again = chain(block_TH[-2:])
    except Exception:  # a module that takes more than states is not a norm
        return None
    close = again.shape == output_TH[-2:].shape and relative_error(again, output_TH[-2:]) <= 1e-2
    return chain if close else None
