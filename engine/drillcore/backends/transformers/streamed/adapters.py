"""An adapter on a model whose decoder layers are streamed: its own weights, which are small, stay in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from drillcore.backends.source import ModelSource
from drillcore.backends.transformers.adapted import put_on
from drillcore.backends.transformers.streamed.weights import LayerWeights
from drillcore.backends.weight_files import first_line
from drillcore.errors import ModelError
from drillcore.system.quiet import quiet_transformers


def add_adapter(source: ModelSource, causal: Any, weights: LayerWeights, device: torch.device) -> None:
    """Put a model's adapter on it, if it has one, beside its weights or into each layer as that is read.

    causal: the model with empty layers. Raises ModelError where the adapter does not fit, or cannot be merged so.
    """
    if source.adapter is None:
        return
    # Modules are replaced in one tree of two, which share all parameters: the other keeps the names of the files.
    tree = sharing_tree(causal)
    with quiet_transformers(), _standing_in(weights, device):
        put_on(source, source.adapter, tree if source.model.merge_adapter else causal, str(device))
    if source.model.merge_adapter:
        weights.merges = _merges(source, tree.requires_grad_(False), weights)
    else:
        weights.tree = tree
    weights.files.check()


@contextmanager
def _standing_in(weights: LayerWeights, device: torch.device) -> Iterator[None]:
    """A context in which empty parameters have a value that takes no memory: peft looks at their device and dtype."""
    for place in (place for places in weights.places for place in places):
        value = torch.zeros((), dtype=place.empty.dtype, device=device).expand(place.empty.shape)
        place.module._parameters[place.name] = nn.Parameter(value, requires_grad=False)
    try:
        yield
    finally:
        for place in (place for places in weights.places for place in places):
            place.clear()


def sharing_tree(module: nn.Module, made: dict[int, nn.Module] | None = None) -> Any:
    """A copy of a module in which other children can be put, with the same parameters and buffers.

    >>> one = nn.Sequential(nn.Linear(2, 2))
    >>> other = sharing_tree(one)
    >>> other[0] = nn.Sequential(other[0])
    >>> one[0].weight is other[0][0].weight, len(list(one.modules())), len(list(other.modules()))
    (True, 2, 3)
    """
    made = {} if made is None else made
    if not module._modules:
        return module
    if id(module) not in made:
        made[id(module)] = copied = module.__class__.__new__(module.__class__)
        vars(copied).update(vars(module))
        vars(copied)["_modules"] = {
            name: None if child is None else sharing_tree(child, made) for name, child in module._modules.items()
        }
    return made[id(module)]


@contextmanager
def without_adapter(weights: LayerWeights) -> Iterator[None]:
    """A context in which layers that are read, and the model around them, compute without the adapter."""
    if weights.tree is None and not weights.merges:
        yield
        return
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    kinds = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    layers = [m for m in weights.causal.modules() if isinstance(m, kinds)]
    merges, weights.merges = weights.merges, []
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        weights.merges = merges
        for layer in layers:
            layer.enable_adapters(True)
        weights.causal.requires_grad_(False)


def _merges(source: ModelSource, tree: Any, weights: LayerWeights) -> list[list[Callable[[], None]]]:
    """For each decoder layer, what adds the adapter to its parameters once they are read."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    numbers = {id(place.empty): number for number, places in enumerate(weights.places) for place in places}
    found: list[list[Callable[[], None]]] = [[] for _ in weights.places]
    for name, module in tree.named_modules():
        if isinstance(module, AuxiliaryTrainingWrapper):
            raise _cannot(source, f"replaces {name}", "Leave merge_adapter out.")
        if isinstance(module, BaseTunerLayer):
            inside = {numbers.get(id(p)) for p in module.get_base_layer().parameters()}
            number = inside.pop() if len(inside) == 1 else None
            if number is None:
                raise _cannot(
                    source, f"changes {name}, which no decoder layer has to itself", "Leave merge_adapter out."
                )
            found[number].append(_merge_of(source, module))
    return found


def _merge_of(source: ModelSource, module: Any) -> Callable[[], None]:
    def merge() -> None:
        try:
            module.merge(safe_merge=True)
        except (ValueError, RuntimeError, NotImplementedError, AttributeError) as error:
            raise ModelError(
                f"model {source.model.id}: its adapter cannot be merged: {first_line(error)}",
                hint="Set merge_adapter: false.",
            ) from error
        module.merged_adapters.clear()  # the parameters are dropped with their layer

    return merge


def _cannot(source: ModelSource, why: str, hint: str = "Set extract.weights: resident.") -> ModelError:
    return ModelError(f"model {source.model.id}: its adapter {why}: it does not go with streamed weights", hint=hint)
