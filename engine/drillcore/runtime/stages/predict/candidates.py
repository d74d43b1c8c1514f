"""Candidates, a part of the predict stage: exact log-probabilities of continuations of each sentence.

The tokens of a continuation are children of the sentence's last node in the prefix tree, so that many continuations of
several tokens cost the sentence and a few nodes. They run apart from the extraction: its packs and states stay as they
are. Shape legend: N sentences, C candidates, P prefixes (a sentence with the first tokens of a candidate).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.backends import REFERENCE
from drillcore.backends.base import Backend
from drillcore.job.stages import Measure
from drillcore.measures.intervals import share_in_words
from drillcore.measures.logit_lens import CHUNK_ROWS, next_token, summarise
from drillcore.runtime.context import Context
from drillcore.runtime.preflight import Input
from drillcore.runtime.stages.predict.next_token import jackknife_of
from drillcore.runtime.wanted import is_up_to_date, wanted_of
from drillcore.runtime.work.tasks import ModelTask
from drillcore.runtime.work.worker import Worker
from drillcore.store.attributes import attributes_of
from drillcore.store.freshness import inputs_of, states_of
from drillcore.store.group import GroupWriter
from drillcore.store.layout import read_array
from drillcore.store.reader import column
from drillcore.system.files import digest, without_nan
from drillcore.tokens.continuations import Continuations
from drillcore.tokens.sequences import Sequences

# Sentences of a piece of work.
PIECE = 4096


@dataclass(frozen=True)
class PieceTask:
    """Some sentences and the tokens of the candidates after each, for an executor."""

    model: ModelTask
    tokens: Sequences
    candidates: Continuations


def score_piece(task: PieceTask) -> NDArray[np.float32]:
    """Natural logarithm of each candidate's probability after each sentence [N, C].

    NaN beyond the model's context, and where a candidate has no tokens after the sentence.
    """
    backend = _worker().load(task.model)
    index, prefixes, wanted_P = _prefixes(task)
    totals_NC = np.where(task.candidates.faults_NC, np.nan, 0.0)
    logprob_P = np.full(len(prefixes), np.nan, np.float32)
    fitting_P = np.flatnonzero(prefixes.lengths_N <= (backend.facts.max_tokens or np.inf))
    logprob_P[fitting_P] = _logprobs(backend, prefixes.take(fitting_P), wanted_P[fitting_P])
    np.add.at(totals_NC, index, logprob_P)
    return totals_NC.astype(np.float32)


@lru_cache(maxsize=1)
def _worker() -> Worker:
    return Worker()


def _prefixes(task: PieceTask) -> tuple[tuple[NDArray[np.intp], NDArray[np.intp]], Sequences, NDArray[np.int64]]:
    """Where each prefix counts (sentence, candidate), the prefixes, and the token wanted after each."""
    places = []
    rows = []
    wanted = []
    for n, sentence in enumerate(task.tokens):
        for c, ids in enumerate(task.candidates.of(n)):
            candidate = ids or []
            for at, token in enumerate(candidate):
                places.append((n, c))
                rows.append(np.concatenate([sentence, np.array(candidate[:at], np.int32)]))
                wanted.append(token)
    sentence_P, candidate_P = np.array(places, np.intp).reshape(-1, 2).T
    return (sentence_P, candidate_P), Sequences.of(rows), np.array(wanted, np.int64)


def _logprobs(backend: Backend, prefixes: Sequences, wanted_P: NDArray[np.int64]) -> NDArray[np.float32]:
    """Log-probability of the wanted token after each prefix; equal prefixes are computed once."""
    logprob_P = np.full(len(prefixes), np.nan, np.float32)
    if not len(prefixes):
        return logprob_P
    for part in backend.run(backend.lay_out(prefixes)):
        for start in range(0, len(part.sentence_S), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            states_RH, place_R = np.asarray(part.values_GKH[part.row_S[rows], 0], np.float32), part.sentence_S[rows]
            logprob_P[place_R] = next_token(states_RH, wanted_P[place_R], backend.unembed)[:, 0]
    return logprob_P


def score_candidates(context: Context, pair: Input, writer: GroupWriter) -> None:
    """Write `candidate_logprob` [sentence, candidate] of a dataset that names candidates, unless it is up to date."""
    found, texts, path = pair.candidates, pair.dataset.candidates, writer.group.path
    if found is None:
        return
    made_from = digest([states_of(writer.group), texts, _recipe(found), "candidates"])
    asked = wanted_of(context.job, pair.dataset)["candidates"]
    inputs = inputs_of([writer.group], "candidates", ("expected_next", "group"), asked, made_from=made_from)
    started = time.perf_counter()
    known = writer.result_made_from("candidate_logprob") == made_from
    logprob_NC = read_array(writer.group, "candidate_logprob") if known else _score(context, pair, found)
    facts = _facts(writer, found, logprob_NC, texts, context.job.measure)
    # The expected texts and the draws decide the facts, and they may change without the log-probabilities.
    stored = attributes_of(writer.group).get("results", {}).get("candidate_logprob", {})
    if known and _same(stored, facts) and is_up_to_date(writer, ("candidate", "candidate_logprob"), inputs, made_from):
        context.listener.say(f"{path}: candidates are up to date")
        return
    writer.write_results(
        made_from,
        {"candidate": np.array(texts), "candidate_logprob": logprob_NC},
        {"candidate_logprob": {"inputs": inputs.record(), **facts}},
    )
    if not known:
        context.manifest.did("predict", path)
    context.manifest.record("candidates", path, **facts)
    context.listener.finish(f"{path}: {_line(facts)} ({time.perf_counter() - started:.1f} s)")


def _score(context: Context, pair: Input, found: Continuations) -> NDArray[np.float32]:
    """Log-probabilities [N, C], computed by the executor."""
    tasks = _tasks(context, pair, found)
    context.listener.start(f"candidates {pair.path}", len(pair.tokens), "sentences")
    pieces: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(tasks)
    try:
        for position, piece_NC in context.executor.map(score_piece, tasks, min(1, context.executor.hardware().gpus)):
            pieces[position] = piece_NC
            context.listener.advance(len(piece_NC))
    finally:
        _worker().close()
    return np.concatenate(pieces)


def _recipe(found: Continuations) -> list[list[int]] | str:
    """The candidates' tokens: once for each where they are the same after every sentence, else a digest of all."""
    first = found.of(0)
    ids_T, num_sentences = np.asarray(found.ids.ids_T), len(found.faults_NC)
    if not found.faults_NC.any() and len(ids_T) % num_sentences == 0:
        lengths_NC = found.ids.lengths_N.reshape(num_sentences, -1)
        if (lengths_NC == lengths_NC[0]).all() and (
            ids_T.reshape(num_sentences, -1) == ids_T[: lengths_NC[0].sum()]
        ).all():
            return [ids or [] for ids in first]
    return digest([hashlib.sha256(a.tobytes()).hexdigest() for a in (ids_T, found.ids.offsets_N1, found.faults_NC)])


def _facts(
    writer: GroupWriter, found: Continuations, logprob_NC: NDArray[np.float32], texts: Sequence[str], settings: Measure
) -> dict[str, Any]:
    """What a reader of the log-probabilities must know. tokens: of each candidate, the most after any sentence."""
    counts_NC = np.where(found.faults_NC, 0, found.ids.lengths_N.reshape(found.faults_NC.shape))
    return {
        "tokens": counts_NC.max(axis=0).tolist(),
        "likeliest": _likeliest(logprob_NC, texts),
        "beyond_context": int((np.isnan(logprob_NC) & (found.faults_NC == 0)).any(axis=1).sum()),
        "left_out": found.left_out(),
        "expected_is_likeliest": _right(writer, logprob_NC, texts, settings),
    }


def _same(stored: dict[str, Any], facts: dict[str, Any]) -> bool:
    """Whether a record holds these facts; one of an older version may lack some."""
    return all(
        digest(without_nan(stored[name])) == digest(without_nan(value))
        for name, value in facts.items()
        if name in stored
    )


def _tasks(context: Context, pair: Input, found: Continuations) -> list[PieceTask]:
    """Pieces of sentences; the reference backend runs the model to block L, whose states its head takes."""
    loaded, source = context.inputs.loaded, context.inputs.sources[pair.model.group]
    model = ModelTask(
        model=pair.model,
        base=str(loaded.base.resolve()),
        backend=REFERENCE,
        extract=loaded.job.extracting,
        layers=(source.facts.num_layers,),
        numerics=None,
        sample=pair.tokens.slice(0, min(16, len(pair.tokens))),
    )
    pieces = [(s, min(s + PIECE, len(pair.tokens))) for s in range(0, len(pair.tokens), PIECE)]
    return [PieceTask(model, pair.tokens.slice(*piece), found.slice(*piece)) for piece in pieces]


def _likeliest(logprob_NC: NDArray[np.float32], texts: Sequence[str]) -> dict[str, int]:
    """Sentences for which each candidate is the likeliest."""
    known_NC = logprob_NC[~np.isnan(logprob_NC).any(axis=1)]
    best = known_NC.argmax(axis=1) if len(known_NC) else np.empty(0, np.intp)
    return {text: int((best == c).sum()) for c, text in enumerate(texts)}


def _right(
    writer: GroupWriter, logprob_NC: NDArray[np.float32], texts: Sequence[str], settings: Measure
) -> list[float] | None:
    """Share of sentences whose expected next token is their likeliest candidate, with its 95 % interval.

    Sentences that lack the value of a candidate do not count: it may be the likeliest.
    """
    expected = column(writer.group, "expected_next")
    if expected is None or not set(expected.tolist()) & set(texts):
        return None
    place_N = np.array([texts.index(str(e)) if str(e) in texts else -1 for e in expected])
    own_N = np.where(place_N < 0, np.nan, np.take_along_axis(logprob_NC, place_N[:, None], axis=1)[:, 0])
    own_N = np.where(np.isnan(logprob_NC).any(axis=1), np.nan, own_N)
    rank_N = 1 + (logprob_NC > own_N[:, None]).sum(axis=1)
    jackknife_N = jackknife_of(writer, settings, len(own_N))
    return [float(v) for v in summarise(np.stack([own_N, rank_N], axis=1), jackknife_N).top1]


def _line(facts: dict[str, Any]) -> str:
    """Counts of likeliest candidates, and the share that is right, in one line."""
    if not any(facts["likeliest"].values()):
        return "candidates are not measured: no sentence has the values of all"
    counts = ", ".join(f"{text!r} {count}" for text, count in facts["likeliest"].items())
    right = facts["expected_is_likeliest"]
    if right is None or np.isnan(right[0]):
        return f"likeliest candidate by sentence: {counts}"
    return f"likeliest candidate by sentence: {counts}; the expected one for {share_in_words(*right)}"
