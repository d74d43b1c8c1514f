"""`make torture`: every trial, some of each class, or one again by its name; one summary line for each part."""

from __future__ import annotations

import argparse
import os
import random
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from torture.known import is_known
from torture.settings import SETTINGS

if TYPE_CHECKING:
    from torture.campaign import Trial
    from torture.trial import World

# Before numpy and torch are imported, and before string hashes matter.
os.environ.update(SETTINGS)
PARTS = ("shard", "files", "kills")
# In the short form: runs that are killed, and how many operations they are killed among; few runs have fewer.
REAL_KILLS, OPERATIONS = 3, 1400


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="parts to run, by default all")
    parser.add_argument("--each", type=int, default=10**6, help="at most so many trials of a class")
    parser.add_argument("--total", type=int, default=10**6, help="at most so many trials of a part")
    parser.add_argument("--only", default="", help="classes whose name holds this")
    parser.add_argument("--trial", default="", help="one trial, by its name")
    parser.add_argument("--short", action="store_true", help="a few trials in about a minute, for every change")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("DRILLCORE_SEED", secrets.randbits(32))))
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="mend each damage in one way only")
    parser.add_argument("--failing", type=Path, help="write the failing trials to this file")
    asked = parser.parse_args()
    if asked.failing:
        asked.failing = asked.failing.absolute()  # trials change the working directory
    return asked


def main() -> int:
    """Run the trials and print the table; 1 where anything went wrong that is not known."""
    from torture.campaign import Result, failing, run_trials, sample, table
    from torture.world import scratch_folder

    asked, scratch, results = arguments(), scratch_folder(), list[Result]()
    print(f"DRILLCORE_SEED={asked.seed}", flush=True)
    try:
        for part, trials in _parts(asked, scratch):
            started = time.monotonic()
            wanted = [t for t in trials if asked.only in t.row and asked.trial in ("", t.name)]
            found = run_trials(scratch, sample(wanted, asked.each, asked.seed)[: asked.total], asked.processes)
            wrong = sum(bool(r.wrong) for r in found)
            known = sum(bool(r.wrong) for r in found if is_known(r.row))
            spent = time.monotonic() - started
            print(
                f"{part}: {len(found)} of {len(trials)} trials, {wrong} wrong, {known} of them known, {spent:.0f} s",
                flush=True,
            )
            results += found
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if asked.trial and not results:
        print(f"no trial is called {asked.trial}", file=sys.stderr)
        return 2
    print("\n".join(table(results)))
    lines = failing(results if asked.trial or asked.failing else [r for r in results if not is_known(r.row)])
    if asked.failing:
        asked.failing.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        print("\n".join(lines))
    return int(any(r.wrong for r in results if not is_known(r.row)))


def _parts(asked: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, list[Trial]]]:
    """Name and all trials of each part; what they need is made when their part begins."""
    from torture import kills, steps, trial
    from torture.damages import all_damages
    from torture.job import VERSIONS
    from torture.world import make_world

    parts = [part for part in asked.part or PARTS if not asked.trial or part == _part_of(asked.trial)]
    if "shard" in parts:
        histories = [(lost, steps.moments(scratch / "steps", lost, asked.seed)) for lost in steps.LOSSES]
        yield "one shard", [t for lost, moments in histories for t in steps.trials_of(lost, moments)]
    if parts == ["shard"]:
        return
    thorough = not (asked.quick or asked.short)
    if asked.short:
        version = random.Random(asked.seed).choice(VERSIONS[1:])
        world = make_world(scratch, "transformers", "pca", [version], thorough=thorough)
    else:
        world = make_world(scratch, "transformers", "umap", thorough=thorough)
    if "files" in parts:
        yield "files", trial.trials_of(world, all_damages(world.base.folder, world.donors))
    if "kills" in parts and asked.short:
        yield "kills", [t for i in range(REAL_KILLS) for t in _real_kill(world, scratch, asked.seed + i)]
    elif "kills" in parts:
        for scenario in kills.SCENARIOS:
            rows = [f"{how}: {scenario.name}" for how in kills.HOW]
            named = not asked.trial or asked.trial.startswith(f"{scenario.name} |")
            if named and any(asked.only in row for row in rows):
                moments = kills.moments_of(world, scenario, scratch / "recorded", asked.seed)
                yield f"kills, {scenario.name}", kills.trials_of(world, scenario, moments)


def _part_of(trial: str) -> str:
    """The part that a trial belongs to, by its name."""
    if trial.startswith("lost "):
        return "shard"
    return "kills" if " | killed" in trial or " | power lost" in trial else "files"


def _real_kill(world: World, scratch: Path, seed: int) -> list[Trial]:
    """A run of a random scenario that is killed before a random operation."""
    from torture import kills

    draw = random.Random(seed)
    made = {"", "first", *world.donors}
    scenario = draw.choice([s for s in kills.SCENARIOS if {s.before, s.version, s.finish} <= made])
    moment = kills.killed_for_real(world, scenario, scratch / "killed", draw.randint(1, OPERATIONS))
    return [] if moment is None else kills.trials_of(world, scenario, [moment])


if __name__ == "__main__":
    sys.exit(main())
