"""Which piece of work a worker takes next. Only bookkeeping: nothing here runs, waits or measures.

A free worker starts the most expensive model that nobody has started, unless a started model is late: its own workers
would need longer for its queue than all workers need for everything that is left. Then it joins that model. When no
model is left to start, it joins one whose queue takes longer than loading the model. So expensive models get their
workers early, and cheap ones fill the end. A worker changes its model only when that model's queue is empty, so that it
loads each model at most once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

# Blocks that a worker holds at a time: the second one is planned while the model runs the first.
AHEAD = 2


@dataclass(eq=False)
class Piece:
    """A model to load (no block), or one of its blocks.

    model: position in the sweep. tokens: its size. tries: how often it was started and lost. most: blocks that its
    worker may hold with it, itself included, since one of those may have killed a worker; 0: any number.
    """

    model: int
    block: Any = None
    tokens: int = 0
    tries: int = 0
    most: int = 0


@dataclass(eq=False)
class _Model:
    """The state of one model.

    loading, workers: who is loading it, who has it loaded. open: its blocks are known. closed: a worker failed to load
    it, so no other worker joins. over: it was given up.
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
        """Share of the model that is not handed out yet."""
        return self.queued / max(1, self.tokens) if self.open else 1.0

    def remaining_seconds(self, seconds_a_cost: float) -> float:
        """Estimated seconds that one worker needs for what is not handed out yet."""
        if self.done_tokens:
            return self.queued * self.done_seconds / self.done_tokens
        return self.cost * self.share_left * seconds_a_cost

    def until_done(self, seconds_a_cost: float) -> float:
        """Estimated seconds until its workers have finished the rest of its queue and their last block."""
        left = self.remaining_seconds(seconds_a_cost)
        block = left / max(1, len(self.queue)) if self.open else left / max(1, self.num_blocks)
        return left / max(1, self.num_workers) + block

    @property
    def worth_joining(self) -> bool:
        """Whether another worker would still have work here after loading the model."""
        if self.closed and self.num_workers:
            return False
        if not self.open:
            return self.started and self.num_workers < self.num_blocks
        if len(self.queue) <= len(self.loading):
            return False
        if not self.done_seconds or not self.num_workers:
            return True
        return self.remaining_seconds(0.0) / self.num_workers > self.load_seconds


class Scheduler:
    """Hands out the pieces of a sweep.

    costs: of each model, in any unit. num_blocks: of each model. num_workers: how many share the sweep.
    """

    def __init__(self, costs: Sequence[float], num_blocks: Sequence[int], num_workers: int) -> None:
        self._num_workers = num_workers
        # With fewer workers than models each worker starts a model of its own: what a load costs is not known yet.
        self._is_wide = num_workers > len(costs)
        self._models = [
            _Model(cost, blocks, Piece(i)) for i, (cost, blocks) in enumerate(zip(costs, num_blocks, strict=True))
        ]
        self._at: dict[Hashable, int] = {}
        self._reserved: dict[Hashable, int] = {}

    @property
    def is_empty(self) -> bool:
        """Whether everything was handed out and nothing more can be queued."""
        return all(m.open and not m.queue for m in self._models)

    def next(self, worker: Hashable, holds: int) -> Piece | None:
        """What a worker that holds `holds` blocks takes next; None: nothing for now."""
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
        """Reserve the model that a worker will start next; None where it has one already, or none is left to start."""
        waiting = [m for m in self._models if not m.started]
        if worker in self._reserved or not waiting:
            return None
        chosen = max(waiting, key=lambda m: m.cost)
        chosen.started = True
        chosen.loading.add(worker)
        self._reserved[worker] = chosen.load.model
        return chosen.load.model

    def _next_block(self, model: _Model, holds: int) -> Piece | None:
        # Nobody holds one of the last blocks in advance: every worker of the model gets one of them.
        if holds and (holds >= min(AHEAD, model.queue[0].most or AHEAD) or len(model.queue) < model.num_workers):
            return None
        return self._take(model)

    def _take(self, model: _Model) -> Piece:
        piece = model.queue.popleft()
        model.queued -= piece.tokens
        return piece

    def model_of(self, worker: Hashable) -> int:
        """Position of the model that a worker has loaded, or loads."""
        return self._at[worker]

    def more(self, worker: Hashable, held: Sequence[Piece], under_way: int) -> Piece | None:
        """What a worker takes whose sweep has room for another block beside those that it holds; None: nothing.

        under_way: tokens of the model's blocks that all workers hold. Each takes its even share of them and of the
        queue; until a first block is done, workers that load the model have theirs kept for them.
        """
        model = self._models[self._at[worker]]
        if not model.queue:
            return None
        if any(p.most and len(held) >= p.most for p in (*held, model.queue[0])):
            return None
        sharing = len(model.workers) + (0 if model.done_tokens else len(model.loading))
        if sum(p.tokens for p in held) * sharing >= model.queued + under_way:
            return None
        return self._take(model)

    def _take_reserved(self, worker: Hashable) -> int | None:
        """The model that the worker reserved, unless others have finished it meanwhile."""
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
        fair = sum(m.remaining_seconds(rate) for m in self._models) / self._num_workers
        if waiting and (latest is None or latest[0] <= fair or not (self._is_wide or self._models[latest[1]].open)):
            return max(waiting, key=lambda m: m.cost).load.model
        return None if latest is None else latest[1]

    def _seconds_a_cost(self) -> float:
        """Seconds for one unit of cost, measured on the models with finished blocks."""
        done = sum(m.cost * m.done_tokens / max(1, m.tokens) for m in self._models)
        return sum(m.done_seconds for m in self._models) / done if done else 1.0

    def is_open(self, model: int) -> bool:
        """Whether a model's blocks are known."""
        return self._models[model].open

    def open(self, model: int, blocks: Sequence[Piece]) -> None:
        """Queue a model's blocks."""
        state = self._models[model]
        state.open, state.tokens = True, sum(p.tokens for p in blocks)
        state.queued = state.tokens
        state.queue.extend(blocks)

    def loaded(self, worker: Hashable, model: int, seconds: float) -> None:
        """A worker loaded a model, in so many seconds."""
        state = self._models[model]
        state.loading.discard(worker)
        state.workers.add(worker)
        state.load_seconds, state.load.tries = seconds, 0

    def done(self, piece: Piece, seconds: float) -> None:
        """A block is done and took so many seconds."""
        state = self._models[piece.model]
        state.done_tokens += piece.tokens
        state.done_seconds += seconds

    def put_back(self, piece: Piece) -> bool:
        """Queue a block again, before the others; False where its model was given up."""
        state = self._models[piece.model]
        if not state.over:
            state.queue.appendleft(piece)
            state.queued += piece.tokens
        return not state.over

    def unload(self, worker: Hashable, model: int, *, again: bool) -> bool:
        """A worker failed to load a model; `again`: it may be retried. Returns whether the model can still load."""
        state = self._models[model]
        state.loading.discard(worker)
        self._at.pop(worker, None)
        state.started = state.open or bool(state.num_workers)
        state.closed = state.closed or not again
        return again or bool(state.num_workers)

    def drop(self, model: int) -> list[Piece]:
        """Give up a model; returns the blocks that were queued."""
        state = self._models[model]
        queued = list(state.queue)
        state.queue.clear()
        state.queued = 0
        state.started = True
        state.open = True
        state.over = True
        return queued

    def lose(self, worker: Hashable) -> None:
        """A worker has lost its model."""
        for model in self._models:
            model.workers.discard(worker)
            if worker in model.loading:
                model.loading.discard(worker)
                model.started = model.open or bool(model.num_workers)
        self._at.pop(worker, None)
        self._reserved.pop(worker, None)
