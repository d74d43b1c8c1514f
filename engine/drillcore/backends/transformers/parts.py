"""Finds the decoder inside a model, and the list of its layers.

The decoder is the innermost model of text around the list: it takes token ids and gives states to the head. What an
architecture calls its parts, and how a model of images and text wraps them, does not matter.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from drillcore.errors import ModelError

# Of the parameters in a decoder's lists, the share that lies in the list of its layers: other lists hold small parts.
SHARE = 0.8


@dataclass(frozen=True)
class Parts:
    """A decoder and its layers: `layers` is the attribute `name` of `owner`, which is the decoder or a part of it."""

    decoder: Any
    owner: nn.Module
    name: str
    layers: nn.ModuleList


@dataclass(frozen=True)
class _Found:
    """A list that lies in no other, and the models around it, the innermost last. path: its name in the whole model."""

    homes: tuple[Any, ...]
    owner: nn.Module
    path: str
    layers: nn.ModuleList

    @property
    def size(self) -> int:
        return sum(p.numel() for p in self.layers.parameters())


def find_parts(causal: Any) -> Parts:
    """The decoder of text and its layers; raises ModelError where there is no such list, or more than one."""
    text = causal.config.get_text_config(decoder=True)
    lists = list(_lists(causal, "", ()))
    found = [f for f in lists if f.size]
    found = [f for f in found if f.homes and f.homes[-1].config is text] or found
    of_length = [f for f in found if len(f.layers) == getattr(text, "num_hidden_layers", None)]
    # Some configurations count two layers for each module of the list.
    chosen = _largest(of_length) or _largest(found)
    if chosen is None:
        paths = ", ".join(f.path for f in found)
        where = f"its layers are spread over {paths}" if paths else "it keeps them in no list"
        raise ModelError(
            f"{type(causal).__name__} has no single list of decoder layers: "
            + (f"{lists[0].path} is empty" if lists and not paths else where),
            hint="Layers are what one module after the other adds to one residual stream; this model has no such list.",
        )
    homes = [h for h in chosen.homes if h is not causal and "input_ids" in inspect.signature(h.forward).parameters]
    decoder = homes[-1] if homes else _named(causal, chosen.layers)
    return Parts(decoder, chosen.owner, chosen.path.rpartition(".")[2], chosen.layers)


def _lists(module: nn.Module, path: str, homes: tuple[Any, ...]) -> Iterator[_Found]:
    from transformers import PreTrainedModel

    homes = (*homes, module) if isinstance(module, PreTrainedModel) else homes
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList):
            yield _Found(homes, module, path + name, child)
        else:
            yield from _lists(child, f"{path}{name}.", homes)


def _largest(found: list[_Found]) -> _Found | None:
    """The list that holds nearly all parameters of them all, if one does."""
    if not found:
        return None
    largest = max(found, key=lambda f: f.size)
    return largest if largest.size >= SHARE * sum(f.size for f in found) else None


def _named(causal: Any, layers: nn.ModuleList) -> Any:
    """What the model itself calls its decoder, where no model of its own lies around the layers."""
    decoder = causal.get_decoder()
    if decoder is causal or not any(m is layers for m in decoder.modules()):
        raise ModelError(
            f"{type(causal).__name__} has no decoder apart from its head",
            hint="Models whose layers and head are one module are not supported.",
        )
    return decoder
