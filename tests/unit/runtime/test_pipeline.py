"""The pipeline of blocks: a failure in each of its three threads, the order of blocks, the bounds of its queues."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore

from drillcore.backends.base import States, Work
from drillcore.errors import CommitError, NumericsError
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.runtime.work import pipeline
from drillcore.runtime.work.blocks import Block, make_blocks, rows_digest
from drillcore.runtime.work.pipeline import LOOP_BYTES, WAITING_SHARDS, _put, extract_blocks
from drillcore.runtime.work.sink import ShardSink
from drillcore.runtime.work.tasks import BlockTask, ModelTask
from drillcore.store import shards
from drillcore.store.attributes import make_group
from drillcore.store.group import GroupWriter
from drillcore.store.layout import choose_shape
from drillcore.store.states import StatesReader
from drillcore.system.progress import Progress
from drillcore.tokens.places import Places
from drillcore.tokens.sequences import Sequences

SHARD, BLOCK, HIDDEN = 4, 8, 6
LAYERS = (0, 1, 2)


def states_of(sentence: np.ndarray) -> np.ndarray:
    """States [K, H] that depend on all of a sentence's tokens."""
    weights = np.arange(1, len(sentence) + 1)
    return np.outer(np.arange(1, 4), np.arange(HIDDEN) + float(sentence @ weights)).astype(np.float32)


class Arithmetic:
    """A backend that computes `states_of`, a few sentences a batch in shuffled order, and notes what it is asked."""

    def __init__(self, seed: int, batch: int = 3, shuffled: bool = True) -> None:
        self.draw, self.batch, self.shuffled = np.random.default_rng(seed), batch, shuffled
        self.planned, self.ran, self.batches = [], [], 0
        self.fail_in_plan = self.fail_in_run = -1
        self.poison: tuple[int, float] | None = None

    def lay_out(self, block: Sequences) -> Work:
        assert threading.current_thread() is not threading.main_thread()
        number = len(self.planned)
        self.planned.append(number)
        if number == self.fail_in_plan:
            raise ValueError(f"cannot plan block {number}")
        return Work(len(block), len(block.ids_T), 0, [number, [np.array(s) for s in block]])

    def run(self, work: Work):
        assert threading.current_thread() is threading.main_thread()
        number, sentences = work.parts
        self.ran.append(number)
        order = self.draw.permutation(len(sentences)) if self.shuffled else np.arange(len(sentences))
        for low in range(0, len(order), self.batch):
            self.batches += 1
            if number == self.fail_in_run and low:
                raise RuntimeError(f"the device failed in block {number}")
            chosen = order[low : low + self.batch]
            values = np.stack([states_of(sentences[i]) for i in chosen])
            if self.poison is not None and self.poison[0] == number:
                values[0, 1, 2] = self.poison[1]
            rows = self.draw.permutation(len(chosen))
            values = values[np.argsort(rows)]
            yield States(values, np.abs(values).max(-1), chosen, rows, len(chosen), 0)


class NotingSink(ShardSink):
    """A real sink that notes its commits, can be slow, and can refuse one shard."""

    def __init__(self, refuse: int = -1, seconds: float = 0.0) -> None:
        super().__init__()
        self.refuse, self.seconds, self.commits, self.threads = refuse, seconds, [], set()

    def commit(self, task, shard, states_SKH, absmax_K) -> None:
        self.threads.add(threading.current_thread().name)
        time.sleep(self.seconds)
        if shard == self.refuse:
            raise CommitError(f"shard {shard}: disk full")
        super().commit(task, shard, states_SKH, absmax_K)
        self.commits.append(shard)


@pytest.fixture
def make(tmp_path, seed):
    """Tasks of a dataset of so many random sentences, and a way to read what was committed."""

    def tasks_of(
        num_sentences: int, store_dtype: str = "float32", committed: frozenset[int] = frozenset(), block: int = BLOCK
    ):
        draw = np.random.default_rng(seed)
        tokens = Sequences.of([draw.integers(1, 99, draw.integers(1, 6)) for _ in range(num_sentences)])
        shape = choose_shape(num_sentences, LAYERS, ("embed", "block_1", "block_2"), HIDDEN, store_dtype, SHARD)
        group = make_group(LocalStore(tmp_path / "s.zarr"), "m/d")
        GroupWriter(group).ensure(shape, ())
        blocks = make_blocks(lambda *rows: rows_digest(tokens.slice(*rows)), {}, num_sentences, SHARD, block)
        extract = Extract(store_dtype=store_dtype)
        model = ModelTask(Model(id="m"), "", "fake", extract, LAYERS, None, tokens.slice(0, 1))
        place = (str(tmp_path / "s.zarr"), "m/d")
        tasks = [BlockTask(model, "d", *place, shape, b, tokens.slice(b.start, b.stop), committed) for b in blocks]
        return tasks, tokens, group

    return tasks_of


def committed(group: zarr.Group) -> list[bool]:
    return [bool(any(row)) for row in np.asarray(group["shard_fingerprint"][:])]


def check_committed(group: zarr.Group, tokens: Sequences, possible) -> None:
    """Committed shards are among `possible`, and hold what they must; shards that waited for the writer are dropped."""
    shards = np.flatnonzero(committed(group))
    assert set(shards.tolist()) <= set(possible)
    for shard in shards.tolist():
        rows = np.arange(shard * SHARD, min((shard + 1) * SHARD, len(tokens)))
        want = np.array([states_of(tokens[i]) for i in rows], group["hidden_states"].dtype)
        np.testing.assert_array_equal(StatesReader(group).read(rows, np.arange(len(LAYERS))), want)


@pytest.mark.parametrize("num_sentences", [1, 7, 8, 9, 37])
def test_every_state_goes_to_its_place_and_blocks_keep_their_order(make, seed, num_sentences):
    tasks, tokens, group = make(num_sentences)
    backend, sink, counted = Arithmetic(seed), NotingSink(), []
    done = list(extract_blocks(backend, iter(tasks), sink, Progress(counted.append)))
    assert [d.block for d in done] == backend.planned == backend.ran == list(range(len(tasks)))
    assert sum(counted) == sum(d.num_sentences for d in done) == num_sentences
    assert sink.threads == {"write_0"} and sorted(sink.commits) == list(range(len(committed(group))))
    assert all(committed(group)) and all(set(d.seconds) == {"plan", "forward", "assemble", "write"} for d in done)
    states = StatesReader(group).read(np.arange(num_sentences), np.arange(len(LAYERS)))
    np.testing.assert_array_equal(states, [states_of(s) for s in tokens])


def test_shards_that_are_committed_already_are_left_alone(make, seed):
    tasks, _, group = make(16, committed=frozenset([1, 2]))
    sink = NotingSink()
    list(extract_blocks(Arithmetic(seed), tasks, sink, Progress()))
    assert committed(group) == [True, False, False, True]


def test_a_failure_while_planning_ends_the_run(make, seed):
    tasks, tokens, group = make(32)
    backend = Arithmetic(seed)
    backend.fail_in_plan = 2
    done: list[int] = []
    with pytest.raises(ValueError, match="cannot plan block 2"):
        done.extend(d.block for d in extract_blocks(backend, tasks, NotingSink(), Progress()))
    assert 2 not in backend.ran and set(done) <= {0}
    check_committed(group, tokens, possible=range(4))


def test_a_failure_of_the_model_ends_the_run(make, seed):
    tasks, tokens, group = make(32)
    backend = Arithmetic(seed)
    backend.fail_in_run = 1
    with pytest.raises(RuntimeError, match="failed in block 1"):
        list(extract_blocks(backend, tasks, NotingSink(), Progress()))
    assert backend.ran == [0, 1]
    check_committed(group, tokens, possible=range(4))


def test_a_failed_write_ends_the_run_before_the_next_block_is_through(make, seed):
    tasks, tokens, group = make(64)
    backend = Arithmetic(seed)
    with pytest.raises(CommitError, match="disk full"):
        list(extract_blocks(backend, tasks, NotingSink(refuse=2), Progress()))
    assert len(backend.ran) <= 3
    check_committed(group, tokens, possible=[0, 1, 3, 4, 5])


@pytest.mark.parametrize(
    ("store_dtype", "value", "words"),
    [
        ("float16", 70_000.0, "70000 does not fit float16"),
        ("float32", np.inf, "not finite"),
        ("float32", np.nan, "not finite"),
    ],
)
def test_a_state_that_cannot_be_stored_is_refused_with_sentence_and_layer(make, seed, store_dtype, value, words):
    tasks, tokens, group = make(24, store_dtype)
    backend = Arithmetic(seed)
    backend.poison = (1, value)
    with pytest.raises(NumericsError, match=words) as caught:
        list(extract_blocks(backend, tasks, NotingSink(), Progress()))
    place = str(caught.value)
    assert place.startswith("m/d: sentence ") and "layer 1 (block_1)" in place
    assert BLOCK <= int(place.split("sentence ")[1].split(",")[0]) < 2 * BLOCK
    check_committed(group, tokens, possible=range(4))


def test_the_model_waits_for_a_slow_writer_instead_of_filling_memory(make, seed):
    tasks, _, group = make(64, block=64)
    backend, sink, ahead = Arithmetic(seed, batch=SHARD, shuffled=False), NotingSink(seconds=0.01), []
    progress = Progress(lambda n: ahead.append(backend.batches - len(sink.commits)))
    (done,) = extract_blocks(backend, tasks, sink, progress)
    assert done.num_sentences == 64 and all(committed(group))
    assert max(ahead) <= WAITING_SHARDS


def test_planning_is_one_block_ahead_and_no_more(make, seed):
    tasks, _, _ = make(40)
    backend, ahead = Arithmetic(seed), []
    for _ in extract_blocks(backend, tasks, NotingSink(), Progress(lambda n: ahead.append(len(backend.planned)))):
        pass
    assert len(backend.planned) == 5 and ahead[0] <= 2


@pytest.mark.parametrize("stored", [np.float32, np.float16])
@pytest.mark.parametrize("hidden", [1, LOOP_BYTES // 8 - 1, LOOP_BYTES // 8, LOOP_BYTES])
def test_states_are_put_in_their_places(hidden, stored, seed):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((5, 2, hidden)).astype(np.float32)
    sentence, row = rng.permutation(20)[:9], rng.integers(0, 5, 9)
    states = np.full((20, 2, hidden), 7, stored)
    _put(states, sentence, values, row)
    want = np.full((20, 2, hidden), 7, stored)
    want[sentence] = values[row]
    assert np.array_equal(states, want)


class LostAfter:
    """A hold of the store that is lost after so many checks."""

    def __init__(self, checks: int) -> None:
        self.checks = checks

    def check(self, within_seconds: float = 0.0) -> None:
        self.checks -= not within_seconds
        if self.checks < 0:
            raise CommitError("another run took over the store")


@pytest.mark.parametrize("checks", range(8))
def test_a_run_that_lost_the_store_writes_no_fingerprint_and_no_state_more(make, seed, checks):
    tasks, tokens, group = make(16)
    hold = LostAfter(checks)
    with pytest.raises(CommitError, match="another run took over"):
        list(extract_blocks(Arithmetic(seed), [replace(t, hold=hold) for t in tasks], NotingSink(), Progress()))
    # Each shard is checked before its states are written, and once more before its fingerprint.
    assert sum(committed(group)) == checks // 2
    files = list(Path(str(group.store_path).removeprefix("file://")).glob("hidden_states/c/*/0/0"))
    assert len(files) == (checks + 1) // 2
    check_committed(group, tokens, range(4))


class InDtype(Arithmetic):
    """The same in another dtype, as a device hands it over."""

    def __init__(self, seed: int, dtype) -> None:
        super().__init__(seed)
        self.dtype = dtype

    def run(self, work: Work):
        for part in super().run(work):
            yield replace(part, values_GKH=part.values_GKH.astype(self.dtype))


@pytest.mark.parametrize("store_dtype", ["float32", "float16"])
@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float32])
def test_states_are_stored_as_a_cast_would_have_them(make, seed, dtype, store_dtype):
    tasks, tokens, group = make(45, store_dtype)
    list(extract_blocks(InDtype(seed, dtype), tasks, NotingSink(), Progress()))
    wanted = np.stack([states_of(s) for s in tokens]).astype(dtype).astype(np.float32).astype(store_dtype)
    np.testing.assert_array_equal(StatesReader(group).read(np.arange(45), np.arange(len(LAYERS))), wanted)


def test_memory_of_written_shards_is_used_again(make, seed, monkeypatch):
    fresh = []
    empty = np.empty
    monkeypatch.setattr(pipeline.np, "empty", lambda *a, **k: fresh.append(a) or empty(*a, **k))
    tasks, tokens, group = make(40 * BLOCK)
    list(extract_blocks(Arithmetic(seed), tasks, NotingSink(), Progress()))
    # Those of a block, those that wait, and one that is written: not one for each of the 80.
    taken = [a for a in fresh if a and isinstance(a[0], tuple) and a[0] == (SHARD, 3, HIDDEN)]
    assert len(taken) <= BLOCK // SHARD + WAITING_SHARDS + 2
    states = StatesReader(group).read(np.arange(len(tokens)), np.arange(len(LAYERS)))
    np.testing.assert_array_equal(states, np.stack([states_of(s) for s in tokens]))


def test_the_next_shard_is_encoded_while_one_is_written(make, seed, monkeypatch):
    """The first commit does not end before chunks of the second shard are ready."""
    encoded, further = [], threading.Event()
    real = shards.Encoding._encode

    def encode(self, *place):
        found = real(self, *place)
        encoded.append(place)
        if len(encoded) > len(LAYERS):
            further.set()
        return found

    monkeypatch.setattr(shards.Encoding, "_encode", encode)

    class Waiting(NotingSink):
        def commit(self, task, shard, states, absmax_K) -> None:
            super().commit(task, shard, states, absmax_K)
            assert further.wait(60)

    tasks, _, _ = make(2 * SHARD, block=2 * SHARD)
    sink = Waiting()
    list(extract_blocks(Arithmetic(seed, shuffled=False), tasks, sink, Progress()))
    assert sink.commits == [0, 1]


class Placed(Arithmetic):
    """Gives the states of every prefix that a place ends, and means over them, group by group in shuffled order."""

    def run(self, work: Work):
        _, sentences = work.parts
        for group in self.draw.permutation(len(work.places)).tolist():
            places = work.places[group]
            bounds = places.bounds_N1
            rows = [
                [states_of(s[: i + 1]) for i in places.index_Q[a:b]]
                for s, a, b in zip(sentences, bounds[:-1], bounds[1:], strict=True)
            ]
            values = np.stack([np.mean(r, 0) for r in rows] if places.is_mean else [v for r in rows for v in r])
            order = self.draw.permutation(len(values))
            for numbers in np.array_split(order, 3):
                if len(numbers):
                    of = values[numbers].astype(np.float32)
                    yield States(of, np.abs(of).max(-1), numbers, np.arange(len(numbers)), 0, 0, group=group)


def test_groups_of_one_block_are_filled_by_the_same_passes(make, tmp_path, seed):
    """The last tokens, all tokens (several rows a sentence), and means, each with blocks and shards of its own."""
    tasks, tokens, group = make(13)
    lengths = tokens.lengths_N
    every, mean = Places.between(0 * lengths, lengths), Places.between(0 * lengths, lengths, is_mean=True)
    store = LocalStore(tmp_path / "s.zarr")
    shapes, groups = {}, {}
    for name, places, shard in (("every", every, 64), ("mean", mean, SHARD)):
        shapes[name] = choose_shape(
            places.num_rows if name == "mean" else 64 * len(tasks), LAYERS, ("e", "b", "c"), HIDDEN, "float32", shard
        )
        groups[name] = make_group(store, f"m/d~{name}")
        GroupWriter(groups[name]).ensure(shapes[name], ())
    placed = []
    for task in tasks:
        sentences = slice(task.block.start, task.block.stop)
        here = {
            "every": every.slice(sentences.start, sentences.stop),
            "mean": mean.slice(sentences.start, sentences.stop),
        }
        first = task.block.index * 64
        blocks = {
            "every": Block(task.block.index, first, first + here["every"].num_rows, task.block.index, ("ab" * 32,)),
            "mean": replace(task.block, fingerprints=tuple("cd" * 32 for _ in task.block.fingerprints)),
        }
        beside = tuple(
            replace(task, dataset=f"d~{n}", group=f"m/d~{n}", shape=shapes[n], block=blocks[n], places=here[n])
            for n in here
        )
        placed.append(replace(task, beside=beside))
    sink, counted = NotingSink(), []
    done = list(extract_blocks(Placed(seed), iter(placed), sink, Progress(counted.append)))
    assert sum(counted) == sum(d.num_sentences for d in done) == 13
    layers = np.arange(len(LAYERS))
    last = StatesReader(group).read(np.arange(13), layers)
    np.testing.assert_array_equal(last, [states_of(s) for s in tokens])
    means = StatesReader(groups["mean"]).read(np.arange(13), layers)
    prefixes = [[states_of(s[: i + 1]) for i in range(len(s))] for s in tokens]
    np.testing.assert_allclose(means, [np.mean(p, 0) for p in prefixes], rtol=1e-6)
    for task in placed:
        of = task.beside[0].block
        found = StatesReader(groups["every"]).read(np.arange(of.start, of.stop), layers)
        np.testing.assert_array_equal(found, [v for p in prefixes[task.block.start : task.block.stop] for v in p])


def test_a_place_outside_its_sentence_ends_the_block(make, seed):
    (task, *_), tokens, _ = make(5)
    wrong = Places(tokens.lengths_N, np.arange(len(tokens) + 1))
    with pytest.raises(ValueError, match="not within its sentence"):
        list(extract_blocks(Placed(seed), iter([replace(task, places=wrong)]), NotingSink(), Progress()))
