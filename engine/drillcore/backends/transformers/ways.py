"""Ways to compute a model's batches: layout, attention and compiler, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from drillcore.backends.transformers import cpu_attention as products
from drillcore.backends.transformers import cpu_trees as trees
from drillcore.backends.transformers import flex_attention as flex
from drillcore.job.extract import Extract


@dataclass(frozen=True)
class Way:
    """How batches are computed.

    attention: the function's name, as transformers knows it. compiled: decoder layers. merged: linear layers that share
    their input. single: one sentence a batch, for quantised weights whose states depend on the others of it.
    """

    layout: str
    attention: str
    compiled: bool = False
    merged: bool = False
    single: bool = False

    def __str__(self) -> str:
        layout = "one sentence at a time" if self.single else self.layout
        return f"{layout} with {self.attention}{', compiled' * self.compiled}{', merged' * self.merged}"


def way_of(numerics: dict[str, Any]) -> Way:
    """The way that numerics record."""
    is_set = {key: numerics.get(key) is not None for key in ("compile", "merged")}
    return Way(numerics["layout"], numerics["attention"], compiled=is_set["compile"], merged=is_set["merged"])


def ways_to_try(
    extract: Extract, device: torch.device, dtype: torch.dtype, plain: str, *, packable: bool, quantised: bool = False
) -> list[Way]:
    """The ways that a job allows, the cheapest first.

    plain: the attention that transformers chose. packable: whether the model's attention can be expressed for packs.
    quantised: whether the weights are, so that no batch at all may be right.
    """
    layouts = [extract.layout] if extract.layout != "auto" else ["packed", "padded", "equal"]
    if extract.layout == "auto" and not packable:
        layouts.remove("packed")
    others = [Way(layout, plain) for layout in layouts if layout != "packed"]
    ways = [*_packed(extract, device, dtype, plain), *others] if "packed" in layouts else others
    if quantised and "equal" in layouts:
        ways.append(Way("equal", plain, single=True))
    return [w for way in ways for w in (replace(way, merged=True), way)] if extract.merge == "on" else ways


def _packed(extract: Extract, device: torch.device, dtype: torch.dtype, plain: str) -> list[Way]:
    on_cpu = device.type == "cpu"
    compiled = extract.compile == "on" or (extract.compile == "auto" and not on_cpu)
    if extract.attention == "flex" or (extract.attention == "auto" and (compiled or not on_cpu)):
        # Only at fixed shapes is a graph compiled once for all batches.
        return [Way("packed", flex.NAME, compiled=True)] * compiled + [Way("packed", flex.NAME)]
    if not on_cpu or plain != "sdpa":
        return [Way("packed", plain)]
    # Below float32 SDPA is the more exact of the two: it keeps the scores in float32.
    dense = Way("packed", products.NAME if dtype == torch.float32 else plain)
    # Some models treat a mask in ways that only a dense one bears.
    return [Way("packed", trees.NAME), dense] if extract.attention == "auto" else [dense]


def register(attention: str) -> None:
    """Make an attention function of ours known to transformers; other names it knows already."""
    from transformers import AttentionInterface

    ours: dict[str, Callable[..., Any]] = {
        products.NAME: products.products_attention,
        trees.NAME: trees.trees_attention,
        flex.NAME: flex.packs_attention,
    }
    if attention == flex.NAME:
        flex.set_up()
    if attention in ours:
        AttentionInterface.register(attention, ours[attention])
