"""Kills a run before each of its file operations, takes the power away, changes the inputs, and lets it finish.

One recorded run gives the states of the disk before all of its operations; equal ones are tried once. From each, a run
of the same inputs, or of those of before, must end well and leave the right store, byte for byte.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import pyarrow.parquet as pq

from torture.campaign import FAULT, LAUNDERED, NO_END, SHOWN, STUCK, Result, Trial
from torture.damages import groups_of
from torture.drill import NoAnswer, NoEnd, Outcome, drill, forked
from torture.job import STORE, Place
from torture.operations import Disk, State, half_written, key_of, plain_path, watch, write_state
from torture.trial import World, end_of
from torture.truth import differences


@dataclass(frozen=True)
class Scenario:
    """A run that is killed. before, version: inputs of the finished store it starts from (empty: none) and of itself.

    missing: whether the file of a shard was lost before. finish: inputs of the run after the kill.
    """

    name: str
    before: str
    version: str
    finish: str
    missing: bool = False


HOW = ("killed", "killed in writing", "power lost", "power lost, some kept")
SCENARIOS = (
    Scenario("first run", "", "first", "first"),
    *(
        Scenario(f"{what} changed{', a shard missing' * missing}{', and back' * back}", "first", what, end, missing)
        for what in ("texts", "labels", "rows", "settings")
        for missing in (False, True)
        for back in (False, True)
        for end in (["first"] if back else [what])
    ),
)


@dataclass(frozen=True)
class Moment:
    """A state of the disk. operation: the name of the one before which the run was killed. how: kill or loss."""

    operation: str
    how: str
    state: State


def begin(world: World, scenario: Scenario, folder: Path) -> Place:
    """The place in which the run of a scenario starts."""
    place = Place(folder)
    if scenario.before:
        world.finished(scenario.before).copy(folder)
    world.write(place, scenario.version)
    if scenario.missing:
        (folder / groups_of(folder)[0] / "hidden_states/c/0/0/0").unlink()
    return place


def moments_of(world: World, scenario: Scenario, folder: Path, seed: int) -> list[Moment]:
    """Every distinct state before an operation of the run, and after a loss of power there."""
    notes = folder.with_suffix(".states")

    def run() -> None:
        place = begin(world, scenario, folder)
        place.enter()
        recorder = Recorder(place.folder, seed)
        watch(place.folder, recorder.before, recorder.flushed)
        outcome = drill("run", "job.yaml", "--overwrite")
        assert outcome.status == 0, outcome.said
        recorder.before("end", "")
        notes.write_bytes(pickle.dumps(recorder.moments))

    forked(run, 1200)
    moments: list[Moment] = pickle.loads(notes.read_bytes())
    notes.unlink()
    shutil.rmtree(folder)
    return moments


class Recorder:
    """Keeps the distinct states before the operations of this process."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._disk, self._seed = Disk(folder), seed
        self._last: State = self._disk.now()
        self._seen, self._counts = set[int](), Counter[str]()
        self.moments = list[Moment]()

    def before(self, name: str, path: str) -> None:
        """An operation is about to happen."""
        what = f"{name} {plain_path(path)}"
        self._counts[what] += 1
        now, operation = self._disk.now(), f"{what} #{self._counts[what]}"
        for state in half_written(self._last, now):
            self._add(operation, "killed in writing", state)
        self._add(operation, "killed", now)
        self._add(operation, "power lost", self._disk.after_power_loss(now, None))
        draw = random.Random(f"{self._seed} {operation}")
        self._add(operation, "power lost, some kept", self._disk.after_power_loss(now, draw))
        self._last = now

    def flushed(self, descriptor: int) -> None:
        """A file or folder was flushed to disk."""
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_relative_to(self._disk.folder):
            self._disk.flush("" if path == self._disk.folder else str(path.relative_to(self._disk.folder)))

    def _add(self, operation: str, how: str, state: State) -> None:
        key = key_of(state)
        if key not in self._seen:
            self._seen.add(key)
            self.moments.append(Moment(operation, how, state))


def killed_for_real(world: World, scenario: Scenario, folder: Path, number: int) -> Moment | None:
    """What is on disk after a run that was killed before its operation of that number; None where it has fewer."""

    def run() -> int:
        begin(world, scenario, folder).enter()
        numbers = count(1)

        def before(name: str, path: str) -> None:
            if next(numbers) == number:
                os.kill(os.getpid(), signal.SIGKILL)

        watch(folder, before, lambda descriptor: None)
        return drill("run", "job.yaml", "--overwrite").status

    try:
        status = forked(run, 600)
        assert status == 0, "the run failed before it could be killed"
    except NoAnswer:
        return Moment(f"operation {number}", "killed", Disk(folder).now())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return None


def trials_of(world: World, scenario: Scenario, moments: Iterable[Moment]) -> list[Trial]:
    """A trial for each state of the disk."""
    trials = []
    for moment in moments:
        name, row = f"{scenario.name} | {moment.how} | {moment.operation}", f"{moment.how}: {scenario.name}"
        trials.append(Trial(name, row, partial(_try_in_fork, world, scenario, moment, name, row)))
    return trials


def _try_in_fork(world: World, scenario: Scenario, moment: Moment, name: str, row: str, folder: Path) -> Result:
    try:
        found = forked(lambda: try_moment(world, scenario, moment, folder), world.seconds)
        return Result(name, row, [tuple(w) for w in found])
    except NoEnd:
        return Result(name, row, [(NO_END, "the run after the kill")])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def try_moment(world: World, scenario: Scenario, moment: Moment, folder: Path) -> list[tuple[str, str]]:
    """Let a run finish from a state of the disk; what went wrong."""
    write_state(moment.state, folder)
    place = Place(folder)
    place.enter()
    wrong = _readers(world, scenario, place)
    world.write(place, scenario.finish)
    said = ""
    for _ in range(3):
        outcome = drill("run", "job.yaml", "--overwrite")
        said += outcome.said
        if outcome.is_fault:
            wrong.append((FAULT, end_of(outcome.said)))
        if outcome.status == 0:
            break
    else:
        return [*wrong, (STUCK, end_of(said))]
    verified = drill("verify", STORE)
    if verified.status:
        return [*wrong, (STUCK, end_of(verified.said))]
    differing = differences(place.store, world.finished(scenario.finish).store)
    return [*wrong, (LAUNDERED, ", ".join(differing[:4]))] if differing else wrong


def _readers(world: World, scenario: Scenario, place: Place) -> list[tuple[str, str]]:
    """What an export of the interrupted store gives is what it gives of a right one, or it is refused."""
    if not (place.store / "zarr.json").is_file():
        return []
    right = {_export(world.finished(v))[1] for v in {scenario.before, scenario.version} - {""}}
    place.enter()
    outcome, found = _export(place)
    if outcome.is_fault:
        return [(FAULT, f"export: {end_of(outcome.said)}")]
    return [(SHOWN, "export of ma/d")] if outcome.status == 0 and found not in right else []


def _export(place: Place) -> tuple[Outcome, str]:
    """Export a layer of `ma/d`; a digest of its sentences, labels and states: results may come later."""
    out = Path.cwd() / "layer.parquet"
    arguments = ("--group", "ma/d", "--layer", "2", "--to", "parquet", "--out", str(out))
    outcome = drill("export", str(place.store), *arguments)
    if outcome.status:
        return outcome, ""
    found = pq.read_table(out, columns=["text", "label", "hidden_state"]).to_pylist()
    out.unlink()
    return outcome, hashlib.sha256(repr(found).encode()).hexdigest()
