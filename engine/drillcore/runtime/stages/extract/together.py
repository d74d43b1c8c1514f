"""Blocks of the groups of one dataset: those of the same sentences are filled in the same passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from drillcore.runtime.context import Context
from drillcore.runtime.stages.extract.pending import Target
from drillcore.runtime.stages.extract.standing import Standing
from drillcore.runtime.work.tasks import BlockTask, ModelTask
from drillcore.store.record import BlockPart


def block_tasks(context: Context, model: ModelTask, targets: Sequence[Target]) -> list[BlockTask]:
    """The pending blocks of a model's groups, each a task; those of other groups of the same sentences beside it.

    A group that is committed there stays beside it too: which tokens are gathered decides the last bits of all, and
    they must not depend on where an earlier run ended.
    """
    pending = {(t.pair.dataset.of, *b.sentences) for t in targets for b in t.blocks}
    found: dict[tuple[str, int, int], list[BlockTask]] = {}
    for task, of in _each(context, model, targets):
        place = of, *task.block.sentences
        if place in pending:
            found.setdefault(place, []).append(task)
    return [_joined(tasks, of) for (of, _, _), tasks in found.items()]


def _joined(tasks: Sequence[BlockTask], of: str) -> BlockTask:
    """One task for blocks of the same sentences; each records the composition of the whole."""
    # What is counted while it runs are sentences, not rows: the first group is one of sentences where there is one.
    tasks = sorted(tasks, key=lambda task: task.block.of is not None)
    parts = tuple(BlockPart(t.block.start, t.block.stop, t.dataset.removeprefix(of)) for t in tasks)
    first, *others = (replace(task, parts=parts) for task in tasks)
    return replace(first, beside=tuple(others))


def _each(context: Context, model: ModelTask, targets: Sequence[Target]) -> Iterator[tuple[BlockTask, str]]:
    location = context.store.location
    for target in targets:
        pair = target.pair
        for block in target.every:
            placed = None if pair.placed is None else pair.placed.part(*block.sentences)
            task = BlockTask(
                model,
                pair.dataset.name,
                location.address,
                target.writer.group.path,
                target.shape,
                block,
                pair.tokens.slice(*block.sentences),
                target.committed_shards(block),
                hold=location.hold,
                places=placed,
            )
            yield task, pair.dataset.of


def pending_sentences(standings: Sequence[Standing]) -> int:
    """Sentences that some group of their dataset lacks; their blocks hold some more."""
    ranges: dict[str, set[tuple[int, int]]] = {}
    for standing in standings:
        ranges.setdefault(standing.pair.dataset.of, set()).update(standing.pending_sentences())
    total = 0
    for each in ranges.values():
        reached = 0
        for start, stop in sorted(each):
            total += max(0, stop - max(start, reached))
            reached = max(reached, stop)
    return total
