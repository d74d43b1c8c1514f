"""From a block to the batches of packs that a model's numerics ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from drillcore.backends.transformers import cpu_trees as trees
from drillcore.backends.transformers import flex_attention as flex
from drillcore.errors import RunError
from drillcore.tokens.batches import Batch, batches, filled, halve
from drillcore.tokens.former_packs import build_former_packs
from drillcore.tokens.packs import build_packs
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.widths import PackRule

# How packs are built, in the numerics; those of stores written before this was recorded are built as they were.
FAMILIES = "families"
# On a CPU, the time of a node's dense attention over the time of everything else is this times (width of its pack /
# hidden size): about 2 / 12 of the operations, at a quarter of their speed.
ATTENTION_COST = 2 / 3
# Nodes of a batch on a CPU, and the widest pack where a node's attention costs the same whatever its pack's width.
CPU_NODES, WIDEST = 1024, 32_768
# The widest pack of sentences that share a prefix where attention is dense: a mask holds the square of it.
WIDEST_DENSE = 4096
# Values of the hidden size that a node takes in a pass, about, and the part of a worker's memory for one pack.
VALUES_PER_NODE, MEMORY_SHARE = 40, 8
# Widths of batches of fixed shapes, beside the full one, in eighths of it: each is compiled for.
EIGHTHS = (6, 4, 3, 2, 1)


def pack_numerics(
    attention: str,
    batch_tokens: int | str,
    *,
    on_cpu: bool,
    hidden_size: int,
    memory_bytes: int,
    fitting_nodes: int,
    thresholds: Sequence[int] = (),
) -> dict[str, Any]:
    """What decides the packs of a model: sizes in nodes, and how they are built.

    memory_bytes: of the host, for one worker. fitting_nodes: of a batch in a GPU's memory. thresholds: numbers of nodes
    beyond which the model may compute in another way.
    """
    auto = isinstance(batch_tokens, str)
    nodes = (CPU_NODES if on_cpu else fitting_nodes) if isinstance(batch_tokens, str) else batch_tokens
    if attention == flex.NAME:
        # One row a batch: tiles make a wide row cost what many narrow ones do, and one shape is compiled for.
        width = max(flex.TILE, nodes // flex.TILE * flex.TILE)
        return {"packs": FAMILIES, "width": width, "widest": width, "attention_cost": 0.0, "batch_nodes": width}
    width = 64 if on_cpu else 512
    if attention != trees.NAME:
        cost = round(ATTENTION_COST / hidden_size, 6)
        widest = min(nodes, WIDEST_DENSE)
        return {"packs": FAMILIES, "width": width, "widest": widest, "attention_cost": cost, "batch_nodes": nodes}
    widest = nodes
    if auto:
        limits = [t for t in thresholds if t >= nodes]
        fitting = memory_bytes // MEMORY_SHARE // (4 * VALUES_PER_NODE * hidden_size)
        widest = max(nodes, min([WIDEST, fitting, *limits]))
    return {"packs": FAMILIES, "width": width, "widest": widest, "attention_cost": 0.0, "batch_nodes": nodes}


def raised_note(batch_tokens: int | str, numerics: dict[str, Any]) -> tuple[str, ...]:
    """A note where a pass computes more tokens than the job says, since no pack is narrower.

    >>> raised_note(4, {"layout": "packed", "width": 64})
    ('extract.batch_tokens is 4: a pass computes 64 tokens or more, the width of a pack',)
    """
    width = numerics.get("width", 0) if numerics["layout"] == "packed" else 0
    if isinstance(batch_tokens, str) or batch_tokens >= width:
        return ()
    return (f"extract.batch_tokens is {batch_tokens}: a pass computes {width} tokens or more, the width of a pack",)


def pack_rule(numerics: dict[str, Any]) -> PackRule:
    """How wide the packs are."""
    widest = numerics.get("widest", numerics["batch_nodes"])
    return PackRule(numerics["width"], widest, numerics.get("attention_cost", 0.0))


def pack_batches(block: Sequences, numerics: dict[str, Any]) -> list[Batch]:
    """The batches of a block; only FlexAttention is compiled for fixed shapes."""
    nodes, rule, fixed = numerics["batch_nodes"], pack_rule(numerics), numerics["attention"] == flex.NAME
    if numerics.get("packs") != FAMILIES:
        former = batches(build_former_packs(block, rule), nodes, trim=not fixed)
        return [filled(b, nodes // b.token_ids_RW.shape[1]) for b in former] if fixed else list(former)
    packs = build_packs(block, rule)
    if not fixed:
        return list(batches(packs, nodes, trim=True))
    sizes_P, width_P = np.diff(packs.pack_start), packs.width_P.copy()
    for width in (rule.width * eighths // 8 for eighths in EIGHTHS):
        if width % flex.TILE == 0:
            width_P[sizes_P <= width] = width
    return list(batches(replace(packs, width_P=width_P), 1))


def halves_of(batch: Batch, step: int, device: str, error: Exception) -> tuple[Sequence[Batch], str]:
    """The halves of a batch that a device has no memory for, and a note on it; raises RunError for a single row.

    step: nodes that a row's width is a multiple of. error: what the device raised.
    """
    halves = halve(batch, step)
    if not halves:
        raise RunError(
            f"{device} has no memory for one row of {batch.token_ids_RW.shape[1]} tokens, "
            f"which holds sentence {int(batch.sentence_S[0])} of its block",
            hint="Leave out the longest sentences, set extract.too_long: truncate, or spread the model.",
        ) from error
    num_rows, width = halves[0].token_ids_RW.shape
    return halves, f"out of memory: batch halved to {num_rows} rows of {width} tokens"
