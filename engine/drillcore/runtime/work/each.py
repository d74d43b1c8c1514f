"""Blocks one after the other, of which those whose states cannot be stored are set aside."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from drillcore.errors import NumericsError
from drillcore.runtime.work.tasks import BlockDone, BlockFailed, BlockTask
from drillcore.system.progress import Progress

RunBlocks = Callable[[Iterable[BlockTask], Progress], Iterator[BlockDone]]


@dataclass
class CountedProgress:
    """Progress that remembers what it counted for blocks that are not done yet."""

    progress: Progress
    unsettled: int = 0

    def advance(self, count: int) -> None:
        """Report so many more sentences of blocks under way."""
        self.unsettled += count
        self.progress.advance(count)

    def settle(self, count: int) -> None:
        """A block of so many sentences is done."""
        self.unsettled -= count

    def take_back(self) -> None:
        """Subtract what was reported for unfinished blocks: it is computed again."""
        self.progress.advance(-self.unsettled)
        self.unsettled = 0


def each_block(
    run: RunBlocks, tasks: Iterable[BlockTask], progress: CountedProgress
) -> Iterator[BlockDone | BlockFailed]:
    """Run the blocks in their order; yields what became of each.

    run: gives each block once it is done, or raises what is wrong. tasks: taken as `run` takes them.
    """
    coming, waiting = iter(tasks), deque[BlockTask]()

    def taken() -> Iterator[BlockTask]:
        yield from tuple(waiting)
        for task in coming:
            waiting.append(task)
            yield task

    while True:
        try:
            for done in run(taken(), Progress(progress.advance)):
                waiting.popleft()
                progress.settle(done.num_sentences)
                yield done
            return
        except NumericsError as error:
            said, hint = str(error), error.hint
        progress.take_back()
        first = waiting.popleft()
        if waiting:
            # Blocks overlap: run the first unfinished one alone to find out which of them failed.
            yield from each_block(run, [first], progress)
        else:
            yield BlockFailed.of(first, said, hint)
