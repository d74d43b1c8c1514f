"""A sweep of 6 small models x 4 datasets on two Ray workers, against the ideal of two workers.

    python -m benchmarks.parts.sweep [--quick] [--repeats R] [--sentences N] [--out FILE]

Each round runs the same job once in one process and once on Ray, one thread a worker. The ideal is the sum of what one
process spends on loads and forward passes, over 2. Wall times: `sweep` is the extract stage from its plan to its last
commit, loads included; `command` the whole run, Ray's start and end included. `sweep / own` sets it against the loads
and forward passes of the workers themselves over 2, without what two processes on one machine take from each other's
caches. The stores must hold the same bytes.
Prints a table and writes JSON, with the seconds of every block for `benchmarks.parts.simulate_cluster`.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, make_parser, parse, scratch_folder, write_results

sys.path.insert(0, str(ROOT / "tests"))

from drillcore.job.fields import Job, LoadedJob
from drillcore.runtime.executors.local import LocalSweep
from drillcore.runtime.runner import run_stages
from drillcore.runtime.work.tasks import BlockDone
from drillcore.system.machine import busy_cores
from drillcore.system.progress import Silent
from support.tiny import tiny_model

WORKERS = 2
TARGET = 1.2
QUICK = {"sentences": 256, "repeats": 1}
# Of real architectures, and large enough that start-up is a small part of a forward pass.
MODELS = ("llama", "qwen2", "gpt2", "mistral", "gpt_neox", "gemma")
SIZE = {"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4}
GPT2_SIZE = {"n_embd": 128, "n_layer": 6}


def make_job(folder: Path, num_sentences: int) -> dict[str, Any]:
    """Models with random weights and sentences of random words; a job without its store."""
    draw, words = random.Random(0), [f"word{i}" for i in range(200)]
    for name in "abcd":
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as stream:
            for _ in range(num_sentences):
                stream.write(json.dumps({"text": " ".join(draw.choices(words, k=draw.randint(2, 16)))}) + "\n")
    for name in MODELS:
        tiny_model(folder / name, name, **(GPT2_SIZE if name == "gpt2" else SIZE))
    # Large enough that flushing small files does not decide the times.
    shard = 512 if num_sentences >= 2048 else 64
    block = max(shard, num_sentences // 4 // shard * shard)
    return {
        "name": "sweep",
        "models": [{"id": f"./{name}"} for name in MODELS],
        "datasets": {name: f"{name}.jsonl" for name in "abcd"},
        "extract": {"threads": 1, "shard_sentences": shard, "block_sentences": block},
    }


def run_job(folder: Path, job: dict[str, Any], store: str, executor: str) -> dict[str, Any]:
    """Run it; its manifest, and the whole run's seconds."""
    started = time.perf_counter()
    settings = {**job, "store": str(folder / f"{store}.zarr"), "run": {"executor": executor}}
    loaded = LoadedJob(job=Job.model_validate(settings), base=folder, source="sweep.yaml")
    beside = run_stages(loaded, ("extract",), Silent())
    seconds = time.perf_counter() - started
    manifest: dict[str, Any] = json.loads((beside / "manifest.json").read_text(encoding="utf-8"))
    return {**manifest, "command_seconds": seconds}


def record_blocks(blocks: list[BlockDone]) -> None:
    """Make sweeps of the local executor record every block: a manifest has their sums only."""
    outcomes_of = LocalSweep.__iter__

    def recording(self: LocalSweep) -> Iterator[Any]:
        for outcome in outcomes_of(self):
            if isinstance(outcome, BlockDone):
                blocks.append(outcome)
            yield outcome

    LocalSweep.__iter__ = recording  # type: ignore[method-assign]


def one_round(folder: Path, job: dict[str, Any], number: int, blocks: list[BlockDone]) -> dict[str, Any]:
    """Both ways once; their order changes from round to round."""
    blocks.clear()
    busy, manifests = busy_cores(), {}
    for executor in ("local", "ray") if number % 2 == 0 else ("ray", "local"):
        manifests[executor] = run_job(folder, job, f"{executor}-{number}", executor)
    local, swept = manifests["local"], manifests["ray"]
    loads = {name: facts["load_seconds"] for name, facts in local["models"].items()}
    forward = sum(facts["extract"]["seconds"]["forward"] for facts in local["models"].values())
    workers = swept["executor"]["workers"]
    return {
        "busy_cores": busy,
        "ideal_seconds": (sum(loads.values()) + forward) / WORKERS,
        "ideal_on_ray_seconds": sum(w["load_seconds"] + w["forward_seconds"] for w in workers) / WORKERS,
        "local_sweep_seconds": local["stages"]["extract"]["wall_seconds"],
        "ray_sweep_seconds": swept["stages"]["extract"]["wall_seconds"],
        "ray_command_seconds": swept["command_seconds"],
        "workers": workers,
        "same_bytes": committed(folder / f"local-{number}.zarr") == committed(folder / f"ray-{number}.zarr"),
        "models": {
            name: {
                "load_seconds": seconds,
                "blocks": [
                    {"sentences": b.num_sentences, "seconds": max(b.seconds.values())}
                    for b in blocks
                    if b.model == name
                ],
            }
            for name, seconds in loads.items()
        },
    }


def committed(store: Path) -> dict[str, bytes]:
    """Every file of states and fingerprints."""
    names = ("hidden_states", "shard_fingerprint")
    return {str(p.relative_to(store)): p.read_bytes() for n in names for p in store.rglob(f"{n}/c/**/*") if p.is_file()}


def table(rounds: list[dict[str, Any]]) -> str:
    """What to read first; seconds."""
    heads = ("ideal of 2", "one process", "Ray, sweep", "Ray, command", "sweep / ideal", "sweep / own", "loads")
    names = [*heads, "same bytes", "busy"]
    lines = [f"| {' | '.join(names)} |", "| ---: " * len(names) + "|"]
    for r in rounds:
        seconds = [r["ideal_seconds"], r["local_sweep_seconds"], r["ray_sweep_seconds"], r["ray_command_seconds"]]
        loads = sum(len(w["loads"]) for w in r["workers"])
        ratios = [seconds[2] / seconds[0], seconds[2] / r["ideal_on_ray_seconds"]]
        cells = [*(f"{s:.1f}" for s in seconds), *(f"{q:.2f}" for q in ratios), str(loads), str(r["same_bytes"])]
        lines.append(f"| {' | '.join(cells)} | {r['busy_cores']:.1f} |")
    return "\n".join(lines)


def main() -> int:
    """Run, print, write; 1 where bytes differ or a model was loaded twice by one worker."""
    parser = make_parser(__doc__, quick="few sentences, one round")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sentences", type=int, default=6000, help="of each dataset")
    options = parse(parser, QUICK)
    blocks: list[BlockDone] = []
    record_blocks(blocks)
    with scratch_folder(options, "sweep") as folder:
        job = make_job(folder, options.sentences)
        rounds = [one_round(folder, job, number, blocks) for number in range(options.repeats)]
    print(table(rounds))
    facts = {
        "workers": WORKERS,
        "target": TARGET,
        "sentences_a_dataset": options.sentences,
        "models": rounds[-1]["models"],
        "rounds": rounds,
        "sweep_over_ideal": statistics.median(r["ray_sweep_seconds"] / r["ideal_seconds"] for r in rounds),
        "sweep_over_own": statistics.median(r["ray_sweep_seconds"] / r["ideal_on_ray_seconds"] for r in rounds),
    }
    write_results("sweep", options, facts)
    once = all(len(set(w["loads"])) == len(w["loads"]) for r in rounds for w in r["workers"])
    return 0 if once and all(r["same_bytes"] for r in rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
