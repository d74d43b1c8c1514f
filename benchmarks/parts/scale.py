"""A million sentences through a whole job, on a tiny random model: memory, files, and how fast the store opens.

    python -m benchmarks.parts.scale [--quick] [--sentences 1000000] [--fewer 100000] [--shard auto] [--out FILE]

Two jobs from text file to pictures and report (`project.method: pca`), extraction and the rest each in a fresh process.
It prints peak memory, seconds and files in the store of each, and what `drillcore show` and `drillcore.open` take on
the larger one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import DRILLCORE, child_peak, make_parser, parse, scratch_folder, write_results
from benchmarks.parts.memory import MAKE_MODEL, write_texts

QUICK = {"sentences": 2000, "fewer": 500}
OPEN = """
import sys, time, drillcore
started = time.perf_counter()
states = drillcore.open(sys.argv[1])["model/texts"].hidden_states
opened = time.perf_counter()
layer = states[:, 1].to_numpy()
print(opened - started, time.perf_counter() - opened, layer.nbytes)
"""


def run_job(folder: Path, count: int, shard: str) -> dict[str, Any]:
    """One whole job of so many sentences."""
    name = f"of-{count}"
    write_texts(folder / f"{name}.txt", count)
    with (folder / f"{name}.txt").open(encoding="utf-8") as texts, (folder / f"{name}.jsonl").open("w") as rows:
        rows.writelines(json.dumps({"text": t.strip(), "label": f"label {i % 2}"}) + "\n" for i, t in enumerate(texts))
    job = folder / f"{name}.yaml"
    job.write_text(
        f"models: [{{id: ./model, as: model}}]\ndatasets: {{texts: {name}.jsonl}}\nstore: {name}.zarr\n"
        f"extract: {{shard_sentences: {shard}}}\nproject: {{method: pca}}\n",
        encoding="utf-8",
    )
    peaks = {stage: child_peak([*DRILLCORE, stage, str(job)], folder) for stage in ("extract", "run")}
    store = folder / f"{name}.zarr"
    files = [f for f in store.rglob("*") if f.is_file()]
    return {
        "sentences": count,
        "peak_bytes": {stage: peak for stage, (peak, _) in peaks.items()},
        "seconds": {stage: seconds for stage, (_, seconds) in peaks.items()},
        "files": len(files),
        "stored_bytes": sum(f.stat().st_size for f in files),
        "store": str(store),
    }


def reopen(folder: Path, store: str) -> dict[str, float]:
    """Seconds of `drillcore show`, of opening the store, and of reading one layer of all sentences."""
    _, shown = child_peak([*DRILLCORE, "show", store], folder)
    child_peak([sys.executable, "-c", OPEN, store], folder)
    opened, read, num_bytes = (folder / "log.txt").read_text(encoding="utf-8").split()[-3:]
    return {"show": shown, "open": float(opened), "read_layer": float(read), "layer_bytes": float(num_bytes)}


def main() -> int:
    """Run both, print."""
    parser = make_parser(__doc__, quick="some thousand sentences")
    parser.add_argument("--sentences", type=int, default=1_000_000)
    parser.add_argument("--fewer", type=int, default=100_000)
    parser.add_argument("--shard", default="auto", help="sentences of a shard, a power of two")
    options = parse(parser, QUICK)
    with scratch_folder(options, "scale") as folder:
        child_peak([sys.executable, "-c", MAKE_MODEL, str(folder / "model")], folder)
        runs = [run_job(folder, n, options.shard) for n in (options.fewer, options.sentences)]
        seconds = reopen(folder, runs[1].pop("store"))
        runs[0].pop("store")
    for run in runs:
        stages = (f"{s} {p / 2**20:,.0f} MiB in {run['seconds'][s]:.0f} s" for s, p in run["peak_bytes"].items())
        stored = f"{run['files']} files, {run['stored_bytes'] / 2**20:,.0f} MiB"
        print(f"{run['sentences']:>9,} sentences: peak memory {', '.join(stages)}; {stored}")
    print(
        f"show {seconds['show']:.1f} s, open {seconds['open']:.2f} s, "
        f"one layer of all ({seconds['layer_bytes'] / 2**20:,.0f} MiB) in {seconds['read_layer']:.2f} s"
    )
    write_results("scale", options, {"runs": runs, "seconds": seconds})
    return 0


if __name__ == "__main__":
    sys.exit(main())
