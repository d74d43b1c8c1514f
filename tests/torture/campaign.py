"""Runs many trials in a few processes and counts them by class."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torture.drill import start, wait

# Columns of the table: what may go wrong in a trial.
MISSED, SHOWN, LAUNDERED, FAULT, NO_END, STUCK = "missed", "shown wrong", "laundered", "fault", "no end", "not mended"
COLUMNS = (MISSED, SHOWN, LAUNDERED, FAULT, NO_END, STUCK)


@dataclass
class Result:
    """What went wrong: column and words. changed: whether the trial changed anything at all."""

    name: str
    row: str
    wrong: list[tuple[str, str]] = field(default_factory=list)
    changed: bool = True


@dataclass(frozen=True)
class Trial:
    """One trial. row: that of the table which counts it. run: does it in a folder of its own, which does not exist."""

    name: str
    row: str
    run: Callable[[Path], Result]


def sample(trials: Sequence[Trial], each: int, seed: int) -> list[Trial]:
    """At most `each` trials of every row of the table."""
    draw, rows = random.Random(seed), defaultdict(list)
    for trial in trials:
        rows[trial.row].append(trial)
    chosen = [t for row in rows.values() for t in draw.sample(row, min(each, len(row)))]
    draw.shuffle(chosen)
    return chosen


def run_trials(scratch: Path, trials: Sequence[Trial], processes: int) -> list[Result]:
    """All trials, spread over forks of this process."""
    running = []
    for i in range(processes):
        log = scratch / f"results-{i}.jsonl"
        log.write_text("", encoding="utf-8")

        def work(
            part: Sequence[Trial] = trials[i::processes], folder: Path = scratch / f"worker-{i}", log: Path = log
        ) -> None:
            for trial in part:
                result = trial.run(folder)
                with log.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(asdict(result)) + "\n")

        end = (scratch / f"end-{i}").open("w+", encoding="utf-8")
        running.append((start(work, end), end, log))
    results = []
    for pid, end, log in running:
        wait(pid, 10**6)
        end.seek(0)
        answer = json.loads(end.read())
        end.close()
        assert "failed" not in answer, answer["failed"]
        results += [Result(**json.loads(line)) for line in log.read_text(encoding="utf-8").splitlines()]
    return results


def table(results: Sequence[Result]) -> list[str]:
    """Lines of the table: a row for each class, a column for each way to go wrong; trials count once in each."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        for row in (result.row, "all"):
            counts[row]["trials"] += result.changed
            counts[row].update({column for column, _ in result.wrong})
    names = ("trials", *COLUMNS)
    lines = [f"{'':48}" + "".join(f"{n:>12}" for n in names)]
    order = sorted(counts, key=lambda row: (row == "all", row))
    return lines + [f"{row:48}" + "".join(f"{counts[row][n]:>12}" for n in names) for row in order]


def failing(results: Sequence[Result]) -> list[str]:
    """A line for each trial that went wrong, with the command that repeats it, and what went wrong."""
    lines = []
    for result in (r for r in results if r.wrong):
        lines += [f"make torture TRIAL={json.dumps(result.name)}"]
        lines += [f"    {column}: {words}" for column, words in result.wrong]
    return lines
