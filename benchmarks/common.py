"""What all benchmarks share: arguments, scratch folders, children's peaks, facts of the machine, one form of results.

Standard library only until facts of the machine are asked for: a process begins with the peak memory of the one that
started it, so the process that measures its children's peaks must stay small.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
# drillcore's command line in a process of this interpreter, installed or not.
DRILLCORE = (sys.executable, "-m", "drillcore")


def make_parser(doc: str | None, *, quick: str | None = None) -> argparse.ArgumentParser:
    """A parser with --scratch and --out, and --quick where its help is given; `doc`'s first line describes it."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    if quick is not None:
        parser.add_argument("--quick", action="store_true", help=f"{quick}: does everything work?")
    parser.add_argument("--scratch", type=Path, default=ROOT / "build", help="where stores are written and removed")
    parser.add_argument("--out", type=Path, help="JSON file (default: one in benchmarks/results/, none with --quick)")
    return parser


def parse(parser: argparse.ArgumentParser, quick: Mapping[str, Any], argv: Sequence[str] | None = None) -> Any:
    """The options; with --quick the given defaults take the place of the others, and what is asked for stays."""
    argv = sys.argv[1:] if argv is None else argv
    if "--quick" in argv:
        parser.set_defaults(**quick)
    return parser.parse_args(argv)


@contextmanager
def scratch_folder(options: Any, prefix: str) -> Iterator[Path]:
    """A folder below --scratch that is removed at the end."""
    options.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix=f"{prefix}-") as folder:
        yield Path(folder)


def child_peak(command: Sequence[str], folder: Path) -> tuple[int, float]:
    """Run a command to its end: its peak memory in bytes and its seconds; its output goes to `folder`/log.txt.

    Raises RuntimeError, with the end of the output, where it fails.
    """
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    with (folder / "log.txt").open("w+", encoding="utf-8") as log:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        if process.returncode:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command[:4])} ended with status {process.returncode}:\n{log.read()[-2000:]}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), seconds


def child_cpu(command: Sequence[str]) -> float:
    """CPU seconds of a command that must succeed."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def results(kind: str, options: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The one form: kind, format, time, commit, hardware, versions, parameters (the options), then the facts."""
    from drillcore.backends.device import hardware
    from drillcore.system.versions import git_commit, versions

    parameters = {k: v for k, v in vars(options).items() if k not in ("out", "scratch")}
    return {
        "kind": f"drillcore-{kind}",
        "format": 1,
        "started": time.strftime("%FT%T%z"),
        "git_commit": git_commit(),
        "hardware": hardware(),
        "versions": versions(),
        "parameters": json.loads(json.dumps(parameters, default=str)),
        **facts,
    }


def write_results(kind: str, options: Any, facts: Mapping[str, Any]) -> Path | None:
    """Write `results` to --out, or to a file named by date, processor, cores and kind. With --quick only to --out."""
    path: Path | None = options.out
    if path is None:
        if getattr(options, "quick", False):
            return None
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        path = RESULTS / f"{time.strftime('%Y-%m-%d')}-{processor()}-{cores}-cores-{kind}.json"
    write_json(path, results(kind, options, facts))
    print(f"written to {path}")
    return path


def processor() -> str:
    """The processor's name as part of a file name: what is fast differs between processors.

    >>> slug("AMD EPYC 9B14 96-Core Processor"), slug("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz")
    ('amd-epyc-9b14', 'intel-xeon-platinum-8481c')
    """
    from drillcore.system.machine import cpu_model

    return slug(cpu_model())


def slug(name: str) -> str:
    """A processor's name without marks, clock rate and number of cores, in lower case; see `processor`."""
    plain = re.sub(r"\((r|tm|c)\)|@.*|\bcpu\b|\d+-core\b|\bprocessor\b", " ", name, flags=re.IGNORECASE)
    return "-".join(re.findall(r"[a-z0-9]+", plain.lower())) or "unknown"


def write_json(path: Path, content: Any) -> None:
    """Indented JSON and a line feed; paths and the like as text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")


def grid(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in plain text, first column to the left."""
    cells = [list(headings), *[list(r) for r in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headings))]
    lines = [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])
