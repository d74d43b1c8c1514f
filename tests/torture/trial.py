"""One trial: a copy of the finished place is damaged; verify, readers and runs must notice, refuse and mend."""

from __future__ import annotations

import fnmatch
import shutil
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torture.campaign import FAULT, LAUNDERED, MISSED, NO_END, SHOWN, STUCK, Result, Trial
from torture.damage import NO_MEANING, Damage
from torture.drill import SAYS_FAULT, NoEnd, Outcome, drill, forked
from torture.job import CACHE, STORE, Place, write_inputs
from torture.readers import Shown, read_all, wrongly_shown
from torture.truth import differences, same_folder


@dataclass(frozen=True)
class World:
    """What all trials share.

    base: the finished place. donors: finished places of other versions of the inputs. models, backend, method: of the
    job. seconds: after which a trial has no end. thorough: a run must mend both with and without a verification before;
    otherwise chance decides which. shown: what each reader of `base` shows.
    """

    base: Place
    donors: dict[str, Path]
    models: dict[str, Path]
    backend: str
    method: str
    seconds: float
    thorough: bool = True
    shown: dict[str, Shown] = field(default_factory=dict)

    def finished(self, version: str) -> Place:
        """The finished place of a version of the inputs."""
        return self.base if version == "first" else Place(self.donors[version])

    def write(self, place: Place, version: str) -> None:
        """Write the inputs of a version into a place."""
        write_inputs(place, self.models, version, self.backend, self.method)


def group_of(damage: Damage) -> str:
    """The group, `model/dataset`, that is exported in a trial."""
    parts = damage.where.split(" ")[0].split("/")
    named = damage.where.startswith(STORE) and len(parts) > 4
    return "/".join(parts[2:4]) if named else "ma/d"


def trials_of(world: World, damages: Iterable[Damage]) -> list[Trial]:
    """A trial for each damage."""
    return [Trial(str(d), d.row, partial(try_damage, world, d)) for d in damages]


def try_damage(world: World, damage: Damage, folder: Path) -> Result:
    """Run one trial in a fork of this process."""
    folder.mkdir(parents=True)
    result = Result(str(damage), damage.row)
    try:
        found = forked(lambda: _Trial(world, damage, folder).run(), world.seconds)
        result.changed, result.wrong = found["changed"], [tuple(w) for w in found["wrong"]]
    except NoEnd:
        result.wrong.append((NO_END, (folder / "step").read_text(encoding="utf-8")))
    except RuntimeError as error:
        result.wrong.append((FAULT, f"the trial itself failed: {end_of(str(error))}"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return result


class _Trial:
    def __init__(self, world: World, damage: Damage, folder: Path) -> None:
        self._world, self._damage, self._folder = world, damage, folder
        self._wrong: list[tuple[str, str]] = []

    def run(self) -> dict:
        """All steps; what went wrong, JSON-ready."""
        damaged = self._world.base.copy(self._folder / "damaged")
        self._damage.apply(damaged.folder, self._world.donors)
        if same_folder(damaged.folder, self._world.base.folder):
            return {"changed": False, "wrong": []}
        in_cache = self._damage.where.startswith(CACHE)
        in_store = self._damage.where.startswith(STORE) and (damaged.store / "zarr.json").exists()
        untouched = damaged.copy(self._folder / "untouched")
        if in_store:
            self._notice(damaged)
        ways = self._ways()
        if 0 in ways or not (in_store or in_cache):
            self._mend(damaged, "run after verify" if in_store else "run")
        if in_cache:
            shutil.rmtree(untouched.folder / "runs")
        if 1 in ways and (in_store or in_cache):
            self._mend(untouched, "run on no store" if in_cache else "run alone")
        return {"changed": True, "wrong": list(dict.fromkeys(self._wrong))}

    def _ways(self) -> tuple[int, ...]:
        return (0, 1) if self._world.thorough else (zlib.crc32(str(self._damage).encode()) % 2,)

    def _step(self, name: str) -> None:
        (self._folder / "step").write_text(name, encoding="utf-8")

    def _say(self, column: str, step: str, what: str) -> None:
        self._wrong.append((column, f"{step}: {what}"))

    def _command(self, step: str, command: Callable[[], Outcome]) -> Outcome:
        self._step(step)
        outcome = command()
        if outcome.is_fault:
            self._say(FAULT, step, end_of(outcome.said))
        return outcome

    def _notice(self, place: Place) -> None:
        """Verify finds it, and no reader shows anything else than the truth."""
        place.enter()
        outcome = self._command("verify", lambda: drill("verify", STORE))
        if outcome.status == 0 and not self._has_no_meaning():
            self._say(MISSED, "verify", "whole")
        self._step("readers")
        group = group_of(self._damage)
        for now in read_all([group]):
            # A reader that the right store does not have may refuse, and show nothing.
            truth = self._world.shown.get(now.reader, Shown(now.reader, now.outcome, {}))
            if now.outcome.is_fault:
                self._say(FAULT, now.reader, end_of(now.outcome.said))
            wrong = wrongly_shown(now, truth)
            if wrong:
                self._say(SHOWN, now.reader, ", ".join(wrong[:4]) + (" ..." if len(wrong) > 4 else ""))

    def _has_no_meaning(self) -> bool:
        return any(fnmatch.fnmatch(self._damage.where, pattern) for pattern in NO_MEANING)

    def _mend(self, place: Place, step: str) -> None:
        """A run ends well and leaves the right store, or refuses with a remedy that leads there."""
        place.enter()
        outcome = self._command(step, lambda: drill("run", "job.yaml"))
        said = [outcome.said]
        for name, remedy in self._remedies(place):
            if outcome.status == 0:
                break
            if name in outcome.said:
                outcome = self._command(f"{step}, then {name}", remedy)
                said.append(outcome.said)
        if outcome.status:
            self._say(STUCK, step, end_of("\n".join(said)))
            return
        verified = self._command(f"verify after {step}", lambda: drill("verify", STORE))
        if verified.status and self._remove_strays(verified.said):
            verified = self._command(f"verify after {step} and removal", lambda: drill("verify", STORE))
        wrong = differences(place.store, self._world.base.store)
        if verified.status:
            self._say(STUCK, f"verify after {step}", end_of(verified.said))
        elif wrong:
            self._say(LAUNDERED, step, ", ".join(wrong[:4]) + (" ..." if len(wrong) > 4 else ""))

    def _remedies(self, place: Place) -> list[tuple[str, Callable[[], Outcome]]]:
        """Words of a refusal's hint, and what follows them."""

        def again() -> Outcome:
            return drill("run", "job.yaml")

        def away() -> Outcome:
            # What a hint says of a file's name is about the file, else about the store.
            of_file = self._damage.kind == "made a folder"
            shutil.move(place.folder / self._damage.where if of_file else place.store, place.folder / "away")
            return again()

        def removed() -> Outcome:
            return again() if self._remove_strays("") else away()

        def overwritten() -> Outcome:
            return drill("run", "job.yaml", "--overwrite")

        def verified() -> Outcome:
            drill("verify", STORE)
            return again()

        return [
            ("drillcore verify", verified),
            ("again", again),
            ("again", again),
            ("--overwrite", overwritten),
            (" away", away),
            ("emove ", removed),
        ]

    def _remove_strays(self, said: str) -> bool:
        """Remove what the damage put there, where a message names it; whether that was done."""
        if self._damage.kind != "stray" or (said and self._damage.how not in said):
            return False
        path = Path(self._damage.where) / self._damage.how
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        return True


def end_of(said: str) -> str:
    """What a command said of a fault, or its last lines."""
    lines = [line.strip() for line in said.strip().splitlines()]
    faults = [line for line in lines if SAYS_FAULT.search(line) and "Traceback" not in line]
    return " / ".join([*faults[:1], *lines[-3:]])[:500]
