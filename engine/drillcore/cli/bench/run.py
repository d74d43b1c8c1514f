"""`drillcore bench`: throughput of models, backends, dtypes and token budgets on this machine, one row each.

Cases are measured in turn, one repeat after the other, so that a machine whose speed drifts is fair to all of them.
Every measurement is written down as soon as it is made; the same call goes on where an earlier one stopped.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from drillcore.cli.bench.rows import (
    BenchCase,
    BenchRow,
    BenchSettings,
    are_samples,
    make_cases,
    rows_of,
    sample_rate,
    table_of,
)
from drillcore.cli.bench.texts import Lengths
from drillcore.errors import JobError, StoreError, TextError
from drillcore.system.bounds import problem_with, problem_with_output, read_object
from drillcore.system.files import file_digest, write_atomic
from drillcore.system.machine import cpu_model, num_cores
from drillcore.system.versions import git_commit, versions

__all__ = ["BenchCase", "BenchRow", "BenchSettings", "make_cases", "run_bench", "table_of"]

FORMAT = 1
KIND = "drillcore-bench"
Say = Callable[[str], None]


def run_bench(
    cases: Iterable[BenchCase], settings: BenchSettings, out: Path, say: Say = lambda line: None
) -> list[BenchRow]:
    """Measure what `out` (JSON) does not hold yet, and return a row for every case.

    A case that fails becomes a row with its error, and is tried again by the next call. Raises JobError where the
    settings are wrong, StoreError where `out` holds measurements of other settings.
    """
    cases = list(cases)
    results = _Results(out, _identity(settings))
    failed: dict[BenchCase, str] = {}
    for repeat in range(settings.repeats):
        for case in cases:
            if case in failed or results.has(case, repeat):
                continue
            answer = _measure(case, settings)
            if "sample" in answer:
                results.add(case, repeat, answer["sample"])
                outcome = f"{sample_rate(answer['sample']):,.1f} sentences/s"
            else:
                failed[case] = answer["error"] + (f" ({answer['hint']})" if answer.get("hint") else "")
                outcome = f"failed: {failed[case]}"
            results.write(rows_of(cases, results.samples, failed))
            say(f"{repeat + 1}/{settings.repeats}  {case.name}: {outcome}")
    rows = rows_of(cases, results.samples, failed)
    results.write(rows)
    return rows


class _Results:
    """The measurements in a results file, which is written again after each one."""

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self._path, self._identity = path, identity
        self.samples: list[dict[str, Any]] = []
        problem = problem_with_output(path)
        if problem or not path.absolute().parent.is_dir():
            raise StoreError(f"--out {path} {problem or 'is in no folder'}", hint="Name another file.")
        if path.exists():
            self._read()

    def _read(self) -> None:
        stored = read_object(self._path)
        before, samples = stored.get("settings"), stored.get("samples")
        if stored.get("kind") != KIND or not isinstance(before, dict) or not are_samples(samples):
            raise StoreError(f"{self._path} is not a results file of drillcore bench", hint="Name another file.")
        now = json.loads(json.dumps(self._identity))
        changed = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
        if changed:
            changes = "; ".join(f"{k} was {before.get(k)!r} and is {now.get(k)!r}" for k in changed)
            raise StoreError(
                f"{self._path} holds measurements of other settings: {changes}",
                hint="Name another file, or remove this one.",
            )
        self.samples = samples

    def has(self, case: BenchCase, repeat: int) -> bool:
        """Whether this repeat has been measured."""
        return any(s["case"] == asdict(case) and s["repeat"] == repeat for s in self.samples)

    def add(self, case: BenchCase, repeat: int, sample: dict[str, Any]) -> None:
        """Add one measurement."""
        self.samples.append({**sample, "case": asdict(case), "repeat": repeat})

    def write(self, rows: Sequence[BenchRow]) -> None:
        """Write all samples and the rows made of them."""
        facts = {
            "kind": KIND,
            "format": FORMAT,
            "git_commit": git_commit(),
            "settings": self._identity,
            "rows": [asdict(r) for r in rows],
            "samples": self.samples,
        }
        write_atomic(self._path, (json.dumps(facts, indent=1, default=str) + "\n").encode())


def _identity(settings: BenchSettings) -> dict[str, Any]:
    """What must be equal for measurements to be comparable."""
    if (settings.texts is None) == (settings.lengths is None):
        raise JobError("either a text file or a length distribution is needed", hint="Such as uniform:8-64.")
    if settings.lengths is not None:
        Lengths.parse(settings.lengths)
        sentences: Any = {"lengths": settings.lengths}
    else:
        sentences = {"sha256": _digest_of(Path(settings.texts or "")), "text_field": settings.text_field}
    return {
        "sentences": {**sentences, "at_most": settings.num_sentences},
        "layers": settings.layers,
        "device": settings.device,
        "threads": settings.threads,
        "machine": {"cpu": cpu_model(), "cores": num_cores()},
        "versions": versions(),
    }


def _digest_of(path: Path) -> str:
    problem = problem_with(path)
    if problem:
        raise TextError(f"{path}: {problem}", hint="Name a file of sentences.")
    try:
        return file_digest(path)
    except OSError as error:
        raise TextError(f"{path}: {error.strerror}", hint="Name a file of sentences.") from error


def _measure(case: BenchCase, settings: BenchSettings) -> dict[str, Any]:
    """One sample (or the error) from a process of its own."""
    request = {
        **asdict(case),
        "base": str(settings.base),
        "texts": None if settings.texts is None else str(settings.texts),
        "text_field": settings.text_field,
        "lengths": settings.lengths,
        "num_sentences": settings.num_sentences,
        "layers": settings.layers,
        "device": settings.device,
        "threads": settings.threads,
        "scratch": str(settings.scratch),
    }
    with tempfile.TemporaryDirectory(prefix="drillcore-bench-") as folder:
        request_path, answer_path = Path(folder) / "request.json", Path(folder) / "answer.json"
        log = Path(folder) / "log.txt"
        request_path.write_text(json.dumps(request), encoding="utf-8")
        with log.open("wb") as stream:
            command = [sys.executable, "-m", "drillcore.cli.bench.case", str(request_path), str(answer_path)]
            status = _run(command, stream)
        if answer_path.exists():
            answer: dict[str, Any] = json.loads(answer_path.read_text(encoding="utf-8"))
            return answer
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return {"error": f"its process was {how}" if status < 0 else f"its process {how}: {(lines or [''])[-1]}"}


def _run(command: list[str], stream: Any) -> int:
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
