"""The GPU suite: ceilings of the machine, drillcore and its peers, in one process and one run.

    python -m benchmarks.gpu.suite [--models A,B] [--sentences N] [--repeats R] [--minutes M] [--toy] [--out FILE]

Weights are random, sentences are token ids, so nothing is fetched. Correctness comes before speed: a model whose packed
states are further from float32 than one sentence at a time in the same dtype is reported as wrong and not timed.
Results are written after each model.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import results, write_json
from benchmarks.gpu.ceilings import CUDA, ceilings, seconds_of
from benchmarks.gpu.correctness import CHECKED, check
from benchmarks.gpu.models import CONFIGS, SENTENCES, TEXTS, open_backend
from benchmarks.gpu.peers import PEERS, share_for
from drillcore.tokens.sequences import Sequences


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default=",".join(m for m in CONFIGS if m != "toy"))
    parser.add_argument("--sentences", type=int, help="of each text (default: by model, about two seconds' worth)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=8.5, help="no further model is begun after so long")
    parser.add_argument("--toy", action="store_true", help="a tiny model on whatever there is: does it run?")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.toy:
        options.models, options.sentences, options.repeats = "toy", 64, 1
    return options


def measure_model(name: str, options: argparse.Namespace, scratch: Path, matmul_flops: float) -> list[dict[str, Any]]:
    """Rows of one model, one for each text."""
    started = time.perf_counter()
    source, backend = open_backend(CONFIGS[name], scratch / name, as_on_gpu=False)
    backend.prepare(Sequences.of([]), None)
    load_seconds = time.perf_counter() - started
    rows = []
    for text, make in TEXTS.items():
        tokens = make(options.sentences or SENTENCES[name], backend.facts.vocab_size)
        verdict = check(source, backend, tokens.slice(0, CHECKED))
        row: dict[str, Any] = {"model": name, "text": text, "correctness": verdict, "load_seconds": load_seconds}
        if verdict["right"]:
            row |= measure_text(backend, tokens, options.repeats, matmul_flops)
        rows.append(row)
    backend.close()
    return rows


def measure_text(backend: Any, tokens: Sequences, repeats: int, matmul_flops: float) -> dict[str, Any]:
    """drillcore and the peers in turn; the peers on a share of the sentences, so that rates are compared."""
    work = backend.lay_out(tokens)
    shares = {peer: share_for(peer, tokens) for peer in PEERS}
    runs: dict[str, Callable[[], Any]] = {"drillcore": lambda: [None for _ in backend.run(work)]}
    runs |= {peer: (lambda run=run, few=shares[peer]: run(backend, few)) for peer, run in PEERS.items()}
    counts = {"drillcore": len(tokens), **{peer: len(few) for peer, few in shares.items()}}
    seconds: dict[str, list[float]] = {way: [] for way in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for way, run in runs.items():
            seconds[way].append(seconds_of(run))
    each = {way: np.divide(times, counts[way]) for way, times in seconds.items()}
    median = statistics.median(seconds["drillcore"])
    return {
        "seconds": seconds,
        "sentences": counts,
        "sentences_per_second": {way: 1 / statistics.median(times) for way, times in each.items()},
        "nodes_per_second": work.num_nodes / median,
        "share_of_matmul": 2 * backend.facts.num_parameters * work.num_nodes / median / matmul_flops,
        "over_peers": {peer: statistics.median(each[peer] / each["drillcore"]) for peer in PEERS},
        "fill": work.num_nodes / (work.num_nodes + work.num_padding),
        "peak_device_bytes": torch.cuda.max_memory_allocated() if CUDA else None,
    }


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    head = f"{row['model']:14} {row['text']:10}"
    if not row["correctness"]["right"]:
        wrong = [way for way, right in row["correctness"]["verdicts"].items() if not right]
        return f"{head} WRONG: {', '.join(wrong)}; packed error {row['correctness']['packed']:.2g}"
    peers = "  ".join(f"{k} {v:.2f}x" for k, v in row["over_peers"].items())
    rate = row["sentences_per_second"]["drillcore"]
    return f"{head} {rate:10,.0f} sentences/s  {row['share_of_matmul']:.1%} of matmul  over {peers}"


def main() -> int:
    """Measure, print one table, write JSON; 1 where states are wrong."""
    options, started = arguments(), time.monotonic()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        rates = ceilings(Path(scratch), small=options.toy)
        print("ceilings: " + ", ".join(f"{k} {v:.3g}" for k, v in rates.items()))
        facts = results("gpu-suite", options, {"ceilings": rates, "rows": rows})
        for name in options.models.split(","):
            if time.monotonic() - started > options.minutes * 60:
                print(f"{name}: not begun, time is up")
                continue
            rows += measure_model(name, options, Path(scratch), rates["matmul_flops"])
            for row in rows[-len(TEXTS) :]:
                print(line(row), flush=True)
            if options.out is not None:
                write_json(options.out, facts)
    return 0 if all(row["correctness"]["right"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
