"""The end of a decoder, found by what it does: what stands between its last layer and its output, and its logits.

Module names say nothing here. One short sentence runs through the whole model; the final norm is whatever turns the
output of the last decoder layer into the decoder's output.

Shape legend: T tokens of the sentence, G states, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from drillcore.errors import ModelError

NUM_TOKENS = 6


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
    `problem`.
    """

    final_norm: Callable[[Tensor], Tensor] | None
    block_TH: Tensor
    output_TH: Tensor
    logits_TV: Tensor | None
    problem: str = ""


@dataclass
class _Call:
    module: nn.Module
    given: Tensor | None
    made: Tensor | None = None


@dataclass
class _Trace:
    """What modules outside the decoder layers did after the last one."""

    block: Tensor | None = None
    output: Tensor | None = None
    calls: list[_Call] = field(default_factory=list)
    open: list[_Call] = field(default_factory=list)

    def last_layer(self, module: nn.Module, args: Any, output: Any) -> None:
        made = first_tensor(output)
        # A copy: the decoder may go on in place.
        self.block = None if made is None else made.clone()
        self.calls.clear()
        self.open.clear()

    def begin(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self.block is not None and self.output is None:
            given = first_tensor([*args, *kwargs.values()])
            self.open.append(_Call(module, None if given is None else given.clone()))

    def end(self, module: nn.Module, args: Any, output: Any) -> None:
        # Those that began before the last decoder layer contain it.
        if self.open and self.open[-1].module is module:
            call = self.open.pop()
            call.made = first_tensor(output)
            self.calls.append(call)

    def decoder(self, module: nn.Module, args: Any, output: Any) -> None:
        self.output = first_tensor(output)


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor of floating point in a module's arguments or output: `last_hidden_state` of a model's."""
    if isinstance(value, torch.Tensor):
        return value if value.is_floating_point() else None
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    found = (first_tensor(part) for part in parts)
    return next((tensor for tensor in found if tensor is not None), None)


def find_ending(causal: Any, decoder: nn.Module, decoder_layers: Iterable[nn.Module], vocab_size: int) -> Ending:
    """Run a short sentence through a whole model.

    Raises ModelError where not even its decoder runs, or its last decoder layer takes no part in that.
    """
    trace, layers = _Trace(), list(decoder_layers)
    inside = {id(m) for layer in layers for m in layer.modules()}
    outside = [m for m in decoder.modules() if id(m) not in inside and m is not decoder]
    handles = [
        layers[-1].register_forward_hook(trace.last_layer),
        decoder.register_forward_hook(trace.decoder),
        *(m.register_forward_pre_hook(trace.begin, with_kwargs=True) for m in outside),
        *(m.register_forward_hook(trace.end) for m in outside),
    ]
    device = causal.get_input_embeddings().weight.device
    ids_T = torch.randint(vocab_size, (NUM_TOKENS,), generator=torch.Generator().manual_seed(0)).to(device)
    logits, problem = None, ""
    try:
        with torch.inference_mode():
            logits = _run(causal, ids_T)
    except Exception as error:  # whatever an architecture's own code raises: its decoder may run all the same
        problem = f"it does not run on token ids alone ({type(error).__name__}: {str(error).splitlines()[0]})"
        _run_decoder(decoder, ids_T)
    finally:
        for handle in handles:
            handle.remove()
    if trace.block is None or trace.output is None:
        raise ModelError(
            f"the last decoder layer of {type(decoder).__name__} takes no part in a sentence of {NUM_TOKENS} tokens",
            hint="Its layout is not supported.",
        )
    block_TH, output_TH = (t.reshape(NUM_TOKENS, t.shape[-1]) for t in (trace.block, trace.output))
    norm = _proved(_chain(trace.block, trace.output, trace.calls), block_TH, output_TH)
    if not problem and logits is None:
        problem = "it returns no logits"
    return Ending(norm, block_TH, output_TH, logits, problem)


def _run_decoder(decoder: nn.Module, ids_T: Tensor) -> None:
    try:
        with torch.inference_mode():
            decoder(input_ids=ids_T[None], use_cache=False)
    except Exception as error:  # whatever an architecture's own code raises
        raise ModelError(
            f"{type(decoder).__name__} does not run on token ids alone "
            f"({type(error).__name__}: {str(error).splitlines()[0]})",
            hint="Only models that take text alone are supported.",
        ) from error


def _run(causal: Any, ids_T: Tensor) -> Tensor | None:
    logits = getattr(causal(input_ids=ids_T[None], use_cache=False), "logits", None)
    return None if logits is None or logits.shape[:-1] != (1, NUM_TOKENS) else logits[0].float().cpu()


def _chain(given: Tensor, goal: Tensor, calls: Sequence[_Call]) -> list[nn.Module] | None:
    """Modules that were called one after the other and turned one tensor into the other, or None."""
    if _same(given, goal):
        return []
    for k, call in enumerate(calls):
        if call.given is not None and call.made is not None and _same(call.given, given):
            rest = _chain(call.made, goal, calls[k + 1 :])
            if rest is not None:
                return [call.module, *rest]
    return None


def _same(one: Tensor, other: Tensor) -> bool:
    if one.numel() != other.numel():
        return False
    one, other = one.reshape(-1), other.reshape(-1)
    return torch.equal(one.to(other.dtype), other) or torch.equal(one, other.to(one.dtype))


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


def relative_error(got: Tensor, want: Tensor) -> float:
    """Worst ‖a − b‖₂ / ‖b‖₂ over rows."""
    wide = want.double()
    return float(((got.double() - wide).norm(dim=-1) / wide.norm(dim=-1).clamp_min(1e-30)).max())
