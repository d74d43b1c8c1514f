"""`drillcore plan`: what a job will cost, before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from drillcore.backends.base import Backend
from drillcore.backends.rates import WORTHWHILE, bfloat16_gain
from drillcore.backends.timing import nodes_per_second
from drillcore.job.fields import LoadedJob
from drillcore.job.groups import allow_sizes
from drillcore.runtime.continuing import around_of
from drillcore.runtime.preflight import Input, Inputs, check_job
from drillcore.runtime.work.blocks import MAX_BLOCK
from drillcore.runtime.work.tasks import ModelTask
from drillcore.runtime.work.worker import open_backend
from drillcore.system.progress import ProgressListener, telling
from drillcore.tokens.packs import build_packs
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.tokenizer import Tokenizer
from drillcore.tokens.widths import PackRule

CALIBRATION_SECONDS = 3.0
CALIBRATION_SENTENCES = 2048
# Packs on a CPU, for plans made without the model.
PLAIN_PACKS = PackRule(width=64, widest=32_768)
# Characters of the first sentence that are shown, system prompts included, and how many of its tokens.
LONGEST_SHOWN, LAST_SHOWN = 3000, 5
# Share of their size that float32 states take on disk, by the dtype of the model; measured on residual streams.
DISK_SHARE = {"float32": 0.93, "bfloat16": 0.385, "float16": 0.55}


@dataclass(frozen=True)
class Estimate:
    """The cost of one model and dataset at one position.

    num_rows: sentences, or rows where a sentence has any number of them. num_nodes: tokens to compute after shared
    prefixes are merged; num_padding: padding computed beside them. raw_bytes: states before compression;
    disk_bytes: after it, roughly. seconds: extraction on this machine, None if not measured. example: lines that
    show the first sentence as it is encoded. bfloat16_seconds: extraction in bfloat16, where this CPU multiplies
    faster in it and the model would run in float32. within: the group in whose passes it is filled, which counts
    the tokens and the time of both; empty for that one.
    """

    model: str
    dataset: str
    num_rows: int
    num_tokens: int
    num_nodes: int
    num_padding: int
    raw_bytes: int
    disk_bytes: int
    seconds: float | None
    example: tuple[str, ...]
    bfloat16_seconds: float | None = None
    within: str = ""


def estimate(loaded: LoadedJob, progress: ProgressListener, *, calibrate: bool = True) -> Iterator[Estimate]:
    """Estimates of every model and dataset, in the job's order.

    calibrate: load each model and run it for a few seconds; otherwise no time is estimated, and packs are a CPU's.
    Raises what preflight raises where the job or its inputs are wrong.
    """
    with telling(progress.say):
        # What it would cost is asked for here: nothing is too large.
        inputs = check_job(loaded.model_copy(update={"job": allow_sizes(loaded.job)}), progress)
    for name in inputs.sources:
        together, sets = inputs.datasets_of(name), inputs.sentences_of(name)
        for first, (_, *others) in zip(_of_first(inputs, name, sets, progress, calibrate), together, strict=True):
            yield first
            yield from (_beside(inputs, pair, first) for pair in others)


def _of_first(
    inputs: Inputs, name: str, pairs: list[list[Input]], progress: ProgressListener, calibrate: bool
) -> Iterator[Estimate]:
    """Estimates of one model, for the group of each dataset that counts its passes.

    pairs: of each dataset, one for itself and one for each of its branches.
    """
    if not calibrate:
        yield from (_estimate(inputs, p, *_count_packs(p), None, "float32") for p in pairs)
        return
    progress.say(f"{name}: loading, checking and timing the model")
    first = [sets[0] for sets in pairs]
    timed, numerics = _timed(inputs, _task(inputs, name, first), pairs)
    if numerics.get("dtype") == "float32" and numerics.get("device") == "cpu" and _gains_by_bfloat16():
        progress.say(f"{name}: loading, checking and timing it in bfloat16")
        other, _ = _timed(inputs, _task(inputs, name, first, "bfloat16"), pairs)
        timed = [replace(e, bfloat16_seconds=o.seconds) for e, o in zip(timed, other, strict=True)]
    yield from timed


def _timed(inputs: Inputs, task: ModelTask, pairs: list[list[Input]]) -> tuple[list[Estimate], dict[str, Any]]:
    """Estimates of one model, loaded and run for a few seconds, and its numerics."""
    backend, found = open_backend(task), list[Estimate]()
    try:
        numerics = backend.prepare(pairs[0][0].tokens.slice(0, min(8, len(pairs[0][0].tokens))), None).numerics
        rate = _rate(backend, [pair for sets in pairs for pair in sets])
        for pair in pairs:
            works = [backend.lay_out(block) for block in _blocks(pair)]
            nodes, padding = sum(w.num_nodes for w in works), sum(w.num_padding for w in works)
            found.append(_estimate(inputs, pair, nodes, padding, nodes / rate, numerics.get("dtype", "float32")))
    finally:
        backend.close()
    return found, numerics


def faster_in_bfloat16(estimates: list[Estimate]) -> Iterator[str]:
    """A line for each model that takes less time in bfloat16."""
    for model in dict.fromkeys(e.model for e in estimates):
        both = [(e.seconds, e.bfloat16_seconds) for e in estimates if e.model == model]
        exact, rounded = sum(s or 0.0 for s, _ in both), sum(b or 0.0 for _, b in both)
        if rounded and rounded < exact:
            yield (
                f"{model}: {rounded:,.0f} s in bfloat16, {exact / rounded:.1f} times as fast (extract.dtype: bfloat16; "
                "states are rounded to 8 bits, those of float32 are exact)"
            )


@cache
def _gains_by_bfloat16() -> bool:
    return bfloat16_gain("cpu") >= WORTHWHILE


def _estimate(
    inputs: Inputs, sets: list[Input], nodes: int, padding: int, seconds: float | None, dtype: str
) -> Estimate:
    pair = sets[0]
    name, raw = pair.model.group, _raw_bytes(inputs, pair)
    tokens = sum(int(each.tokens.lengths_N.sum()) for each in sets)
    disk = int(raw * DISK_SHARE[dtype])
    counts = (pair.num_rows, tokens, nodes, padding, raw, disk)
    return Estimate(name, pair.dataset.name, *counts, seconds, tuple(_example(pair, inputs.tokenizers[name])))


def _raw_bytes(inputs: Inputs, pair: Input) -> int:
    """Bytes of a group's states, before compression."""
    item = {"float32": 4, "float16": 2}[inputs.loaded.job.extract.store_dtype]
    return pair.num_rows * len(inputs.layers_of(pair)) * inputs.sources[pair.model.group].facts.hidden_size * item


def _beside(inputs: Inputs, pair: Input, first: Estimate) -> Estimate:
    """The estimate of another position of a dataset, which is filled in the same passes."""
    raw = _raw_bytes(inputs, pair)
    disk = int(raw * first.disk_bytes / max(1, first.raw_bytes))
    return Estimate(
        first.model, pair.dataset.name, pair.num_rows, 0, 0, 0, raw, disk, 0.0, (), 0.0, within=first.dataset
    )


def _example(pair: Input, tokenizer: Tokenizer) -> Iterator[str]:
    """The first sentence with all that is written around it, and its last tokens."""
    around, ids = around_of(pair.dataset), pair.tokens[0].tolist()
    rendered = tokenizer.render(pair.rows.texts(0, 1)[0], around)
    if len(rendered) > LONGEST_SHOWN:
        rendered = f"{rendered[: LONGEST_SHOWN * 2 // 3]} [...] {rendered[-LONGEST_SHOWN // 3 :]}"
    yield f"{pair.path}, the first sentence as it is encoded: {rendered!r}"
    if not around.is_chat:
        before, after = (" ".join(tokenizer.pieces(added)) for added in tokenizer.added)
        added = [f"{pieces} {where}" for pieces, where in ((before, "before it"), (after, "after it")) if pieces]
        if added:
            yield f"  the tokenizer adds {' and '.join(added)}"
    shown = zip(tokenizer.pieces(ids[-LAST_SHOWN:]), ids[-LAST_SHOWN:], strict=True)
    last = ", ".join(f"{piece!r} ({number})" for piece, number in shown)
    yield f"  its last {min(LAST_SHOWN, len(ids))} of {len(ids):,} tokens: {last}; the last one's states are taken"


def _task(inputs: Inputs, name: str, pairs: list[Input], dtype: str | None = None) -> ModelTask:
    """What loads a model; in another dtype than the job says, where one is given."""
    extract, model = inputs.loaded.job.extracting, pairs[0].model
    if dtype is not None:
        model = model.model_copy(update={"dtype": dtype})
    base = str(inputs.loaded.base)
    return ModelTask(model, base, extract.backend, extract, inputs.layers[name], None, Sequences.of([]))


def _blocks(sets: list[Input]) -> Iterator[Sequences]:
    """The sentences of a dataset, with those of its branches, block by block."""
    size = max(1, MAX_BLOCK // len(sets))
    for start in range(0, len(sets[0].tokens), size):
        parts = [pair.tokens.slice(start, min(start + size, len(pair.tokens))) for pair in sets]
        yield parts[0] if len(parts) == 1 else Sequences.join(parts)


def _count_packs(pair: list[Input]) -> tuple[int, int]:
    nodes = padding = 0
    for block in _blocks(pair):
        packs = build_packs(block, PLAIN_PACKS)
        nodes += packs.num_nodes
        padding += int(packs.width_P.sum()) - packs.num_nodes
    return nodes, padding


def _rate(backend: Backend, pairs: list[Input]) -> float:
    """Useful nodes a second over a few batches of the largest dataset, the first one left out where there are more."""
    tokens = max((p.tokens for p in pairs), key=len)
    work = backend.lay_out(tokens.slice(0, min(CALIBRATION_SENTENCES, len(tokens))))
    return nodes_per_second(backend, work, CALIBRATION_SECONDS)
