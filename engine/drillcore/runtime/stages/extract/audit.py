"""The audit of a run: canaries before the first block of a model, rows read back after its last one.

The sentences are computed alone when the model is loaded, by the worker that loads it; what the store holds of them is
compared here once the model's blocks are committed. What is wrong is withdrawn, so that the next run computes it again.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.backends import is_audited
from drillcore.backends.alone import Alone
from drillcore.backends.base import Prepared
from drillcore.backends.source import locate
from drillcore.errors import ModelChangedError
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.runtime.audit import (
    Comparison,
    Witness,
    Wrong,
    budget_tokens,
    choose_rows,
    compare,
    confirmed,
)
from drillcore.runtime.canaries import canary_tokens, changed, make_canaries, other_tokens, stored_tokens
from drillcore.runtime.context import Context
from drillcore.runtime.continuing import around_of
from drillcore.runtime.preflight import Input
from drillcore.runtime.stages.extract.audited import dominated, places_at, wrong_columns
from drillcore.runtime.stages.extract.pending import Target
from drillcore.runtime.stages.extract.standing import Standing, block_of
from drillcore.runtime.work.tasks import NONE
from drillcore.store.attributes import read_attributes
from drillcore.store.audits import NOT_YET, AuditRecord, audit_of, states_digest, write_audit
from drillcore.store.canaries import Canaries, read_canaries, write_canaries
from drillcore.store.group import GroupWriter
from drillcore.store.layout import WITHDRAWN, Shape
from drillcore.tokens.places import Places
from drillcore.tokens.sequences import Sequences

NAMED = 5


@dataclass(frozen=True)
class AuditFailed:
    """Stored rows of a model that are not those of their sentences; their shards are withdrawn."""

    model: str
    dataset: str
    what: str


@dataclass(frozen=True)
class Planned:
    """The rows of one dataset that are audited. rows_C: ascending; sentences: their texts, encoded again."""

    pair: Input
    rows_C: NDArray[np.int64]
    sentences: Witness


@dataclass
class Found:
    """What the audit of one group found, before anything is withdrawn."""

    target: Target
    alone: Alone
    sentences: Witness
    comparison: Comparison
    columns: list[str]

    @property
    def passed(self) -> bool:
        """Whether nothing is out of its bound."""
        return not self.comparison.wrong and not self.columns

    def record(self, fingerprints: Sequence[str]) -> AuditRecord:
        """For the group, with what it is of: a later change of the states makes it void."""
        worst, bound = self.comparison.worst, self.comparison.bound
        return AuditRecord(states_digest(fingerprints), len(self.sentences.tokens), worst, bound, self.alone.dtype)


class ModelAudit:
    """Canaries and audited rows of one model of a run.

    standings: of its datasets; those with pending blocks, or whose states no audit has passed, are audited. Nothing is
    where the job says so, or the backend's states are not those of `transformers`.
    """

    def __init__(self, context: Context, name: str, standings: Sequence[Standing], block_sentences: int) -> None:
        self._context, self._name, self._standings = context, name, standings
        job = context.job
        self.is_on = job.run.audit != 0 and is_audited(job.extract.backend)
        self._group = context.store.model(name)
        self._stored: Canaries | None = None
        self._canary_tokens, self._planned = NONE, list[Planned]()
        self._found: list[Found] = []
        self._seconds = 0.0
        if self.is_on:
            self._stored = read_canaries(self._group)
            self._canary_tokens = self._tokens_now() if self._stored is None else stored_tokens(self._stored)
            wanted = [s for s in standings if s.num_pending or not self._has_passed(s)]
            self._planned = [self._plan(s.pair, s.shape, block_of(s.shape, block_sentences)) for s in wanted]

    def _has_passed(self, standing: Standing) -> bool:
        record = audit_of(self._attributes(standing.pair))
        return record is not None and record.is_of(standing.claimed)

    def _attributes(self, pair: Input) -> dict[str, Any]:
        """Those of a group as earlier runs left them. Another thread may be making the group right now."""
        return read_attributes(self._group.store, f"{self._name}/{pair.dataset.name}")

    @property
    def witness(self) -> Witness:
        """Every sentence that the worker computes alone: the canaries, then the rows of each dataset."""
        tokens = Sequences.of([*self._canary_tokens, *(ids for p in self._planned for ids in p.sentences.tokens)])
        if all(p.sentences.places is None for p in self._planned):
            return Witness(tokens)
        parts = [Places.last(self._canary_tokens)]
        parts += [p.sentences.places or Places.last(p.sentences.tokens) for p in self._planned]
        return Witness(tokens, replace(Places.join(parts), is_mean=True))

    def _tokens_now(self) -> Sequences:
        facts, tokenizer = self._context.inputs.sources[self._name].facts, self._context.inputs.tokenizers[self._name]
        return canary_tokens(tokenizer, facts.vocab_size, facts.max_tokens)

    def _plan(self, pair: Input, shape: Shape, block: int) -> Planned:
        tokens, wanted = pair.tokens, self._context.job.run.audit
        facts = self._context.inputs.sources[self._name].facts
        # A failed audit withdraws the shards that it looked into: the next one looks at other rows too.
        withdrawn = self._attributes(pair).get(WITHDRAWN, "")
        placed = pair.placed
        lengths_R = tokens.lengths_N if placed is None else np.repeat(tokens.lengths_N, placed.counts(0, len(tokens)))

        def number_of(row: int) -> int:
            return row if placed is None else int(placed.sentences_of(np.array([row]))[0][0])

        rows_C = choose_rows(
            lengths_R,
            [shape.bounds(shard) for shard in range(shape.num_shards)],
            block if shape.rows is None else shape.shard,
            None if wanted == "auto" else wanted,
            budget_tokens(len(tokens.ids_T), facts.num_parameters),
            lambda row: (tokens[number_of(row)].tobytes(), placed is not None and placed.columns_of(row).get("token")),
            zlib.crc32(f"{self._name}/{pair.dataset.name} {pair.rows.digest}{withdrawn}".encode()),
        )
        tokens.release()
        texts = [pair.rows.texts(n, n + 1)[0] for n in map(number_of, rows_C.tolist())]
        encoded = self._context.inputs.tokenizers[self._name].encode(texts, around_of(pair.dataset)) if texts else []
        limit = facts.max_tokens if self._context.job.extract.too_long == "truncate" else None
        sentences = Sequences.of([ids[:limit] for ids in encoded])
        return Planned(pair, rows_C, Witness(sentences, places_at(pair, rows_C, sentences)))

    def check_model(self, alone: Alone | None) -> None:
        """Compare the canaries with those of the store, or store them; before anything else is written.

        Raises ModelChangedError where the model differs and states of before would stay beside its new ones.
        """
        if alone is None:
            return
        inputs = self._context.inputs
        source, layers = inputs.sources[self._name], inputs.layers[self._name]
        special = inputs.tokenizers[self._name].policy(None).special_tokens
        tokenized, part = self._tokens_now(), alone.part(0, len(self._canary_tokens))
        if self._stored is not None:
            change = changed(self._stored, part, layers, source)
            differs = [change.what, other_tokens(self._stored, tokenized, special)]
            what, kept = "; ".join(d for d in differs if d), self._groups_that_stay()
            if what and kept:
                raise ModelChangedError(
                    f"model {self._name} is not the one whose states the store holds: {what}; "
                    f"changed: {change.named}. Nothing new is written beside the states of {', '.join(kept)}",
                    hint="Use the model, libraries and settings of before, or give the changed model another name with "
                    "`as:`, or the job another store.",
                )
            if what or change.named:
                states = what or "its canary sentences have the same states"
                self._context.listener.warn(f"{self._name}: changed since its first states: {change.named}; {states}")
            if not what and (kept or list(layers) == self._stored.facts["layers"]):
                return
        made = make_canaries(part, (self._canary_tokens, tokenized), layers, source, special)
        write_canaries(self._group, made)

    def _groups_that_stay(self) -> list[str]:
        """Paths of the groups of this model in which committed states stay, those that left the job included."""
        of_job = {s.path for s in self._standings}
        others = [g for _, g in self._group.groups() if g.path not in of_job and "shard_fingerprint" in g]
        stay = [s.path for s in self._standings if s.num_kept]
        return stay + [g.path for g in others if any(GroupWriter(g).fingerprints())]

    def begin(self, targets: Sequence[Target]) -> None:
        """Note that states are about to be written which no audit has seen."""
        for target in targets:
            if target.blocks:
                write_audit(target.writer.group, NOT_YET if self.is_on else None)

    def compare(self, targets: Sequence[Target], prepared: Prepared | None) -> None:
        """Read the committed rows back and compare them with their sentences; records the groups that pass."""
        if prepared is None or prepared.alone is None:
            return
        started, start = time.perf_counter(), len(self._canary_tokens)
        by_dataset = {t.pair.dataset.name: t for t in targets}
        dtype = str(prepared.numerics.get("dtype", prepared.alone.own_dtype))
        for planned in self._planned:
            alone = prepared.alone.part(start, start + len(planned.rows_C))
            start += len(planned.rows_C)
            self._compare(by_dataset[planned.pair.dataset.name], planned, alone, dtype)
        self._seconds = prepared.alone.seconds + time.perf_counter() - started
        if all(found.passed for found in self._found):
            self._report()

    def _compare(self, target: Target, planned: Planned, alone: Alone, dtype: str) -> None:
        fingerprints = target.writer.fingerprints()
        shard_C = target.shape.shards_of(planned.rows_C)
        every, layers = self._context.inputs.layers[self._name], target.shape.layers
        alone = alone if layers == every else alone.at([every.index(k) for k in layers])
        places = np.array([c for c, s in enumerate(shard_C.tolist()) if fingerprints[s]], np.int64)
        rows_C, sentences, alone = planned.rows_C[places], planned.sentences.take(places), alone.take(places)
        comparison = compare(target.writer.group, rows_C, alone, target.shape.layers, dtype)
        found = Found(target, alone, sentences, comparison, wrong_columns(target, rows_C, sentences.tokens))
        self._found.append(found)
        note = dominated(alone, sentences.places, layers) if target.pair.dataset.position.mean is not None else ""
        if note:
            self._context.listener.warn(f"{target.pair.path}: {note}")
            self._context.manifest.record("models", self._name, dominated={target.pair.dataset.name: note})
        if found.passed:
            write_audit(target.writer.group, found.record(fingerprints))

    def settle(self) -> list[AuditFailed]:
        """Withdraw what is wrong and return it; for when the sweep is over, since it may have to run the model."""
        failed = []
        for found in self._found:
            if found.passed:
                continue
            wrong, writer = self._confirmed(found), found.target.writer
            if found.columns:
                writer.drop_columns()
            if wrong or found.columns:
                writer.withdraw(shards_of(found, wrong))
                failed.append(AuditFailed(self._name, found.target.pair.dataset.name, _what(found, wrong)))
            else:
                write_audit(writer.group, found.record(writer.fingerprints()))
        if self._found and not all(found.passed for found in self._found):
            self._report(failed)
        return failed

    def _confirmed(self, found: Found) -> list[Wrong]:
        """The wrong rows, less those that the model's dtype itself is that noisy for."""
        loaded, pair = self._context.inputs.loaded, found.target.pair
        base, layers = str(loaded.base.resolve()), found.target.shape.layers

        def noise_CK(rows: Witness) -> NDArray[np.float64]:
            task = NoiseTask(pair.model, base, loaded.job.extract, layers, rows)
            gpus = min(1, self._context.executor.hardware().gpus)
            ((_, noise),) = self._context.executor.map(noise_of, [task], gpus)
            return noise

        return confirmed(found.comparison, found.alone, found.sentences, noise_CK)

    def _report(self, failed: Sequence[AuditFailed] = ()) -> None:
        """Figures in the manifest, and a line for the user."""
        worst = max(self._found, key=lambda f: f.comparison.worst / max(f.comparison.bound, 1e-30), default=None)
        if worst is None:
            return
        audited = [f.sentences.tokens for f in self._found]
        sentences, tokens = sum(map(len, audited)), sum(len(each.ids_T) for each in audited)
        figures = {
            "passed": not failed,
            "sentences": sentences,
            "tokens": tokens,
            "rows": {f.target.pair.dataset.name: f.comparison.rows_C.tolist() for f in self._found},
            "worst_relative_error": worst.comparison.worst,
            "bound": worst.comparison.bound,
            "dtype": worst.alone.dtype,
            "canaries": len(self._canary_tokens),
            "seconds": round(self._seconds, 3),
        }
        self._context.manifest.record("models", self._name, audit=figures)
        if not failed:
            self._context.listener.say(
                f"{self._name}: audit passed: {sentences} stored sentences computed again alone, relative error "
                f"{worst.comparison.worst:.1e} at worst (bound {worst.comparison.bound:.0e}), {self._seconds:.1f} s"
            )


@dataclass(frozen=True)
class NoiseTask:
    """Sentences of a model whose noise is asked for."""

    model: Model
    base: str
    extract: Extract
    layers: tuple[int, ...]
    rows: Witness


def noise_of(task: NoiseTask) -> NDArray[np.float64]:
    """How far plain `transformers` is off for each sentence [C, K]."""
    from drillcore.backends.transformers.plain import plain_model, suspects_noise

    with plain_model(locate(task.model, Path(task.base)), task.extract, task.layers) as loaded:
        return suspects_noise(loaded, task.layers, task.rows.tokens, task.rows.places)


def shards_of(found: Found, wrong: Sequence[Wrong]) -> list[int]:
    """Numbers of the shards that hold wrong rows, ascending."""
    rows = np.array([w.sentence for w in wrong], np.int64)
    return sorted({*found.target.shape.shards_of(rows).tolist()}) if len(rows) else []


def _what(found: Found, wrong: Sequence[Wrong]) -> str:
    """Which rows are wrong, and what became of them."""
    said = [str(w) for w in wrong[:NAMED]]
    said += [f"and {len(wrong) - NAMED} more sentences"] if len(wrong) > NAMED else []
    shards = shards_of(found, wrong)
    if shards:
        said += [f"shard{'s' if len(shards) > 1 else ''} {', '.join(map(str, shards))} withdrawn"]
    return "; ".join([*said, *found.columns])
