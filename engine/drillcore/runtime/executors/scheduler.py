"""The order of a sweep: which piece of work a worker takes next. Bookkeeping: nothing here runs, waits or measures.

A worker that is free starts the dearest model that nobody has, unless a started one is late: its workers would need
longer for what is queued than all workers for all that is left. Then it joins that one, as it does when nothing is left
to start, where what is queued takes longer than a load. So dear models have their workers early, and cheap ones fill
the end. A worker changes its model only when that one's queue is empty, so that it loads each model at most once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

# Blocks that a worker holds at a time: the second one is planned while the model works on the first.
AHEAD = 2


@dataclass(eq=False)
class Piece:
    """A model to load (no block), or one of its blocks.

    model: position in the sweep. tokens: its size. tries: times it was begun and came to nothing. alone: to be run by a
    worker that does nothing else, since it may have brought one down.
    """

    model: int
    block: Any = None
    tokens: int = 0
    tries: int = 0
    alone: bool = False


@dataclass(eq=False)
class _Model:
    """One model's part.

    loading, workers: who loads it, who has it loaded. open: whether its blocks are known. closed: whether a worker
    could not load it while others could. over: whether it was given up.
    """

    cost: float
    num_blocks: int
    load: Piece
    started: bool = False
    open: bool = False
    closed: bool = False
    over: bool = False
    queue: deque[Piece] = field(default_factory=deque)
    tokens: int = 0
    queued: int = 0
    loading: set[Hashable] = field(default_factory=set)
    workers: set[Hashable] = field(default_factory=set)
    load_seconds: float = 0.0
    done_tokens: int = 0
    done_seconds: float = 0.0

    @property
    def num_workers(self) -> int:
        return len(self.loading) + len(self.workers)

    @property
    def share_left(self) -> float:
        """How much of the model is not handed out."""
        return self.queued / max(1, self.tokens) if self.open else 1.0

    def left(self, seconds_a_cost: float) -> float:
        """Estimated seconds of one worker for what is not handed out."""
        if self.done_tokens:
            return self.queued * self.done_seconds / self.done_tokens
        return self.cost * self.share_left * seconds_a_cost

    def until_done(self, seconds_a_cost: float) -> float:
        """Estimated seconds until its workers are through with what is not handed out, and with their last block."""
        left = self.left(seconds_a_cost)
        block = left / max(1, len(self.queue)) if self.open else left / max(1, self.num_blocks)
        return left / max(1, self.num_workers) + block

    @property
    def worth_joining(self) -> bool:
        """Whether another worker has something to do here by the time it has loaded the model."""
        if self.closed and self.num_workers:
            return False
        if not self.open:
            return self.started and self.num_workers < self.num_blocks
        if len(self.queue) <= len(self.loading):
            return False
        if not self.done_seconds or not self.num_workers:
            return True
        return self.left(0.0) / self.num_workers > self.load_seconds


class Order:
    """Hands out the pieces of a sweep.

    costs: of each model, to compare them with. num_blocks: of each. num_workers: that share the sweep.
    """

    def __init__(self, costs: Sequence[float], num_blocks: Sequence[int], num_workers: int) -> None:
        self._num_workers = num_workers
        # Fewer workers than models start with one model each: what a load costs is not known yet.
        self._is_wide = num_workers > len(costs)
        self._models = [
            _Model(cost, blocks, Piece(i)) for i, (cost, blocks) in enumerate(zip(costs, num_blocks, strict=True))
        ]
        self._at: dict[Hashable, int] = {}
        self._reserved: dict[Hashable, int] = {}

    @property
    def is_empty(self) -> bool:
        """Whether everything was handed out and nothing more can come."""
        return all(m.open and not m.queue for m in self._models)

    def next(self, worker: Hashable, holds: int) -> Piece | None:
        """What a worker that holds so many blocks takes next; None: nothing for now."""
        at = self._at.get(worker)
        if at is not None and self._models[at].queue:
            return self._next_block(self._models[at], holds)
        if holds:
            return None
        chosen = self._take_reserved(worker)
        if chosen is None:
            chosen = self._choose()
        if chosen is None:
            return None
        self.lose(worker)
        self._at[worker] = chosen
        self._models[chosen].started = True
        self._models[chosen].loading.add(worker)
        return self._models[chosen].load

    def ahead(self, worker: Hashable) -> int | None:
        """Reserve the model that a worker will start next, once; None: it has one, or none is left to start."""
        waiting = [m for m in self._models if not m.started]
        if worker in self._reserved or not waiting:
            return None
        chosen = max(waiting, key=lambda m: m.cost)
        chosen.started = True
        chosen.loading.add(worker)
        self._reserved[worker] = chosen.load.model
        return chosen.load.model

    def _next_block(self, model: _Model, holds: int) -> Piece | None:
        # The last blocks are not held ahead: every worker of the model shall get one of them.
        if holds and (model.queue[0].alone or holds >= AHEAD or len(model.queue) < model.num_workers):
            return None
        piece = model.queue.popleft()
        model.queued -= piece.tokens
        return piece

    def _take_reserved(self, worker: Hashable) -> int | None:
        """The model that the worker reserved, unless others did all of it meanwhile."""
        chosen = self._reserved.pop(worker, None)
        if chosen is None:
            return None
        model = self._models[chosen]
        model.loading.discard(worker)
        return chosen if not model.open or model.queue else None

    def _choose(self) -> int | None:
        rate = self._seconds_a_cost()
        waiting = [m for m in self._models if not m.started]
        joinable = [(m.until_done(rate), m.load.model) for m in self._models if m.worth_joining]
        latest = max(joinable, default=None)
        fair = sum(m.left(rate) for m in self._models) / self._num_workers
        if waiting and (latest is None or latest[0] <= fair or not (self._is_wide or self._models[latest[1]].open)):
            return max(waiting, key=lambda m: m.cost).load.model
        return None if latest is None else latest[1]

    def _seconds_a_cost(self) -> float:
        """Measured on the models of which blocks are done."""
        done = sum(m.cost * m.done_tokens / max(1, m.tokens) for m in self._models)
        return sum(m.done_seconds for m in self._models) / done if done else 1.0

    def is_open(self, model: int) -> bool:
        """Whether a model's blocks are known."""
        return self._models[model].open

    def open(self, model: int, blocks: Sequence[Piece]) -> None:
        """Take a model's blocks."""
        mine = self._models[model]
        mine.open, mine.tokens = True, sum(p.tokens for p in blocks)
        mine.queued = mine.tokens
        mine.queue.extend(blocks)

    def loaded(self, worker: Hashable, model: int, seconds: float) -> None:
        """A worker has a model loaded, in so many seconds."""
        mine = self._models[model]
        mine.loading.discard(worker)
        mine.workers.add(worker)
        mine.load_seconds, mine.load.tries = seconds, 0

    def done(self, piece: Piece, seconds: float) -> None:
        """A block took so long."""
        mine = self._models[piece.model]
        mine.done_tokens += piece.tokens
        mine.done_seconds += seconds

    def put_back(self, piece: Piece) -> bool:
        """A block is to be run again, before others; False where its model was given up."""
        mine = self._models[piece.model]
        if not mine.over:
            mine.queue.appendleft(piece)
            mine.queued += piece.tokens
        return not mine.over

    def unload(self, worker: Hashable, model: int, *, again: bool) -> bool:
        """A worker could not load a model; `again`: it may be tried again. Returns whether others may still do it."""
        mine = self._models[model]
        mine.loading.discard(worker)
        self._at.pop(worker, None)
        mine.started = mine.open or bool(mine.num_workers)
        mine.closed = mine.closed or not again
        return again or bool(mine.num_workers)

    def drop(self, model: int) -> list[Piece]:
        """Give a model up; returns the blocks that were queued."""
        mine = self._models[model]
        left = list(mine.queue)
        mine.queue.clear()
        mine.queued = 0
        mine.started = mine.open = mine.over = True
        return left

    def lose(self, worker: Hashable) -> None:
        """A worker has no model any more."""
        for model in self._models:
            model.workers.discard(worker)
            if worker in model.loading:
                model.loading.discard(worker)
                model.started = model.open or bool(model.num_workers)
        self._at.pop(worker, None)
        self._reserved.pop(worker, None)
