"""Blocks of the groups of one dataset: those of the same sentences are filled in the same passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from drillcore.runtime.context import Context
from drillcore.runtime.stages.extract.pending import Target
from drillcore.runtime.stages.extract.standing import Standing
from drillcore.runtime.work.blocks import Block, Stretch
from drillcore.runtime.work.tasks import BlockTask, ModelTask
from drillcore.store.record import BlockPart
from drillcore.tokens.places import Among
from drillcore.tokens.sequences import Sequences


def block_tasks(context: Context, model: ModelTask, targets: Sequence[Target]) -> list[BlockTask]:
    """The pending blocks of a model's groups, each a task; those of other groups of the same sentences beside it.

    A group that is committed there stays beside it too: which tokens are gathered decides the last bits of all, and
    they must not depend on where an earlier run ended.
    """
    found: dict[tuple[str, tuple[Stretch, ...]], list[tuple[Target, Block]]] = {}
    for target in targets:
        for block in target.every:
            found.setdefault((target.pair.dataset.of, _sentences(block)), []).append((target, block))
    pending = {(t.pair.dataset.of, _sentences(b)) for t in targets for b in t.blocks}
    return [_joined(context, model, members, place[0]) for place, members in found.items() if place in pending]


def _sentences(block: Block) -> tuple[Stretch, ...]:
    """The stretches of a block by their sentences alone: they are computed together where these are the same."""
    return tuple(Stretch(*s.sentences, s.sentences) for s in block.stretches)


def _joined(context: Context, model: ModelTask, members: Sequence[tuple[Target, Block]], of: str) -> BlockTask:
    """One task for blocks of the same sentences, and of their branches; each records the composition of the whole."""
    # What is counted while it runs are sentences, not rows: the first group is one of sentences where there is one.
    members = sorted(members, key=lambda member: member[1].of is not None)
    stretches = range(len(members[0][1].stretches))
    names = [target.pair.dataset.name.removeprefix(of) for target, _ in members]
    parts = tuple(
        tuple(BlockPart(b.stretches[i].start, b.stretches[i].stop, n) for (_, b), n in zip(members, names, strict=True))
        for i in stretches
    )
    lacking = [i for i in stretches if any(target.lacks(block, block.stretches[i]) for target, block in members)]
    first, *further = (_of_stretch(context, model, members, i, parts) for i in lacking)
    return replace(first, further=tuple(further))


def _of_stretch(
    context: Context,
    model: ModelTask,
    members: Sequence[tuple[Target, Block]],
    number: int,
    parts: tuple[tuple[BlockPart, ...], ...],
) -> BlockTask:
    """The task of one stretch of blocks of the same sentences."""
    tasks = [_task(context, model, target, block, block.stretches[number]) for target, block in members]
    first, *others = (replace(task, parts=parts) for task in _in_one_block(tasks))
    return replace(first, beside=tuple(others))


def _in_one_block(tasks: Sequence[BlockTask]) -> Sequence[BlockTask]:
    """The tasks with the sentences of all of them, where these differ: then prefixes are shared between groups."""
    sets: list[tuple[str, Sequences]] = []
    for task in tasks:
        if not any(_same(task.tokens, tokens) for _, tokens in sets):
            sets.append((task.dataset, task.tokens))
    if len(sets) == 1:
        return [tasks[0], *(replace(task, counted=False) for task in tasks[1:])]
    whole, before = Sequences.join(tokens for _, tokens in sets), np.cumsum([0, *(len(tokens) for _, tokens in sets)])
    found = []
    for task in tasks:
        number = next(i for i, (_, tokens) in enumerate(sets) if _same(task.tokens, tokens))
        places = Among(task.tokens, task.places, int(before[number]), len(whole))
        found.append(replace(task, tokens=whole, places=places, counted=task.dataset == sets[number][0]))
    return found


def _same(one: Sequences, other: Sequences) -> bool:
    """Whether two are views of the same tokens."""
    return bool(one.ids_T.__array_interface__["data"] == other.ids_T.__array_interface__["data"]) and len(one) == len(
        other
    )


def _task(context: Context, model: ModelTask, target: Target, block: Block, stretch: Stretch) -> BlockTask:
    location, pair = context.store.location, target.pair
    return BlockTask(
        model,
        pair.dataset.name,
        location.address,
        target.writer.group.path,
        target.shape,
        block,
        pair.tokens.slice(*stretch.sentences),
        target.committed_shards(block),
        hold=location.hold,
        places=None if pair.placed is None else pair.placed.part(*stretch.sentences),
        offset=stretch.start - block.start,
        begun={shard: stop for shard, stop in target.begun.items() if shard in block.shards},
    )


def pending_sentences(standings: Sequence[Standing]) -> int:
    """Sentences that some group of their dataset lacks, with their branches; their blocks hold some more."""
    ranges: dict[str, set[tuple[int, int]]] = {}
    sets: dict[str, set[int]] = {}
    for standing in standings:
        ranges.setdefault(standing.pair.dataset.of, set()).update(standing.pending_sentences())
        sets.setdefault(standing.pair.dataset.of, set()).add(id(standing.pair.tokens))
    total = 0
    for of, each in ranges.items():
        reached = 0
        for start, stop in sorted(each):
            total += len(sets[of]) * max(0, stop - max(start, reached))
            reached = max(reached, stop)
    return total
