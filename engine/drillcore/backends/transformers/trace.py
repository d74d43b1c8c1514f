"""One short sentence through a decoder: what each of its layers gave, and what was called after the last one.

Shape legend: T tokens of the sentence, H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from drillcore.backends.alone import relative_errors
from drillcore.errors import ModelError

NUM_TOKENS = 6


@dataclass
class Call:
    """A module that was called after the last decoder layer: what it was given and what it made of that."""

    module: nn.Module
    given: Tensor | None
    made: Tensor | None = None


@dataclass
class Trace:
    """What was seen. entered: states as they enter the first layer. made: by layer number; those that ran."""

    entered: Tensor | None = None
    made: dict[int, Tensor] = field(default_factory=dict)
    num_runs: dict[int, int] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    output: Tensor | None = None
    hidden_states: Sequence[Tensor] | None = None

    def after(self, layer: int) -> Tensor:
        """States after a layer; a layer that did not run leaves those of the one before."""
        ran = [k for k in self.made if k <= layer]
        if ran:
            return self.made[max(ran)]
        assert self.entered is not None
        return self.entered


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor of floating point in a module's arguments or output: `last_hidden_state` of a model's."""
    if isinstance(value, torch.Tensor):
        return value if value.is_floating_point() else None
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    found = (first_tensor(part) for part in parts)
    return next((tensor for tensor in found if tensor is not None), None)


def trace_decoder(decoder: nn.Module, decoder_layers: Iterable[nn.Module], ids_T: Tensor) -> Trace:
    """Run a decoder on a sentence; raises ModelError where it does not run on token ids alone."""
    trace, layers = Trace(), list(decoder_layers)
    last, open_calls = len(layers), list[Call]()

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        given = first_tensor([*args, *kwargs.values()])
        trace.entered = None if given is None else given.clone()

    def leave(layer: int, output: Any) -> None:
        made = first_tensor(output)
        trace.num_runs[layer] = trace.num_runs.get(layer, 0) + 1
        if made is not None:
            # A copy: the decoder may go on in place.
            trace.made[layer] = made.clone()
        trace.calls.clear()
        open_calls.clear()

    def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
        if last in trace.made:
            given = first_tensor([*args, *kwargs.values()])
            open_calls.append(Call(module, None if given is None else given.clone()))

    def end(module: nn.Module, args: Any, output: Any) -> None:
        # Those that began before the last decoder layer contain it.
        if open_calls and open_calls[-1].module is module:
            trace.calls.append(open_calls.pop())
            trace.calls[-1].made = first_tensor(output)

    inside = {id(m) for layer in layers for m in layer.modules()}
    outside = [m for m in decoder.modules() if id(m) not in inside and m is not decoder]
    handles = [
        layers[0].register_forward_pre_hook(enter, with_kwargs=True),
        *(m.register_forward_hook(lambda m, args, out, k=k: leave(k, out)) for k, m in enumerate(layers, 1)),
        *(m.register_forward_pre_hook(begin, with_kwargs=True) for m in outside),
        *(m.register_forward_hook(end) for m in outside),
    ]
    try:
        with torch.inference_mode():
            output = decoder(input_ids=ids_T[None], use_cache=False, output_hidden_states=True)
    except Exception as error:  # whatever an architecture's own code raises
        raise ModelError(
            f"{type(decoder).__name__} does not run on token ids alone ({describe(error)})",
            hint="Only models that take text alone are supported.",
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    trace.output, trace.hidden_states = first_tensor(output), getattr(output, "hidden_states", None)
    return trace


def not_finite(decoder: nn.Module, sentence: str) -> ModelError:
    """The error of a decoder whose states are not numbers."""
    return ModelError(
        f"{type(decoder).__name__} gives states that are NaN or infinite for {sentence}",
        hint="Its weights are damaged or were converted wrongly; in float16, take bfloat16 or float32.",
    )


def describe(error: Exception) -> str:
    """Kind and first line of an error."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def refuse_other_shapes(trace: Trace, name: str, num_layers: int, hidden_size: int) -> None:
    """Raise ModelError where the decoder layers do not give one state for each token."""
    if trace.entered is None or num_layers not in trace.made or trace.output is None:
        raise ModelError(
            f"the decoder layers of {name} take no part in a sentence of {NUM_TOKENS} tokens",
            hint="Its layout is not supported.",
        )
    runs = max(trace.num_runs.values())
    if runs > 1:
        raise ModelError(
            f"{name} runs its decoder layers {runs} times for one sentence",
            hint="A layer that runs several times has no one state for a token; such models are not supported.",
        )
    made, size = trace.made[num_layers], NUM_TOKENS * hidden_size
    if NUM_TOKENS not in made.shape:
        raise ModelError(
            f"the decoder layers of {name} give states of the shape {tuple(made.shape)} for a sentence of {NUM_TOKENS} "
            "tokens: it adds tokens of its own, or joins some",
            hint="Only decoders with one state for each token of a sentence are supported.",
        )
    if made.numel() != size:
        streams = made.numel() / size
        raise ModelError(
            f"the decoder layers of {name} hand on {streams:g} residual streams of width {hidden_size}, not one",
            hint="Such a layer has no one state for a token; models with several residual streams are not supported.",
        )
    if trace.output.numel() != NUM_TOKENS * trace.output.shape[-1]:
        raise ModelError(
            f"{name} does not give one state for each token (its output has the shape {tuple(trace.output.shape)})",
            hint="Such models are not supported.",
        )


def places(trace: Trace, num_layers: int) -> tuple[int | None, ...] | None:
    """Where layers 0 to L - 1 stand in `hidden_states`; None for one that is not there, or where there are none.

    Some architectures leave the embedding out, others the layers that text alone skips.
    """
    if trace.hidden_states is None or trace.entered is None:
        return None
    found: list[int | None] = []
    for layer in range(num_layers):
        want = trace.after(layer) if layer else trace.entered
        same = (i for i, states in enumerate(trace.hidden_states) if states is not None and same_values(states, want))
        found.append(next(same, None))
    return tuple(found)


def relative_error(got: Tensor, want: Tensor) -> float:
    """Worst ‖a − b‖₂ / ‖b‖₂ over rows; NaN where any is."""
    return float(relative_errors(got.double().cpu().numpy(), want.double().cpu().numpy()).max())


def same_values(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same values, whatever their shapes and dtypes."""
    if one.numel() != other.numel():
        return False
    one, other = one.reshape(-1), other.reshape(-1)
    return torch.equal(one.to(other.dtype), other) or torch.equal(one, other.to(one.dtype))
