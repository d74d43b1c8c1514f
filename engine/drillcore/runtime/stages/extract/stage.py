"""The extract stage: asks which blocks are pending, hands them to the executor, records what comes back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from drillcore.backends.base import Prepared, prediction_refused
from drillcore.errors import DrillcoreError, ModelChangedError
from drillcore.runtime.context import Context
from drillcore.runtime.executors.base import Sweep
from drillcore.runtime.failures import PartFailed
from drillcore.runtime.stages.extract.audit import AuditFailed, ModelAudit
from drillcore.runtime.stages.extract.pending import (
    Target,
    asked_of,
    block_size,
    check_committed,
    cost_of,
    fit_group,
    num_blocks,
    pending_of,
    stored_numerics,
    target_of,
)
from drillcore.runtime.stages.extract.recipes import Recipe
from drillcore.runtime.stages.extract.renamed import take_over_renamed
from drillcore.runtime.stages.extract.standing import Standing, stand
from drillcore.runtime.stages.extract.summary import kept_note, record_model, summarise
from drillcore.runtime.stages.extract.together import block_tasks, pending_sentences
from drillcore.runtime.work.tasks import (
    BlockDone,
    BlockFailed,
    BlockTask,
    ModelFailed,
    ModelReady,
    ModelTask,
    SweepModel,
)
from drillcore.store.attributes import attributes_of, update_attributes
from drillcore.store.audits import NOT_YET, read_audit
from drillcore.system.files import digest
from drillcore.system.progress import Progress, counted
from drillcore.tokens.sequences import Sequences

# Rows that stand for a dataset when a model is checked and backends are timed: neighbours, which share prefixes as all
# rows do, and rows from all over it.
FIRST_ROWS, SPREAD_ROWS = 64, 16
Failed = BlockFailed | ModelFailed | AuditFailed


def extract(context: Context) -> None:
    """Fill `hidden_states` of every model and dataset; raises an error that names what failed for good."""
    started = time.perf_counter()
    take_over_renamed(context)
    groups = ThreadPoolExecutor(1, "groups")
    try:
        runs = {m.group: ModelRun(context, m.group, groups) for m in context.job.models}
        pending = [run for run in runs.values() if run.is_pending()]
        failed = _sweep(context, pending) if pending else []
    finally:
        groups.shutdown(cancel_futures=True)
    wall = time.perf_counter() - started
    if pending:
        context.listener.finish(_whole(pending, wall))
    context.manifest.record("stages", "extract", wall_seconds=round(wall, 3))
    if failed:
        raise _failure(failed, len(runs))


def _sweep(context: Context, runs: Sequence[ModelRun]) -> list[Failed]:
    """Hand everything to the executor; returns what failed."""
    failed: list[Failed] = []
    by_name, models = {run.name: run for run in runs}, [run.sweep_model() for run in runs]
    context.listener.start("extract", sum(m.num_sentences for m in models), "sentences")
    try:
        with context.executor.sweep(models, Progress(context.listener.advance)) as sweep:
            for outcome in sweep:
                run = by_name[outcome.model]
                if isinstance(outcome, ModelReady):
                    refused = _hand_in(sweep, run, outcome.prepared)
                    if refused is None:
                        continue
                    outcome = refused
                run.add(outcome)
                if not isinstance(outcome, BlockDone):
                    failed.append(outcome)
        # Not before: what looks wrong may have to be computed once more, on the executor.
        failed += [each for run in runs for each in run.audit_failures()]
    finally:
        context.manifest.record("executor", **context.executor.describe())
    return failed


def _hand_in(sweep: Sweep, run: ModelRun, prepared: Prepared) -> ModelFailed | None:
    """Hand in the blocks of a model that is ready; none of one that is refused, which is returned."""
    refused, tasks = run.refused_prediction(prepared), list[BlockTask]()
    try:
        tasks = tasks if refused else run.pending_blocks(prepared)
    except ModelChangedError as error:
        refused = ModelFailed(run.name, error)
    sweep.extract(run.name, tasks)
    if refused is None:
        run.audit_if_done()
    return refused


def _whole(runs: Sequence[ModelRun], wall: float) -> str:
    """One line for all models together."""
    done = sum(b.num_sentences for run in runs for b in run.done)
    what = f"{counted(done, 'sentences')} of {counted(len(runs), 'models')}"
    return f"extract: {what} in {wall:.1f} s, loading and checking included"


def _failure(failed: Sequence[Failed], num_models: int) -> DrillcoreError:
    """One error for everything that failed; the only model of a job keeps its own error."""
    lines, hints = [], []
    for each in failed:
        if isinstance(each, ModelFailed):
            if num_models == 1:
                return each.error
            lines.append(f"{each.model}: {each.error}")
            hints.append(each.error.hint)
        elif isinstance(each, AuditFailed):
            lines.append(f"{each.model}/{each.dataset}: {each.what}")
            hints.append("What the audit withdrew is computed again; if it is found wrong again, please report it.")
        else:
            lines.append(f"{each.model}/{each.dataset}, sentences {each.start} to {each.stop - 1}: {each.error}")
            hints.append(each.hint)
    kinds = ((ModelFailed, "models"), (BlockFailed, "blocks"))
    numbers = [(sum(isinstance(f, kind) for f in failed), name) for kind, name in kinds]
    counts = [f"{n} {name}" for n, name in numbers if n]
    said = [f"{' and '.join(counts)} failed for good"] if counts else []
    audits = sum(isinstance(f, AuditFailed) for f in failed)
    said += [f"the audit found rows stored wrong in {audits} of the datasets"] if audits else []
    hint = " ".join(dict.fromkeys(h for h in hints if h))
    return PartFailed(
        f"{', and '.join(said)}, everything else is kept:\n" + "\n".join(lines),
        hint=f"{hint} Run the same command again to try them once more.".strip(),
    )


class ModelRun:
    """One model of a run: what is pending, its blocks once it is loaded, and what came back.

    groups: creates its arrays while the model is loaded.
    """

    def __init__(self, context: Context, name: str, groups: ThreadPoolExecutor) -> None:
        self._context, self.name = context, name
        self._pairs, self._group = context.inputs.of_model(name), context.store.model(name)
        asked = asked_of(context, name)
        self._request = asked.request
        self._standings = [stand(asked, pair, context.store.root.store) for pair in self._pairs]
        known = attributes_of(self._group)
        recipes = [r for s in self._standings for r in s.recipes]
        self._stored = stored_numerics(context.job.extract.backend, known, self._request, recipes)
        if "numerics" not in known:
            self._restore_numerics(recipes)
        if self._stored is not None and "backend" in self._stored and "backend_choice" in known:
            context.manifest.record("models", name, backend=known["backend_choice"])
        # What takes something away waits until the model is loaded and checked.
        self._groups = [groups.submit(fit_group, context, s) if s.takes_nothing else None for s in self._standings]
        self._targets: list[Target] = []
        self._audit: ModelAudit | None = None
        self._prepared: Prepared | None = None
        self._started, self._num_left, self._num_sentences = 0.0, 0, 0
        self.done: list[BlockDone] = []

    def _restore_numerics(self, recipes: Sequence[Recipe]) -> None:
        """Record again what a damaged group of a model held: the numerics that its states were last computed by."""
        if recipes:
            last = recipes[-1]
            update_attributes(self._group, numerics=last.numerics, numerics_for=digest(last.request))

    def is_pending(self) -> bool:
        """Whether there is anything to extract; tells the user where not."""
        targets = self._finished()
        if targets is None:
            return True
        if self._context.job.run.audit != 0 and any(read_audit(t.writer.group) == NOT_YET for t in targets):
            self._context.listener.say(f"{self.name}: its last run ended before its states were audited")
            return True
        self._targets = targets
        sentences = sum(len(p.tokens) for sets in self._context.inputs.sentences_of(self.name) for p in sets)
        self._context.listener.say(f"{self.name}: all {counted(sentences, 'sentences')} are up to date")
        notes = [note for note in (kept_note(s, self._request) for s in self._standings) if note]
        if notes:
            self._context.manifest.record("models", self.name, kept=notes)
        for note in notes:
            self._context.listener.say(note)
        return False

    def _finished(self) -> list[Target] | None:
        """The groups, if every shard of every one is committed as it must be; None otherwise."""
        found = []
        for i, (standing, group) in enumerate(zip(self._standings, self._groups, strict=True)):
            if group is None or not standing.takes_nothing or standing.num_kept < standing.shape.num_shards:
                continue
            target = target_of(standing, group.result())
            if target is None:
                # Other files of its shards are missing or damaged: what is computed again is counted and audited.
                self._standings[i] = replace(standing, claimed=tuple(group.result().committed()))
            else:
                found.append(target)
        return found if len(found) == len(self._standings) else None

    def sweep_model(self) -> SweepModel:
        """What an executor needs to know before the model is loaded."""
        size = self._block_sentences()
        firsts = [pair for sets in self._context.inputs.sentences_of(self.name) for pair in sets]
        blocks = sum(num_blocks(s, size) for s in self._standings)
        sentences, all_sentences = pending_sentences(self._standings), sum(len(p.tokens) for p in firsts)
        cost = sum(cost_of(self._context.inputs, p) for p in firsts) * sentences / max(1, all_sentences)
        self._audit = ModelAudit(self._context, self.name, self._standings, size)
        witness = self._audit.witness
        return SweepModel(
            replace(self._task(), witness=witness.tokens, witness_places=witness.places), blocks, sentences, cost
        )

    def refused_prediction(self, prepared: Prepared) -> ModelFailed | None:
        """The failure of a model that is to predict tokens and whose head is not proved; None where all is well."""
        predicts = any(p.dataset.expected_next or p.dataset.candidates for p in self._pairs)
        if not (predicts and prepared.head_problem):
            return None
        return ModelFailed(self.name, prediction_refused(self._task().model.id, prepared.head_problem))

    def pending_blocks(self, prepared: Prepared) -> list[BlockTask]:
        """The blocks to extract, now that the model is loaded: settles its numerics and creates its arrays."""
        context, name = self._context, self.name
        record_model(context, name, prepared)
        assert self._audit is not None
        self._audit.check_model(prepared.alone)
        self._prepared = prepared
        numerics = self._stored or {**prepared.numerics, "block_sentences": self._block_sentences()}
        self._targets = [
            pending_of(context, s, self._recipe(s, numerics), g.result() if g else None)
            for s, g in zip(self._standings, self._groups, strict=True)
        ]
        if self._stored is None:
            chosen = {"backend_choice": prepared.choice} if prepared.choice else {}
            update_attributes(self._group, numerics=numerics, numerics_for=digest(self._request), **chosen)
        self._audit.begin(self._targets)
        for standing, target in zip(self._standings, self._targets, strict=True):
            note = kept_note(standing, self._request, target.num_pending)
            if note:
                context.listener.say(note)
        model = replace(self._task(), numerics=numerics)
        tasks = block_tasks(context, model, self._targets)
        self._started, self._num_left = time.perf_counter(), len(tasks)
        self._num_sentences = sum(task.num_sentences for task in tasks)
        return tasks

    def _recipe(self, standing: Standing, numerics: dict[str, Any]) -> Recipe:
        """How a group's states are computed. Groups that are new in a store get blocks whose states fit in memory."""
        block = numerics["block_sentences"]
        if self._stored is not None and standing.is_new:
            block = min(block, self._fitting_block())
        return Recipe(self._request, {**numerics, "block_sentences": block}, standing.pair.recorded_policy)

    def add(self, outcome: BlockDone | BlockFailed | ModelFailed) -> None:
        """Take what came back; after the last block, report and record what the model cost."""
        if isinstance(outcome, ModelFailed):
            self._context.manifest.record("models", self.name, error=str(outcome.error))
            return
        self._num_left -= 1
        if isinstance(outcome, BlockDone):
            self.done.append(outcome)
        if self._num_left == 0:
            wall = time.perf_counter() - self._started
            self._context.listener.say(summarise(self._context, self.name, self.done, wall))
            if sum(b.num_sentences for b in self.done) == self._num_sentences:
                check_committed(self._targets)
                self._context.manifest.did("extract", self.name)
            self.audit_if_done()

    def audit_if_done(self) -> None:
        """Compare what the store holds with sentences computed alone, once no block is left."""
        if self._num_left == 0 and self._audit is not None:
            self._audit.compare(self._targets, self._prepared)

    def audit_failures(self) -> list[AuditFailed]:
        """What the audit found wrong, withdrawn by now; after the sweep."""
        return [] if self._audit is None else self._audit.settle()

    def _block_sentences(self) -> int:
        return self._fitting_block() if self._stored is None else int(self._stored["block_sentences"])

    def _fitting_block(self) -> int:
        return block_size(self._context.inputs, self.name, self._context.executor.hardware())

    def _task(self) -> ModelTask:
        loaded, pairs = self._context.inputs.loaded, self._pairs
        sets = [pair for together in self._context.inputs.sentences_of(self.name) for pair in together]
        return ModelTask(
            model=pairs[0].model,
            base=str(loaded.base.resolve()),
            backend=loaded.job.extract.backend,
            extract=loaded.job.extracting,
            layers=self._context.inputs.layers[self.name],
            numerics=self._stored,
            sample=Sequences.of([s for pair in sets for s in sample_of(pair.tokens)]),
        )


def sample_of(tokens: Sequences) -> Sequences:
    """Rows that stand for a dataset: its first ones, some from all over it, and its longest.

    >>> [len(s) for s in sample_of(Sequences.of([[1], [2, 3, 4], [5, 6]]))]
    [1, 3, 2]
    """
    num_rows = len(tokens)
    spread = np.linspace(0, num_rows - 1, SPREAD_ROWS).astype(np.int64) if num_rows else np.zeros(0, np.int64)
    longest = [int(tokens.lengths_N.argmax())] if num_rows else []
    return tokens.take(
        np.unique(np.concatenate([np.arange(min(FIRST_ROWS, num_rows)), spread, longest])).astype(np.int64)
    )
