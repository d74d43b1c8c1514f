"""A run's own estimate of its stages, told beside what they took, and what they took, kept for the next estimate.

An estimate is a help for the reader: whatever goes wrong in making or keeping one, the run goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from drillcore.runtime.context import Context
from drillcore.runtime.costs import Piece
from drillcore.runtime.outlook import Outlook, alone_work, look, model_setting, node_work
from drillcore.runtime.preflight import Input
from drillcore.runtime.rates import Rates, Seen, add, seen_now
from drillcore.system.machine import load_average, num_cores
from drillcore.tokens.packs import build_packs
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.widths import PackRule

# Packs on a CPU, for counts that are made without the model.
PLAIN_PACKS = PackRule(width=64, widest=32_768)
# Load average for each core from which a stage's time is no measure of the machine.
BUSY = 1.5
# Sentences of a dataset that a run lays out to count its nodes.
COUNTED = 4096


class Timekeeper:
    """Estimates the stages of a run before they begin, and records each when it is through.

    Only runs on this machine are estimated and remembered: what a cluster takes says nothing of it.
    """

    def __init__(self, context: Context, stages: Sequence[str]) -> None:
        self._context = context
        self._outlook: Outlook | None = None
        self._estimates: dict[str, float] = {}
        if context.job.run.executor != "local":
            return
        with suppress(Exception):
            location, hardware, last = context.store.location, context.executor.hardware(), context.manifest.earlier
            found = look(context.inputs, location, context.out, last, hardware, few_nodes, stages)
            rates = Rates.read()
            estimates = {stage: rates.of_all(found.of(stage)) for stage in stages}
            self._estimates = {stage: e.seconds for stage, e in estimates.items() if e is not None}
            self._outlook = found

    def begin(self, stage: str) -> None:
        """Note what a stage is expected to take; nothing where that is not known."""
        seconds = self._estimates.get(stage)
        rounded = None if seconds is None else round(seconds, 1)
        self._context.manifest.record("stages", stage, estimated_seconds=rounded)
        self._context.manifest.worked.pop(stage, None)

    def end(self, stage: str) -> None:
        """Keep what a stage took, which is done now, for later estimates, unless other programs were in its way."""
        if self._outlook is None:
            return
        load = load_average()
        self._context.manifest.record("stages", stage, load_average=round(load, 1))
        if load > BUSY * num_cores():
            return
        with suppress(Exception):
            pieces = self._outlook.of(stage)
            add(self._extracted(pieces) if stage == "extract" else self._worked(stage, pieces))

    def _worked(self, stage: str, pieces: Sequence[Piece]) -> list[Seen]:
        """The groups that a stage really worked on, together: it starts once."""
        worked = set(self._context.manifest.worked.get(stage, ()))
        wanted = {p.group for p in pieces if p.group}
        # Where it did more or less than was expected, nobody knows how long what took.
        if not pieces or worked != wanted or len({p.setting for p in pieces}) > 1:
            return []
        seconds = self._context.manifest.facts["stages"][stage]["wall_seconds"]
        whole = Piece(stage, pieces[0].kind, sum(p.work for p in pieces), pieces[0].setting, pieces[0].like)
        return [seen_now(whole, seconds, "run")]

    def _extracted(self, pieces: Sequence[Piece]) -> list[Seen]:
        """What loading, passes and audit of each model took, by what the manifest says of them."""
        found, inputs = list[Seen](), self._context.inputs
        hardware = self._context.executor.hardware()
        for name in self._context.manifest.worked.get("extract", ()):
            facts: dict[str, Any] = self._context.manifest.facts["models"][name]
            setting, like = model_setting(inputs, name, hardware)
            per_node = node_work(inputs, name)
            forward = Piece("extract", "forward", facts["extract"]["nodes"] * per_node, setting, like)
            found.append(seen_now(forward, facts["extract"]["wall_seconds"], "run"))
            load = next(p for p in pieces if p.kind == "load" and p.group == name)
            found.append(seen_now(load, facts["load_seconds"], "run"))
            audit = facts.get("audit")
            if audit is not None and any(p.kind == "alone" for p in pieces):
                sentences = audit["sentences"] + audit["canaries"]
                tokens = audit["tokens"] * sentences / max(1, audit["sentences"])
                work = alone_work(inputs, name, sentences, tokens)
                found.append(seen_now(Piece("extract", "alone", work, setting, like), audit["seconds"], "run"))
        return found


def few_nodes(sets: Sequence[Input]) -> int:
    """About how many nodes the sentences of a dataset and its branches have, from the first ones."""
    first = sets[0].tokens
    parts = [pair.tokens.slice(0, min(COUNTED, len(pair.tokens))) for pair in sets]
    block = parts[0] if len(parts) == 1 else Sequences.join(parts)
    nodes = build_packs(block, PLAIN_PACKS).num_nodes
    return int(nodes * len(first) / max(1, len(parts[0])))
