"""The scheduler of a sweep: nothing forgotten, nothing twice, few loads, nobody idle while another has a queue."""

from __future__ import annotations

import heapq
import random

import pytest

from drillcore.errors import JobError
from drillcore.job.extract import Extract
from drillcore.runtime.executors.ray.cluster import share_out
from drillcore.runtime.executors.scheduler import AHEAD, Piece, Scheduler
from drillcore.runtime.work.blocks import spread_block


class Play:
    """Workers that take what the order gives them; `lose` (a probability) makes pieces come to nothing."""

    def __init__(self, sizes: list[list[int]], load: float, num_workers: int, draw: random.Random, lose: float = 0.0):
        self.sizes, self.load, self.draw, self.lose = sizes, load, draw, lose
        self.order = Scheduler([float(sum(s)) for s in sizes], [len(s) for s in sizes], num_workers)
        self.held = {w: [] for w in range(num_workers)}
        self.loads, self.done, self.now, self.busy, self.idle = [], [], 0.0, 0.0, []
        self.ends = []

    def take(self) -> None:
        for worker, held in self.held.items():
            while len(held) < AHEAD and not any(p.block is None or p.alone for p in held):
                piece = self.order.next(worker, len(held))
                if piece is None:
                    break
                held.append(piece)
                if len(held) == 1:
                    self.start(worker)
            if held and held[0].block is not None:
                self.order.ahead(worker)

    def start(self, worker: int) -> None:
        piece = self.held[worker][0]
        seconds = self.load if piece.block is None else piece.tokens
        self.busy += seconds
        heapq.heappush(self.ends, (self.now + seconds, self.draw.random(), worker))

    def run(self) -> None:
        self.take()
        while self.ends and not (
            self.order.is_empty and not any(p.block is not None for h in self.held.values() for p in h)
        ):
            self.now, _, worker = heapq.heappop(self.ends)
            piece = self.held[worker].pop(0)
            if self.draw.random() < self.lose:
                self.came_to_nothing(worker, piece)
            elif piece.block is None:
                self.loads.append((worker, piece.model))
                self.order.loaded(worker, piece.model, self.load)
                if not self.order.is_open(piece.model):
                    sizes = self.sizes[piece.model]
                    self.order.open(piece.model, [Piece(piece.model, i, n) for i, n in enumerate(sizes)])
            else:
                self.done.append((piece.model, piece.block))
                self.order.done(piece, piece.tokens)
            if self.held[worker]:
                self.start(worker)
            self.take()

    def came_to_nothing(self, worker: int, piece: Piece) -> None:
        """The worker died with all that it held."""
        self.order.lose(worker)
        for each in [piece, *self.held[worker]]:
            if each.block is None:
                assert self.order.unload(worker, each.model, again=True)
            else:
                each.alone = True
                assert self.order.put_back(each)
        self.held[worker].clear()


@pytest.mark.parametrize("lose", [0.0, 0.2])
def test_every_block_is_run_once_whatever_is_lost(seed, lose):
    draw = random.Random(seed)
    for _ in range(60):
        sizes = [[draw.randint(1, 50) for _ in range(draw.randint(0, 9))] for _ in range(draw.randint(1, 8))]
        play = Play(sizes, draw.choice([0.1, 5.0, 100.0]), draw.randint(1, 6), draw, lose)
        play.run()
        assert sorted(play.done) == [(m, b) for m, s in enumerate(sizes) for b in range(len(s))]
        if not lose:
            assert len(set(play.loads)) == len(play.loads), "a worker loads a model at most once"


def test_six_models_on_two_workers_take_hardly_more_than_half_the_time(seed):
    play = Play([[10] * 4 for _ in range(6)], 5.0, 2, random.Random(seed))
    play.run()
    assert play.now <= 1.1 * (6 * (40 + 5)) / 2
    assert len(play.loads) == 6


def test_many_workers_share_one_model(seed):
    play = Play([[10] * 40], 5.0, 8, random.Random(seed))
    play.run()
    assert len(play.loads) == 8 and play.now == 5 + 50


def test_nobody_joins_where_loading_takes_longer_than_what_is_left(seed):
    play = Play([[10] * 3, [10] * 12], 1000.0, 2, random.Random(seed))
    play.run()
    assert sorted(m for _, m in play.loads) == [0, 1]


def test_a_model_that_one_worker_cannot_load_is_left_to_others():
    order = Scheduler([1.0], [4], 2)
    first, second = order.next("a", 0), order.next("b", 0)
    assert first is second and first.block is None
    assert order.unload("a", 0, again=False), "b may still load it"
    assert order.next("a", 0) is None
    order.loaded("b", 0, 1.0)
    order.open(0, [Piece(0, i, 1) for i in range(4)])
    assert order.next("a", 0) is None and order.next("b", 0).block == 0
    order.lose("b")
    assert order.next("a", 0).block is None, "nobody else is left"
    assert not order.unload("a", 0, again=False)
    assert [p.block for p in order.drop(0)] == [1, 2, 3] and order.is_empty
    assert not order.put_back(Piece(0, 0, 1))


def test_a_block_alone_waits_until_its_worker_holds_nothing():
    order = Scheduler([1.0], [3], 1)
    order.next("a", 0)
    order.loaded("a", 0, 1.0)
    order.open(0, [Piece(0, i, 1) for i in range(3)])
    order.put_back(Piece(0, 9, 1, alone=True))
    assert order.next("a", 1) is None and order.next("a", 0).block == 9 and order.next("a", 1).block == 0


GPU = {"CPU": 64.0, "GPU": 8.0, "accelerator_type:H100": 1.0}
SMALL = {"CPU": 16.0, "GPU": 2.0, "accelerator_type:A100": 1.0}
BARE = {"CPU": 16.0}


@pytest.mark.parametrize(
    ("nodes", "extract", "expected"),
    [
        ([BARE], {}, (1, 0, 16, 16, None)),
        ([BARE, {"CPU": 4.0}], {}, (5, 0, 4, 4, None)),
        ([BARE, BARE], {"threads": 5}, (6, 0, 5, 5, None)),
        ([GPU, BARE], {}, (8, 1, 8, 8, None)),
        ([GPU, GPU], {"tensor_parallel": 4, "threads": 2}, (4, 4, 32, 2, None)),
        ([GPU, SMALL], {}, (8, 1, 8, 8, "H100")),
        ([GPU, SMALL], {"device": "cpu", "threads": 16}, (5, 0, 16, 16, None)),
    ],
)
def test_how_a_cluster_is_shared_out(nodes, extract, expected):
    size = share_out(nodes, Extract(**extract))
    assert (size.num_workers, size.gpus, size.cpus, size.threads, size.accelerator) == expected


@pytest.mark.parametrize(
    ("nodes", "extract", "message"),
    [
        ([BARE], {"threads": 17}, "so many CPU cores"),
        ([BARE], {"device": "cuda"}, "has no GPU"),
        ([GPU], {"device": "cuda:1"}, "one machine"),
        ([SMALL], {"tensor_parallel": 4}, "so many GPUs"),
        ([{}], {}, "so many CPU cores"),
    ],
)
def test_what_no_node_has_is_refused(nodes, extract, message):
    with pytest.raises(JobError, match=message) as caught:
        share_out(nodes, Extract(**extract))
    assert caught.value.hint


def test_few_workers_keep_the_blocks_of_one():
    assert spread_block(32_768, 10_000, 1.0, 2) == 32_768
    assert spread_block(32_768, 1_000_000, 1.0, 8) == 5208
    assert spread_block(32_768, 1_000_000, 1.0, 512) == 4096
    assert spread_block(2048, 1_000_000, 1.0, 512) == 2048
