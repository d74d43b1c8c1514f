"""The commit of shards on a real store: a writer that is killed between any two file operations.

A history is: commit with inputs A, lose a file or none, run with B and be killed, run with A again. The model of it is
in `protocol`; here the same is tried on `GroupWriter` itself, with half-written files and losses of power besides.
"""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drillcore.errors import DrillcoreError
from drillcore.store.checks.store import verify
from drillcore.store.layout import choose_shape
from drillcore.store.places.location import Location
from drillcore.store.reader import open_dataset, read_array
from drillcore.store.states import StatesReader
from drillcore.store.writer import StoreWriter
from torture.campaign import LAUNDERED, NO_END, SHOWN, STUCK, Result, Trial
from torture.drill import NoEnd, forked
from torture.kills import Moment, Recorder
from torture.operations import watch, write_state

SHAPE = choose_shape(24, [0, 2], ["embed", "block_2"], 8, "float32", 16)
COLUMNS = (("text", "string"),)
MARKS = {"A": 1, "B": 2}
LOSSES = ("", "hidden_states/c/0/0/0", "layer_absmax/c/0/0", "shard_record/c/0", "shard_fingerprint/c/0/0")


def states(inputs: str) -> NDArray[np.float32]:
    """States [24, 2, 8] of one version of the inputs."""
    return np.random.default_rng(MARKS[inputs]).normal(size=(24, 2, 8)).astype(np.float32)


def fingerprint(inputs: str, shard: int) -> str:
    """What stands for a shard of one version."""
    return f"{MARKS[inputs]:x}{shard:x}" * 32


def run(folder: Path, inputs: str) -> None:
    """What a run does with one group, by the public methods of the writer."""
    store = StoreWriter(Location(str(folder / "s.zarr")), "job", "0")
    writer = store.dataset("m", "d")
    writer.ensure(SHAPE, COLUMNS)
    committed, wanted = writer.committed(), [fingerprint(inputs, i) for i in range(SHAPE.num_shards)]
    writer.plan_fingerprints(wanted)
    writer.retract([i for i, found in enumerate(committed) if found and found != wanted[i]])
    texts = {"sentence": np.arange(24), "text": [f"{inputs} {i}" for i in range(24)]}
    writer.write_columns(inputs, iter([(0, texts)]))
    for shard in (i for i, found in enumerate(committed) if found != wanted[i]):
        start, stop = SHAPE.bounds(shard)
        part = states(inputs)[start:stop]
        writer.commit(start, shard, part, np.abs(part).max(axis=(0, 2)), wanted[shard])
    store.finish()


def moments(folder: Path, lost: str, seed: int) -> list[Moment]:
    """What is on disk before each operation of the run with B, after the run with A and the loss of a file."""
    notes = folder.with_suffix(".states")

    def record() -> None:
        folder.mkdir(parents=True)
        run(folder, "A")
        for path in (folder / "s.zarr/m/d").glob(f"{lost}*" if lost else "none"):
            path.unlink()
        recorder = Recorder(folder, seed)
        watch(folder, recorder.before, recorder.flushed)
        run(folder, "B")
        recorder.before("end", "")
        notes.write_bytes(pickle.dumps(recorder.moments))

    forked(record, 600)
    found: list[Moment] = pickle.loads(notes.read_bytes())
    notes.unlink()
    shutil.rmtree(folder)
    return found


def trials_of(lost: str, found: Iterable[Moment]) -> list[Trial]:
    """A trial for each moment of a history."""
    what = lost.split("/")[0] or "nothing"
    trials = []
    for moment in found:
        name, row = f"lost {what} | {moment.how} | {moment.operation}", f"one shard: lost {what}"
        trials.append(Trial(name, row, partial(_try_in_fork, moment, name, row)))
    return trials


def _try_in_fork(moment: Moment, name: str, row: str, folder: Path) -> Result:
    try:
        return Result(name, row, [tuple(w) for w in forked(lambda: _try(moment, folder), 240)])
    except NoEnd:
        return Result(name, row, [(NO_END, "the run after the kill")])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _try(moment: Moment, folder: Path) -> list[tuple[str, str]]:
    write_state(moment.state, folder)
    wrong = [(SHOWN, what) for what in _accepted_wrongly(folder)]
    try:
        run(folder, "A")
    except DrillcoreError as error:
        return [*wrong, (STUCK, str(error))]
    findings = [str(f) for f in verify(str(folder / "s.zarr"))]
    wrong += [(STUCK, finding) for finding in findings[:2]]
    if not findings and not _holds(folder, "A"):
        wrong.append((LAUNDERED, "other states or texts than those of A"))
    return wrong


def _accepted_wrongly(folder: Path) -> Iterator[str]:
    """Shards whose states are read without an error although they are not those of their fingerprint."""
    store = str(folder / "s.zarr")
    try:
        found = StoreWriter(Location(store), "job", "0").dataset("m", "d").fingerprints()
        reader = StatesReader(open_dataset(store, "m/d"))
    except (DrillcoreError, ValueError, KeyError, TypeError, OSError):
        return
    for shard, inputs in ((i, v) for i, f in enumerate(found) for v in MARKS if f == fingerprint(v, i)):
        rows = np.arange(*SHAPE.bounds(shard))
        try:
            read = reader.read(rows, np.arange(len(SHAPE.layers)))
        except DrillcoreError:
            continue
        if not np.array_equal(read, states(inputs)[rows]) and not np.isnan(read).all():
            yield f"shard {shard}: states of something else than {inputs}"


def _holds(folder: Path, inputs: str) -> bool:
    group = open_dataset(str(folder / "s.zarr"), "m/d")
    read = StatesReader(group).read(np.arange(24), np.arange(len(SHAPE.layers)))
    texts = [f"{inputs} {i}" for i in range(24)]
    return np.array_equal(read, states(inputs)) and read_array(group, "text").tolist() == texts
