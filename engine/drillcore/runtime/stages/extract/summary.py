"""What the extract stage reports of a model, to the user and in the manifest."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from drillcore.backends.base import Prepared
from drillcore.runtime.context import Context
from drillcore.runtime.stages.extract.recipes import hardware_words
from drillcore.runtime.stages.extract.standing import Standing
from drillcore.runtime.work.tasks import BlockDone
from drillcore.system.progress import counted, tell_detail


def record_model(context: Context, name: str, prepared: Prepared) -> None:
    """Report a model's numerics and self-check to the user and in the manifest."""
    check = prepared.check
    context.manifest.record(
        "models",
        name,
        numerics=prepared.numerics,
        self_check={
            "layout": check.layout,
            "bound": check.bound,
            "worst_relative_error": check.worst,
            "by_layer": check.relative_error,
            "sentences": check.num_sentences,
            **({"rounding": asdict(check.rounding)} if check.rounding else {}),
        },
        load_seconds=round(prepared.load_seconds, 3),
        notes=list(prepared.notes),
        **({"compiled": prepared.compiled} if prepared.compiled else {}),
        **({"device_memory": prepared.memory} if "free_bytes" in prepared.memory else {}),
    )
    tell_detail(f"{name}: numerics {json.dumps(prepared.numerics, default=str)}")
    if prepared.choice:
        context.manifest.record("models", name, backend=prepared.choice)
        context.listener.say(f"{name}: backend {prepared.choice['reason']}")
    for note in prepared.notes:
        context.listener.say(f"{name}: {note}")
    if check.relative_error and not prepared.is_reused:
        rounding = check.rounding
        noise = (
            ""
            if rounding is None
            else (
                f"{rounding.dtype} {rounding.worst_ratio:.2f} times as noisy as one sentence at a time (bound "
                f"{rounding.factor:g}), "
            )
        )
        context.listener.say(
            f"{name}: self-check passed: relative error {check.worst:.1e} at worst (bound {check.bound:.0e}), {noise}"
            f"{check.layout} layout, {prepared.load_seconds:.1f} s to load"
        )


def kept_note(standing: Standing, request: dict[str, Any], num_pending: int = 0) -> str:
    """A line for states that stay although versions, cores or the device changed; empty where none do.

    num_pending: sentences of the group that are computed now, with what is here.
    """
    others = [r.request for r in standing.recipes if r.request != request]
    if not others or not standing.num_kept:
        return ""
    before = "; ".join(dict.fromkeys(hardware_words(r, request) for r in others)) or "other versions"
    now = "; ".join(dict.fromkeys(hardware_words(request, r) for r in others)) or "others"
    what = f"computed with {before}; here it is {now}"
    if num_pending:
        return f"{standing.path}: {num_pending:,} sentences are computed with {now}; the others, {before}, stay"
    return f"{standing.path}: its states and their numerics stay as {what}"


def summarise(context: Context, name: str, done: list[BlockDone], wall: float) -> str:
    """Record seconds by step and rates in the manifest; returns a line for the user."""
    seconds: dict[str, float] = {}
    for block in done:
        for step, spent in block.seconds.items():
            seconds[step] = seconds.get(step, 0.0) + spent
    sentences, nodes = sum(b.num_sentences for b in done), sum(b.num_nodes for b in done)
    tokens, padding = sum(b.num_tokens for b in done), sum(b.num_padding for b in done)
    bound = max(seconds, key=seconds.__getitem__, default="forward")
    rate = 1 / max(wall, 1e-9)
    sweeps = sum(b.sweeps for b in done)
    context.manifest.record(
        "models",
        name,
        extract={
            "sentences": sentences,
            "tokens": tokens,
            "nodes": nodes,
            "padding": padding,
            **({"sweeps": sweeps} if sweeps else {}),
            "wall_seconds": round(wall, 3),
            "seconds": {k: round(v, 3) for k, v in seconds.items()},
            "bound_by": bound,
            "sentences_per_second": round(sentences * rate, 2),
            "nodes_per_second": round(nodes * rate, 2),
            "committed_bytes": sum(b.committed_bytes for b in done),
            "notes": [f"{b.dataset}, block {b.block}: {n}" for b in done for n in b.notes],
        },
    )
    shared = f", {1 - nodes / tokens:.0%} shared" if tokens else ""
    swept = f"; {counted(sweeps, 'sweeps')}" if sweeps else ""
    return (
        f"{name}: {counted(sentences, 'sentences')} in {wall:.1f} s ({sentences * rate:,.1f}/s; {tokens:,} tokens"
        f"{shared}{swept}; bound by {bound})"
    )
