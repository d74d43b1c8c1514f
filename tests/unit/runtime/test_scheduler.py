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
            while len(held) < AHEAD and not any(p.block is None or p.most == 1 for p in held):
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
                each.most = 1
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
    order.put_back(Piece(0, 9, 1, most=1))
    assert order.next("a", 1) is None and order.next("a", 0).block == 9 and order.next("a", 1).block == 0


def opened(num_blocks: int, loaded: str, loading: str = "") -> Scheduler:
    """A model's blocks of one token each, for workers that have it loaded and those that load it."""
    order = Scheduler([1.0], [num_blocks], len(loaded + loading))
    for worker in loaded + loading:
        order.next(worker, 0)
    for worker in loaded:
        order.loaded(worker, 0, 1.0)
    order.open(0, [Piece(0, i, 1) for i in range(num_blocks)])
    return order


def fill(order: Scheduler, worker: str, holds: dict[str, list[Piece]], room: int = 10**6) -> int:
    """Fill a sweep of a worker, as far as it may; how many blocks that are."""
    held = holds.setdefault(worker, [])
    if not held:
        first = order.next(worker, 0)
        held += [] if first is None else [first]
    while held and len(held) < room:
        piece = order.more(worker, held, sum(map(len, holds.values())))
        if piece is None:
            break
        held.append(piece)
    return len(held)


@pytest.mark.parametrize("others", [{"loaded": "ab"}, {"loaded": "a", "loading": "b"}], ids=["loaded", "loading"])
@pytest.mark.parametrize(("blocks", "shares"), [(14, (7, 7)), (15, (8, 7)), (3, (2, 1)), (1, (1, 0))])
def test_sweeps_without_bounds_share_the_blocks_out_evenly(blocks, shares, others):
    order, holds = opened(blocks, **others), {}
    assert fill(order, "a", holds) == shares[0]
    order.loaded("b", 0, 1.0)
    assert fill(order, "b", holds) == shares[1] and order.is_empty


def test_once_a_block_is_done_nothing_is_kept_for_those_that_still_load():
    order, holds = opened(8, "a", loading="b"), {}
    assert fill(order, "a", holds) == 4
    for piece in holds.pop("a"):
        order.done(piece, 1.0)
    assert fill(order, "a", holds) == 4 and order.is_empty


@pytest.mark.parametrize(("blocks", "room", "sweeps"), [(80, 10, 8), (40, 10, 4), (14, 7, 2), (30, 10, 4)])
def test_full_sweeps_are_as_few_as_they_can_be(blocks, room, sweeps):
    order, holds, found = opened(blocks, "ab"), {}, {"a": 0, "b": 0}
    while not order.is_empty:
        for worker in "ab":
            found[worker] += fill(order, worker, holds, room) > 0
        for worker in "ab":
            for piece in holds.pop(worker):
                order.done(piece, 1.0)
    assert sum(found.values()) == sweeps and abs(found["a"] - found["b"]) <= 1


def test_blocks_of_a_sweep_that_was_lost_share_the_next_one_with_fewer():
    order, holds = opened(12, "a"), {}
    assert fill(order, "a", holds) == 12
    for piece in reversed(holds.pop("a")):
        piece.most = 6
        order.put_back(piece)
    assert fill(order, "a", holds) == 6 and [p.block for p in holds["a"]] == [*range(6)]
    order.put_back(Piece(0, 99, 1, most=6))
    assert order.more("a", holds["a"], 6) is None, "it may not be the seventh"


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


def test_workers_of_one_machine_share_it_whatever_nodes_ray_has_there():
    def node(name: str, host: str, alive: bool = True, **resources: float) -> dict:
        return {"NodeID": name, "NodeManagerHostname": host, "Alive": alive, "Resources": resources}

    nodes = [node("a", "one", CPU=8.0), node("b", "one", CPU=5.0), node("c", "two", CPU=4.0)]
    size = share_out([n["Resources"] for n in nodes], Extract(threads=4, device="cpu"))
    assert [size.beside(nodes, n) for n in ("a", "b", "c")] == [3, 3, 1]
    assert size.beside([nodes[0], node("b", "one", alive=False, CPU=5.0)], "a") == 2
    assert share_out([GPU], Extract(tensor_parallel=2)).beside([node("g", "x", **GPU)], "g") == 4
    assert size.beside([], "a") == 1
