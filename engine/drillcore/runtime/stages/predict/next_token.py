"""Token prediction, a part of the predict stage: what each stored layer predicts for the expected next token.

No second forward pass: the stored states go through the model's own final norm and unembedding.
Shape legend: N sentences, L layers (as stored), Q quantities, P summary figures, B bounds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.job.stages import Measure
from drillcore.measures import BOUNDS
from drillcore.measures.draws import make_draws
from drillcore.measures.intervals import share_in_words
from drillcore.measures.logit_lens import QUANTITIES, TokenSummary, next_token, summarise
from drillcore.runtime.context import Context
from drillcore.runtime.preflight import Input
from drillcore.runtime.wanted import is_up_to_date, wanted_of
from drillcore.store.freshness import inputs_of, states_of
from drillcore.store.group import GroupWriter
from drillcore.store.reader import column, open_dataset, read_layer
from drillcore.system.files import digest

# Coordinate `prediction_metric` of the array `prediction`.
FIGURES = ("logprob", "top1", "median_rank")
ARRAYS_MADE = ("quantity", "next_token", "bound", "prediction_metric", "prediction")


@dataclass(frozen=True)
class PredictTask:
    """One layer of a dataset, for an executor. expected_N: token ids, -1 where a sentence expects none."""

    store: str
    group: str
    slot: int
    normed: bool
    model: Model
    base: str
    extract: Extract
    expected_N: NDArray[np.int64]


def predict_layer(task: PredictTask) -> NDArray[np.float32]:
    """Read a layer and put it through the model's head; returns [N, Q]."""
    from drillcore.backends.head import open_head

    group = open_dataset(task.store, task.group)
    head = open_head(task.model, task.base, task.extract)
    return next_token(
        read_layer(group, task.slot), task.expected_N, lambda states_RH: head.logits(states_RH, normed=task.normed)
    )


def predict_next_tokens(context: Context, pair: Input, writer: GroupWriter) -> None:
    """Write `next_token` and `prediction` of a dataset that names expected tokens, unless they are up to date."""
    if pair.expected is None:
        return
    path, expected_N = writer.group.path, pair.expected.first_tokens()
    made_from = _made_from(writer, expected_N, context.job.measure)
    asked = wanted_of(context.job, pair.dataset)["predict"]
    inputs = inputs_of([writer.group], "predict", ("expected_next", "group"), asked, made_from=made_from)
    if is_up_to_date(writer, ARRAYS_MADE, inputs, made_from):
        context.listener.say(f"{path}: token prediction is up to date")
        return
    started = time.perf_counter()
    values_NLQ = _layers(context, pair.model, writer, expected_N)
    jackknife_N = jackknife_of(writer, context.job.measure, len(expected_N))
    summaries = [summarise(values_NLQ[:, k], jackknife_N) for k in range(values_NLQ.shape[1])]
    counted_N = expected_N[expected_N >= 0]
    facts = {
        "expected_tokens": len(np.unique(counted_N)),
        "sentences": len(counted_N),
        "left_out": pair.expected.left_out(),
    }
    figures_LPB = np.stack([_figures(s) for s in summaries])
    values = (np.array(QUANTITIES), values_NLQ, np.array(BOUNDS), np.array(FIGURES), figures_LPB)
    recorded = {name: {"inputs": inputs.record(), **facts} for name in ("next_token", "prediction")}
    writer.write_results(made_from, dict(zip(ARRAYS_MADE, values, strict=True)), recorded)
    context.manifest.did("predict", path)
    context.manifest.record("predictions", path, **facts, last_layer=_last(summaries[-1]))
    context.listener.finish(f"{path}: {_line(summaries)} ({time.perf_counter() - started:.1f} s)")


def _made_from(writer: GroupWriter, expected_N: NDArray[np.int64], settings: Measure) -> str:
    """Digest of what decides the values and their intervals; groups and folds count where they are not the default."""
    groups = column(writer.group, "group")
    drawn: list[Any] = [] if groups is None else [digest([str(g) for g in groups])]
    if settings.folds != Measure().folds:
        drawn.append(settings.folds)
    return digest([states_of(writer.group), expected_N.tolist(), settings.seed, "predict", *drawn])


def jackknife_of(writer: GroupWriter, settings: Measure, num_sentences: int) -> NDArray[np.int64]:
    """The jackknife block of each sentence [N]: groups stay together, and equal texts where there are none."""
    groups = column(writer.group, "group")
    if groups is None:
        groups = column(writer.group, "row_id")
    return make_draws(None, groups, settings, num_sentences).jackknife_U


def _layers(context: Context, model: Model, writer: GroupWriter, expected_N: NDArray[np.int64]) -> NDArray[np.float32]:
    """All layers [N, L, Q], spread over the executor."""
    from drillcore.backends.head import open_head

    loaded, path = context.inputs.loaded, writer.group.path
    numbers = column(writer.group, "layer")
    assert numbers is not None
    final = context.inputs.sources[model.group].facts.num_layers + 1
    address, base = context.store.location.address, str(loaded.base.resolve())
    tasks = [
        PredictTask(address, path, k, int(n) == final, model, base, loaded.job.extracting, expected_N)
        for k, n in enumerate(numbers.tolist())
    ]
    context.listener.start(f"predict {path}", len(tasks), "layers")
    values_NLQ = np.full((len(expected_N), len(tasks), len(QUANTITIES)), np.nan, np.float32)
    for position, values_NQ in context.executor.map(predict_layer, tasks):
        values_NLQ[:, position] = values_NQ
        context.listener.advance(1)
    open_head.cache_clear()
    return values_NLQ


def _figures(summary: TokenSummary) -> NDArray[np.float32]:
    """[P, B]: value and interval; a median rank has none here, and no null stands beside any."""
    nothing = (float("nan"),) * (len(BOUNDS) - 3)
    rank = (summary.median_rank, float("nan"), float("nan"))
    return np.array([(*figure, *nothing) for figure in (summary.logprob, summary.top1, rank)], np.float32)


def _last(summary: TokenSummary) -> dict[str, Any]:
    return {"logprob": summary.logprob, "top1": summary.top1, "median_rank": summary.median_rank}


def _line(summaries: list[TokenSummary]) -> str:
    """How well the expected token is predicted, in one line."""
    if not summaries[-1].num_sentences:
        return "token prediction is not measured: no expected token can follow its sentence"
    share = share_in_words(*summaries[-1].top1)
    first, last = summaries[0].median_rank, summaries[-1].median_rank
    return (
        f"the expected next token is the likeliest for {share} of the sentences at the last layer, "
        f"median rank {last:,.0f} there and {first:,.0f} at the first"
    )
