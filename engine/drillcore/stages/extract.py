"""The extract stage: ask which blocks are pending, hand them to the executor, record what came back."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from drillcore import layers
from drillcore.backends.base import Prepared
from drillcore.backends.catalog import identity
from drillcore.cache import digest
from drillcore.errors import RunError
from drillcore.plan import Block, block_sentences, make_blocks, pending
from drillcore.preflight import Input
from drillcore.rows import row_ids
from drillcore.sequences import Sequences
from drillcore.stages.columns import column_types, write_columns
from drillcore.stages.context import Context
from drillcore.store.layout import FORMAT, Shape, attributes_of, choose_shape
from drillcore.store.writer import GroupWriter
from drillcore.work import BlockDone, BlockFailed, BlockTask, ModelTask, Progress

SAMPLE = 64


@dataclass(frozen=True)
class Target:
    """A model and dataset with the blocks that are pending."""

    pair: Input
    writer: GroupWriter
    shape: Shape
    blocks: list[Block]

    @property
    def num_pending(self) -> int:
        """Sentences to extract."""
        return sum(len(b) for b in self.blocks)


def extract(context: Context) -> None:
    """Fill `hidden_states` of every model and dataset; raises RunError naming blocks that failed for good."""
    failed: list[BlockFailed] = []
    started = time.perf_counter()
    for model in context.inputs.loaded.job.models:
        failed += _extract_model(context, model.group)
    context.manifest.record("stages", "extract", wall_seconds=round(time.perf_counter() - started, 3))
    if failed:
        lines = [f"{f.model}/{f.dataset}, sentences {f.start} to {f.stop - 1}: {f.error}" for f in failed]
        raise RunError(
            f"{len(failed)} blocks failed for good, everything else is kept:\n" + "\n".join(lines),
            hint="Run the same command again to try them once more.",
        )


def _extract_model(context: Context, name: str) -> list[BlockFailed]:
    pairs, group = context.inputs.of_model(name), context.store.model(name)
    request = _request(context, name)
    known = attributes_of(group)
    stored = known.get("numerics") if known.get("numerics_for") == digest(request) else None
    if stored is not None:
        targets = [_target(context, pair, request, stored) for pair in pairs]
        if not any(t.blocks for t in targets):
            context.report.say(f"{name}: all {sum(len(p.tokens) for p in pairs):,} sentences are there already")
            return []
    task = _model_task(context, name, pairs, stored)
    context.report.say(f"{name}: loading and checking the model")
    prepared = context.executor.prepare(task)
    _record(context, name, prepared)
    numerics = stored or {**prepared.numerics, "block_sentences": _block(context, name, pairs)}
    if stored is None:
        group.attrs["numerics"], group.attrs["numerics_for"] = numerics, digest(request)
        targets = [_target(context, pair, request, numerics) for pair in pairs]
    task = replace(task, numerics=numerics)
    return _run(context, name, task, targets)


def _request(context: Context, name: str) -> dict[str, Any]:
    """What the numerics were resolved for: where any of it changes, they are resolved anew."""
    import torch

    source, extract = context.inputs.sources[name], context.inputs.loaded.job.extract
    settings = extract.model_dump(mode="json", exclude={"too_long", "special_tokens"})
    versions = {k: v for k, v in context.manifest.facts["versions"].items() if k in ("torch", "transformers", "vllm")}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else torch.backends.cpu.get_cpu_capability()
    return {
        "model": identity(source),
        "dtype": source.model.dtype,
        "layers": list(context.inputs.layers[name]),
        "extract": settings,
        "versions": versions,
        "device": device,
        "cores": len(os.sched_getaffinity(0)) if extract.threads == "auto" else None,
    }


def _model_task(context: Context, name: str, pairs: list[Input], stored: dict[str, Any] | None) -> ModelTask:
    loaded = context.inputs.loaded
    first_ones = [s for p in pairs for s in p.tokens.slice(0, min(SAMPLE, len(p.tokens)))]
    return ModelTask(
        model=pairs[0].model,
        base=str(loaded.base),
        backend=loaded.job.extract.backend,
        extract=loaded.job.extract,
        layers=context.inputs.layers[name],
        numerics=stored,
        sample=Sequences.of(first_ones),
    )


def _shape(context: Context, pair: Input) -> Shape:
    name, extract = pair.model.group, context.inputs.loaded.job.extract
    facts, wanted = context.inputs.sources[name].facts, context.inputs.layers[name]
    names = [layers.name(k, facts.num_blocks) for k in wanted]
    shard = None if extract.shard_sentences == "auto" else extract.shard_sentences
    return choose_shape(len(pair.tokens), wanted, names, facts.hidden_size, extract.store_dtype, shard)


def _block(context: Context, name: str, pairs: list[Input]) -> int:
    """Sentences of a block for this model; kept with the numerics, since packs depend on it."""
    wanted = context.inputs.loaded.job.extract.block_sentences
    if wanted != "auto":
        return wanted
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(block_sentences(s.shard, s.sentence_bytes, memory) for s in (_shape(context, p) for p in pairs))


def _target(context: Context, pair: Input, request: dict[str, Any], numerics: dict[str, Any]) -> Target:
    """Make the group fit the dataset and find what is pending."""
    shape = _shape(context, pair)
    writer = context.store.dataset(pair.model.group, pair.dataset.name)
    writer.ensure(shape, column_types(pair))
    write_columns(writer, pair)
    common = {
        "format": FORMAT,
        "request": request,
        "policy": asdict(pair.policy),
        "store_dtype": shape.store_dtype,
        "numerics": numerics,
    }
    ids = row_ids(pair.rows.texts(0, pair.rows.num_rows))
    block = max(shape.shard, numerics["block_sentences"] // shape.shard * shape.shard)
    blocks = make_blocks(pair.tokens, ids, common, len(pair.tokens), shape.shard, block)
    return Target(pair, writer, shape, pending(blocks, writer.fingerprints()))


def _run(context: Context, name: str, model: ModelTask, targets: list[Target]) -> list[BlockFailed]:
    tasks = [
        BlockTask(
            model, t.pair.dataset.name, context.store.location.address, t.writer.group.path, t.shape, b,
            t.pair.tokens.slice(b.start, b.stop),
        )
        for t in targets
        for b in t.blocks
    ]  # fmt: skip
    for target in targets:
        target.writer.retract([b.first_shard + i for b in target.blocks for i in range(len(b.fingerprints))])
    total = sum(t.num_pending for t in targets)
    context.report.start(f"extract {name}", total, "sentences")
    started, done, failed = time.perf_counter(), list[BlockDone](), list[BlockFailed]()
    for outcome in context.executor.extract(tasks, Progress(context.report.advance)):
        if isinstance(outcome, BlockDone):
            done.append(outcome)
        else:
            failed.append(outcome)
    wall = time.perf_counter() - started
    context.report.finish(_summarise(context, name, done, wall))
    return failed


def _summarise(context: Context, name: str, done: list[BlockDone], wall: float) -> str:
    """Seconds and rates by step into the manifest, and a line for the user."""
    seconds: dict[str, float] = {}
    for block in done:
        for step, spent in block.seconds.items():
            seconds[step] = seconds.get(step, 0.0) + spent
    sentences, nodes = sum(b.num_sentences for b in done), sum(b.num_nodes for b in done)
    tokens, padding = sum(b.num_tokens for b in done), sum(b.num_padding for b in done)
    bound = max(seconds, key=seconds.__getitem__, default="forward")
    rate = 1 / max(wall, 1e-9)
    context.manifest.record(
        "models", name,
        extract={
            "sentences": sentences, "tokens": tokens, "nodes": nodes, "padding": padding,
            "wall_seconds": round(wall, 3), "seconds": {k: round(v, 3) for k, v in seconds.items()}, "bound_by": bound,
            "sentences_per_second": round(sentences * rate, 2), "nodes_per_second": round(nodes * rate, 2),
            "committed_bytes": sum(b.committed_bytes for b in done),
            "notes": [f"{b.dataset}, block {b.block}: {n}" for b in done for n in b.notes],
        },
    )  # fmt: skip
    shared = f", {1 - nodes / tokens:.0%} shared" if tokens else ""
    return (
        f"{name}: {sentences:,} sentences in {wall:.1f} s ({sentences * rate:,.1f}/s; {tokens:,} tokens{shared}; "
        f"bound by {bound})"
    )


def _record(context: Context, name: str, prepared: Prepared) -> None:
    check = prepared.check
    context.manifest.record(
        "models", name,
        numerics=prepared.numerics,
        self_check={
            "layout": check.layout, "bound": check.bound, "worst_relative_error": check.worst,
            "by_layer": check.relative_error, "sentences": check.num_sentences,
        },
        load_seconds=round(prepared.load_seconds, 3),
        notes=list(prepared.notes),
    )  # fmt: skip
    for note in prepared.notes:
        context.report.say(f"{name}: {note}")
    if check.relative_error:
        context.report.say(
            f"{name}: self-check passed: relative error {check.worst:.1e} at worst (bound {check.bound:.0e}), "
            f"{check.layout} layout, {prepared.load_seconds:.1f} s to load"
        )
