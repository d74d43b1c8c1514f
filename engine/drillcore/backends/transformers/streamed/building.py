"""Builds a model whose decoder layers are empty, with everything else in memory."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from drillcore.backends.adapters import WEIGHTS
from drillcore.backends.source import ModelSource, snapshot, weights_folder
from drillcore.backends.transformers.dequantised import as_plain, quantiser_of
from drillcore.backends.transformers.fit import Fit
from drillcore.backends.transformers.parts import find_parts
from drillcore.backends.transformers.streamed.adapters import add_adapter
from drillcore.backends.transformers.streamed.layers import StreamedLayers
from drillcore.backends.transformers.streamed.weights import WeightFiles, split
from drillcore.backends.weight_files import few, weight_files
from drillcore.errors import ModelError


def build_streamed(
    source: ModelSource, fit: Fit, dtype: torch.dtype, device: torch.device
) -> tuple[Any, StreamedLayers]:
    """The model, and its decoder layers, each of which is read when a forward pass comes to it.

    Raises ModelError where weights are missing or cannot be put together, RunError where their files changed.
    """
    folder = weights_folder(source) or snapshot(source)
    files = WeightFiles(
        source.model.id,
        weight_files(source.model.id, folder, getattr(source.config, "transformers_weights", None)),
        [] if source.adapter is None else [source.adapter.folder / WEIGHTS],
    )
    causal = _empty(as_plain(source), fit, dtype)
    layers = find_parts(causal).layers
    try:
        weights = split(causal, layers, files, dtype, device, quantiser_of(source))
    except ModelError as error:
        raise ModelError(f"model {source.model.id}: {error}", hint=error.hint) from error
    streamed = {id(place.empty) for places in weights.places for place in places}
    _fill(source, fit, causal, streamed, device)
    add_adapter(source, causal, weights, device)
    return causal.eval().requires_grad_(False), StreamedLayers(weights, list(layers), device)


def _empty(source: ModelSource, fit: Fit, dtype: torch.dtype) -> Any:
    """The model with empty parameters, and the buffers that it computes itself."""
    from accelerate import init_empty_weights

    def built() -> Any:
        with init_empty_weights(include_buffers=False):
            if fit.loader is source.auto_class():
                return source.new_model(dtype=dtype)
            return fit.loader._from_config(copy.deepcopy(source.config), dtype=dtype, **source.attention())

    try:
        with _NothingForEmpty():
            causal = built()
    except (RuntimeError, NotImplementedError):  # it computes with what it made empty
        return built()
    return built() if any(buffer.is_meta for buffer in causal.buffers()) else causal


class _NothingForEmpty(TorchFunctionMode):
    """No memory for what `torch.empty` makes: weights are made by it, and emptied one after the other only then."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **{**(kwargs or {}), **({"device": "meta"} if func is torch.empty else {})})


def _fill(source: ModelSource, fit: Fit, causal: Any, streamed: set[int], device: torch.device) -> None:
    """Zeros for what no hidden state depends on and the files lack; all that stays on the device."""
    lacking = []
    for path, module in causal.named_modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is None or id(parameter) in streamed or not parameter.is_meta:
                continue
            whole = f"{path}.{name}".removeprefix(".")
            if fit.expected.used(whole):
                lacking.append(whole)
            module._parameters[name] = nn.Parameter(torch.zeros_like(parameter, device=device), requires_grad=False)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None and buffer.device != device:
                module._buffers[name] = buffer.to(device)
    if lacking:
        raise _cannot(source, lacking)


def _cannot(source: ModelSource, names: Sequence[str]) -> ModelError:
    return ModelError(
        f"model {source.model.id}: weights that its states depend on are not in its files: {few(sorted(names))}",
        hint="It cannot be read layer by layer: set extract.weights: resident.",
    )
