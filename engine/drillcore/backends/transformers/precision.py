"""Runs a loaded model in a higher precision, decoder layer by decoder layer, and puts it back bit for bit.

A value of bfloat16 or float16 is a value of float32 too, so that converting there and back changes nothing. Only one
decoder layer at a time is in the higher precision, so that a model may fill most of the memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def can_be_raised(causal: Any, dtype: torch.dtype) -> bool:
    """Whether a model of this dtype can compute in float32, which is more exact: its weights are plain numbers."""
    plain = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    is_plain = all(p.dtype in plain and not p.is_meta for p in causal.parameters())
    # Quantised weights, and those on the meta device, are not.
    return dtype != torch.float32 and is_plain and getattr(causal, "hf_quantizer", None) is None


@contextmanager
def computing_in(causal: nn.Module, decoder_layers: nn.ModuleList, dtype: torch.dtype) -> Iterator[None]:
    """Compute in `dtype` inside the context: weights and buffers of a lower precision are converted and restored."""
    in_layers = {id(t) for layer in decoder_layers for t in (*layer.parameters(), *layer.buffers())}
    outside = [t for t in tensors_of(causal) if id(t) not in in_layers]
    before = raised(outside, dtype)
    open_layers: dict[int, list[tuple[Tensor, torch.dtype]]] = {}

    def enter(layer: nn.Module, args: Any, kwargs: Any) -> None:
        open_layers[id(layer)] = raised(tensors_of(layer), dtype)

    def leave(layer: nn.Module, args: Any, output: Any) -> None:
        lowered(open_layers.pop(id(layer), []))

    handles = []
    for layer in decoder_layers:
        handles += [layer.register_forward_pre_hook(enter, with_kwargs=True, prepend=True)]
        handles += [layer.register_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for converted in open_layers.values():
            lowered(converted)
        lowered(before)


@contextmanager
def experts_in(causal: Any, dtype: torch.dtype) -> Iterator[None]:
    """Let a model's experts compute one after the other in float64, which grouped products do not take."""
    if dtype != torch.float64 or not hasattr(causal, "get_experts_implementation"):
        yield
        return
    before = causal.get_experts_implementation()
    causal.set_experts_implementation("eager")
    try:
        yield
    finally:
        causal.set_experts_implementation(before)


def tensors_of(module: nn.Module) -> list[Tensor]:
    """Parameters and buffers, each once."""
    return list({id(t): t for t in (*module.parameters(), *module.buffers())}.values())


def raised(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[tuple[Tensor, torch.dtype]]:
    """Convert those of a lower precision in place; returns them with the dtype that each had."""
    changed = [t for t in tensors if t.is_floating_point() and t.dtype.itemsize < dtype.itemsize]
    before = [(t, t.dtype) for t in changed]
    for tensor in changed:
        tensor.data = tensor.data.to(dtype)
    return before


def lowered(before: Sequence[tuple[Tensor, torch.dtype]]) -> None:
    """Put back the dtype that each had."""
    for tensor, dtype in before:
        tensor.data = tensor.data.to(dtype)
