"""What one model and dataset will cost to extract, counted and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import cast

from drillcore.api.calibration import Load
from drillcore.backends import is_audited
from drillcore.backends.base import Audited, Backend, Work
from drillcore.backends.rates import WORTHWHILE, bfloat16_gain
from drillcore.backends.timing import nodes_per_second
from drillcore.runtime.continuing import around_of
from drillcore.runtime.costs import Piece
from drillcore.runtime.outlook import alone_work, load_work, node_work
from drillcore.runtime.preflight import Input, Inputs
from drillcore.runtime.rates import Seen, seen_now
from drillcore.runtime.stages.extract.stage import sample_of
from drillcore.runtime.timekeeper import PLAIN_PACKS
from drillcore.runtime.work.blocks import MAX_BLOCK
from drillcore.runtime.work.tasks import ModelTask
from drillcore.runtime.work.worker import open_backend
from drillcore.system.progress import ProgressListener
from drillcore.tokens.packs import build_packs
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.tokenizer import Tokenizer

CALIBRATION_SECONDS = 3.0
CALIBRATION_SENTENCES = 2048
# Sentences that are computed alone, to time the audit.
ALONE = 3
# Characters of the first sentence that are shown, system prompts included, and how many of its tokens.
LONGEST_SHOWN, LAST_SHOWN = 3000, 5
# Share of their size that float32 states take on disk, by the dtype of the model; measured on residual streams.
DISK_SHARE = {"float32": 0.93, "bfloat16": 0.385, "float16": 0.55}


@dataclass(frozen=True)
class Estimate:
    """The cost of one model and dataset at one position.

    num_rows: sentences, or rows where a sentence has any number of them. num_nodes: tokens to compute after shared
    prefixes are merged; num_padding: padding computed beside them. raw_bytes: states before compression;
    disk_bytes: after it, roughly. seconds: of the model's passes on this machine, None if not known. example: lines
    that show the first sentence as it is encoded. bfloat16_seconds: the same in bfloat16, where this CPU multiplies
    faster in it and the model would run in float32. within: the group in whose passes it is filled, which counts
    the tokens and the time of both; empty for that one. shards, kept: of the group in the store, and how many of them
    are committed there as the job wants them; 0 where the store has none of it.
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
    shards: int = 0
    kept: int = 0

    @property
    def is_done(self) -> bool:
        """Whether the store holds all of it."""
        return 0 < self.shards == self.kept


@dataclass
class Timed:
    """A model that was loaded and run for a few seconds.

    counts: nodes and padding of each dataset with its branches; seconds: of their passes. seen: what loading it, its
    passes and a few sentences alone took.
    """

    dtype: str = "float32"
    on_cpu: bool = True
    counts: list[tuple[int, int]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)


def time_model(
    inputs: Inputs, name: str, like: Piece, load: Load, progress: ProgressListener
) -> tuple[Timed, list[float | None]]:
    """Load a model and time it; and the seconds of its datasets in bfloat16, where this CPU gains by that.

    like: any piece of the model's extraction, with what its rates are compared by.
    """
    progress.say(f"{name}: loading, checking and timing the model")
    pairs = inputs.sentences_of(name)
    timed = _timed(inputs, name, _task(inputs, name, None), like, load)
    if timed.dtype != "float32" or not timed.on_cpu or not gains_by_bfloat16():
        return timed, [None] * len(pairs)
    progress.say(f"{name}: loading, checking and timing it in bfloat16")
    return timed, [*_timed(inputs, name, _task(inputs, name, "bfloat16"), like, load).seconds]


@cache
def gains_by_bfloat16() -> bool:
    """Whether this CPU multiplies so much faster in bfloat16 that it is worth its rounding."""
    return bfloat16_gain("cpu") >= WORTHWHILE


def _timed(inputs: Inputs, name: str, task: ModelTask, like: Piece, load: Load) -> Timed:
    pairs, timed = inputs.sentences_of(name), Timed()
    started = time.perf_counter()
    backend, alone = open_backend(task), 0.0
    try:
        if is_audited(inputs.loaded.job.extract.backend) and inputs.loaded.job.run.audit != 0:
            few, before = pairs[0][0].tokens.slice(0, min(ALONE, len(pairs[0][0].tokens))), time.perf_counter()
            cast(Audited, backend).alone(few)
            alone = time.perf_counter() - before
            work = alone_work(inputs, name, len(few), len(few.ids_T))
            timed.seen.append(seen_now(replace(like, kind="alone", work=work), alone, "plan"))
        numerics = backend.prepare(task.sample, None).numerics
        loading = time.perf_counter() - started - alone
        timed.dtype, timed.on_cpu = numerics.get("dtype", "float32"), numerics.get("device") == "cpu"
        timed.seen.append(seen_now(replace(like, kind="load", work=load_work(inputs, name)), loading, "plan"))
        with load.watching():
            largest = max((pair.tokens for sets in pairs for pair in sets), key=len)
            first = backend.lay_out(largest.slice(0, min(CALIBRATION_SENTENCES, len(largest))))
            seconds_of = _seconds_of(inputs, name, backend, first)
        for sets in pairs:
            works = [backend.lay_out(block) for block in _blocks(sets)]
            timed.counts.append((sum(w.num_nodes for w in works), sum(w.num_padding for w in works)))
            timed.seconds.append(seconds_of(timed.counts[-1][0]))
    finally:
        backend.close()
    # Later estimates count nodes without the model.
    plain = sum(count_nodes(sets)[0] for sets in pairs) * node_work(inputs, name)
    timed.seen.append(seen_now(replace(like, kind="forward", work=plain), sum(timed.seconds), "plan"))
    return timed


def _seconds_of(inputs: Inputs, name: str, backend: Backend, first: Work) -> Callable[[int], float]:
    """What gives the seconds of so many nodes, from a few that are computed now."""
    sweeps = getattr(backend, "sweeps", None)
    if sweeps is None:
        rate = nodes_per_second(backend, first, CALIBRATION_SECONDS)
        return lambda nodes: nodes / rate
    timing, most = sweeps.timed(first), sweeps.nodes_at_a_time()
    return lambda nodes: float(timing.seconds(nodes, most))


def count_nodes(sets: Sequence[Input]) -> tuple[int, int]:
    """Nodes and padding of a dataset and its branches in packs as a CPU gets them; without the model."""
    nodes = padding = 0
    for block in _blocks(sets):
        packs = build_packs(block, PLAIN_PACKS)
        nodes += packs.num_nodes
        padding += int(packs.width_P.sum()) - packs.num_nodes
    return nodes, padding


def estimates_of(
    inputs: Inputs,
    name: str,
    counts: Sequence[tuple[int, int]],
    seconds: Sequence[float | None],
    dtype: str,
) -> Iterator[Estimate]:
    """Estimates of a model's groups. counts, seconds: of each dataset, one for itself and its branches."""
    together, sets = inputs.datasets_of(name), inputs.sentences_of(name)
    for pairs, (_, *others), (nodes, padding), spent in zip(sets, together, counts, seconds, strict=True):
        first = _estimate(inputs, pairs, nodes, padding, spent, dtype)
        yield first
        yield from (_beside(inputs, pair, first) for pair in others)


def _estimate(
    inputs: Inputs, sets: Sequence[Input], nodes: int, padding: int, seconds: float | None, dtype: str
) -> Estimate:
    pair = sets[0]
    name, raw = pair.model.group, _raw_bytes(inputs, pair)
    tokens = sum(int(each.tokens.lengths_N.sum()) for each in sets)
    counts = (pair.num_rows, tokens, nodes, padding, raw, int(raw * DISK_SHARE[dtype]))
    return Estimate(name, pair.dataset.name, *counts, seconds, tuple(_example(pair, inputs.tokenizers[name])))


def _raw_bytes(inputs: Inputs, pair: Input) -> int:
    """Bytes of a group's states, before compression."""
    item = {"float32": 4, "float16": 2}[inputs.loaded.job.extract.store_dtype]
    return pair.num_rows * len(inputs.layers_of(pair)) * inputs.sources[pair.model.group].facts.hidden_size * item


def _beside(inputs: Inputs, pair: Input, first: Estimate) -> Estimate:
    """The estimate of another position, branch or template of a dataset, which is filled in the same passes."""
    raw = _raw_bytes(inputs, pair)
    disk = int(raw * first.disk_bytes / max(1, first.raw_bytes))
    counts = (pair.num_rows, 0, 0, 0, raw, disk)
    is_shown = pair.placed is None and not pair.dataset.branch
    example = tuple(_example(pair, inputs.tokenizers[first.model])) if is_shown else ()
    return Estimate(first.model, pair.dataset.name, *counts, 0.0, example, 0.0, within=first.dataset)


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


def _task(inputs: Inputs, name: str, dtype: str | None) -> ModelTask:
    """What loads a model; in another dtype than the job says, where one is given."""
    extract, pairs = inputs.loaded.job.extracting, inputs.sentences_of(name)
    model, base = pairs[0][0].model, str(inputs.loaded.base)
    if dtype is not None:
        model = model.model_copy(update={"dtype": dtype})
    sample = Sequences.of([ids for sets in pairs for pair in sets for ids in sample_of(pair.tokens)])
    return ModelTask(model, base, extract.backend, extract, inputs.layers[name], None, sample)


def _blocks(sets: Sequence[Input]) -> Iterator[Sequences]:
    """The sentences of a dataset, with those of its branches, block by block."""
    size = max(1, MAX_BLOCK // len(sets))
    for start in range(0, len(sets[0].tokens), size):
        parts = [pair.tokens.slice(start, min(start + size, len(pair.tokens))) for pair in sets]
        yield parts[0] if len(parts) == 1 else Sequences.join(parts)
