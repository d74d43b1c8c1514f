"""A whole job of many sentences on the demo model: seconds by stage, memory of all its processes, sizes.

    python -m benchmarks.parts.job [--quick] [--sentences 100000] [--method umap] [--keep FOLDER] [--out FILE]

Made-up cities in twenty countries of two continents ("The city of X is in Y."), every city with every country, so that
extracting is short; the label is the continent, the city a group. The target: 31 layers of 100,000 sentences measured
and projected within 75 minutes on two cores. Exit status 1 where it is missed. The job's own progress is shown.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import DRILLCORE, make_parser, parse, scratch_folder, write_results
from benchmarks.peers.made_texts import FIRST, LAST, MIDDLE
from drillcore.system.machine import busy_cores

QUICK = {"sentences": 200, "method": "pca"}
TARGET_SECONDS = 75 * 60
ASIA = "Bangladesh China India Indonesia Iraq Japan Malaysia Pakistan Thailand Vietnam"
EUROPE = "Belarus France Germany Italy Poland Romania Spain Ukraine"
COUNTRIES = {
    "Asia": tuple(ASIA.split()),
    "Europe": (*EUROPE.split(), "the Netherlands", "the United Kingdom"),
}


def write_job(folder: Path, count: int, method: str) -> Path:
    """A job and its sentences; returns the job's file."""
    names = dict.fromkeys("".join(parts).title() for parts in itertools.product(FIRST, MIDDLE, LAST))
    rows = (
        {"text": f"The city of {city} is in {country}.", "label": continent, "city": city}
        for city in names
        for continent, countries in COUNTRIES.items()
        for country in countries
    )
    with (folder / "cities.jsonl").open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in itertools.islice(rows, count))
    job = folder / "job.yaml"
    job.write_text(
        "name: whole-job\nstore: store.zarr\nmodels: [demo/smollm2-135m-instruct]\n"
        "datasets: [{name: cities, path: cities.jsonl, label: label, group: city}]\n"
        f"project: {{method: {method}}}\n",
        encoding="utf-8",
    )
    return job


def run_watched(command: list[str]) -> tuple[float, dict[str, int]]:
    """Run it; seconds, and the most memory that all its processes had at once and that the first one had.

    Memory is proportional set size: what processes share is counted once.
    """
    started, over = time.perf_counter(), threading.Event()
    most = {"all_processes_bytes": 0, "first_process_bytes": 0, "processes": 0}
    process = psutil.Popen(command)

    def watch() -> None:
        while not over.wait(2):
            sizes = [_memory(p) for p in [process, *_children(process)]]
            for name, value in zip(most, (sum(sizes), sizes[0], sum(s > 0 for s in sizes)), strict=True):
                most[name] = max(most[name], value)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        if status := process.wait():
            raise subprocess.CalledProcessError(status, command[:4])
    finally:
        over.set()
        watcher.join()
    return time.perf_counter() - started, most


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


def sizes_of(folder: Path) -> dict[str, int]:
    """Bytes of the store, the report and the pictures."""
    sizes = {"store": 0, "report": 0, "pictures": 0}
    for path in (p for p in folder.rglob("*") if p.is_file()):
        kind = "report" if path.suffix == ".html" else "pictures" if path.suffix == ".png" else "store"
        sizes[kind] += path.stat().st_size
    return sizes


def main() -> int:
    """Run, print, judge."""
    parser = make_parser(__doc__, quick="200 sentences, PCA")
    parser.add_argument("--sentences", type=int, default=100_000)
    parser.add_argument("--method", choices=["umap", "pca"], default="umap")
    parser.add_argument("--keep", type=Path, help="folder for the job, which stays; by default one that is removed")
    options = parse(parser, QUICK)
    busy = busy_cores()
    with scratch_folder(options, "job") as scratch:
        folder = options.keep or scratch
        folder.mkdir(parents=True, exist_ok=True)
        job = write_job(folder, options.sentences, options.method)
        seconds, memory = run_watched([*DRILLCORE, "run", str(job)])
        manifest: dict[str, Any] = json.loads(next(folder.rglob("manifest.json")).read_text(encoding="utf-8"))
        sizes = sizes_of(folder)
    stages = {name: facts.get("wall_seconds") for name, facts in manifest["stages"].items()}
    spent = sum(stages.get(name) or 0.0 for name in ("measure", "project"))
    print(f"{options.sentences:,} sentences: {seconds:,.0f} s; by stage {stages}")
    print(f"measured and projected in {spent / 60:.1f} min (target {TARGET_SECONDS // 60}); {memory}; bytes {sizes}")
    facts = {"busy_cores": busy, "sentences": options.sentences, "seconds": seconds, "stages": stages}
    facts |= {"measured_and_projected_seconds": spent, "memory": memory, "bytes": sizes, "manifest": manifest}
    write_results("job", options, facts)
    return 0 if options.quick or spent <= TARGET_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
