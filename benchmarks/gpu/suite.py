"""The GPU suite: ceilings of the machine, drillcore and its peers, in one process and one run.

    python -m benchmarks.gpu.suite [--models A,B] [--sentences N] [--repeats R] [--minutes M] [--toy] [--out FILE]

Weights are random, sentences are token ids, so nothing is fetched. Correctness comes before speed: a model whose packed
states are further from float32 than one sentence at a time in the same dtype is reported as wrong and not timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.ceilings import ceilings, synchronise
from benchmarks.gpu.models import CONFIGS, TEXTS, write_config
from benchmarks.gpu.peers import PEERS
from drillcore.backends.base import all_states
from drillcore.backends.source import locate
from drillcore.backends.transformers.backend import TransformersBackend
from drillcore.job.fields import Extract, Model
from drillcore.system.machine import hardware
from drillcore.system.versions import git_commit, versions
from drillcore.tokens.sequences import Sequences

CHECKED = 24


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(m for m in CONFIGS if m != "toy"))
    parser.add_argument("--sentences", type=int, default=16_384)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=8.5, help="no further model is begun after so long")
    parser.add_argument("--toy", action="store_true", help="a tiny model on whatever there is: does it run?")
    parser.add_argument("--out", type=Path)
    found = parser.parse_args()
    if found.toy:
        found.models, found.sentences, found.repeats = "toy", 64, 1
    return found


def timed(work: Callable[[], Any]) -> float:
    """Seconds of a call, the device waited for."""
    synchronise()
    started = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - started


def open_backend(folder: Path, dtype: str) -> tuple[TransformersBackend, float]:
    """A backend with random weights, prepared; and what loading and compiling took."""
    started = time.perf_counter()
    source = locate(Model(id=str(folder), random_weights=True), Path("/"))
    layers = tuple(range(source.facts.num_blocks + 2))
    backend = TransformersBackend(source, Extract(dtype=dtype), layers)
    backend.prepare(Sequences.of([]), None)
    return backend, time.perf_counter() - started


def worst_by_layer(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Relative error of each layer, the worst sentence."""
    return (np.linalg.norm(got - want, axis=-1) / np.linalg.norm(want, axis=-1)).max(0)


def correctness(backend: TransformersBackend, exact: TransformersBackend, tokens: Sequences) -> dict[str, Any]:
    """Packed states and those of one sentence at a time, both against float32."""
    few = tokens.slice(0, CHECKED)
    want = np.concatenate([all_states(exact, few.slice(i, i + 1)) for i in range(len(few))])
    alone = np.concatenate([all_states(backend, few.slice(i, i + 1)) for i in range(len(few))])
    packed_L, alone_L = worst_by_layer(all_states(backend, few), want), worst_by_layer(alone, want)
    return {
        "packed": packed_L.tolist(),
        "alone": alone_L.tolist(),
        "right": bool((packed_L <= 1.5 * np.maximum(alone_L, 1e-5)).all()),
    }


def measure_model(name: str, options: argparse.Namespace, scratch: Path, matmul_flops: float) -> list[dict[str, Any]]:
    """Rows of one model: each text, drillcore and the peers in turn."""
    folder = write_config(name, scratch / name)
    backend, load_seconds = open_backend(folder, "auto")
    exact, _ = open_backend(folder, "float32")
    rows = []
    for text, make in TEXTS.items():
        tokens = make(options.sentences, backend.facts.vocab_size)
        checked = correctness(backend, exact, tokens)
        row: dict[str, Any] = {"model": name, "text": text, "correctness": checked, "load_seconds": load_seconds}
        rows.append(row)
        if not checked["right"]:
            continue
        work = backend.plan(tokens)
        runs: dict[str, Callable[[], Any]] = {"drillcore": lambda work=work: [None for _ in backend.run(work)]}
        runs |= {p: (lambda run=run, t=tokens: run(backend, t)) for p, run in PEERS.items()}
        seconds: dict[str, list[float]] = {k: [] for k in runs}
        for run in runs.values():
            run()
        for _ in range(options.repeats):
            for key, run in runs.items():
                seconds[key].append(timed(run))
        medians = {k: statistics.median(v) for k, v in seconds.items()}
        flops = 2 * backend.facts.num_parameters * work.num_nodes / medians["drillcore"]
        row |= {
            "seconds": seconds,
            "sentences_per_second": {k: len(tokens) / v for k, v in medians.items()},
            "nodes_per_second": work.num_nodes / medians["drillcore"],
            "share_of_matmul": flops / matmul_flops,
            "over_peers": {k: statistics.median(np.divide(seconds[k], seconds["drillcore"])) for k in PEERS},
            "fill": work.num_nodes / (work.num_nodes + work.num_padding),
            "peak_device_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
        }
    exact.close()
    backend.close()
    return rows


def main() -> None:
    """Measure, print one table, write JSON."""
    options, started = arguments(), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        found = ceilings(Path(scratch), small=options.toy)
        print("ceilings: " + ", ".join(f"{k} {v:.3g}" for k, v in found.items()))
        rows: list[dict[str, Any]] = []
        for name in options.models.split(","):
            if time.monotonic() - started > options.minutes * 60:
                print(f"{name}: not begun, time is up")
                continue
            rows += measure_model(name, options, Path(scratch), found["matmul_flops"])
            for row in rows[-len(TEXTS) :]:
                print(line(row), flush=True)
    result = {
        "hardware": hardware(), "versions": versions(), "git_commit": git_commit(), "ceilings": found, "rows": rows,
        "toy": options.toy,
    }  # fmt: skip
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.exit(not all(r["correctness"]["right"] for r in rows))


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    head = f"{row['model']:14} {row['text']:10}"
    if not row["correctness"]["right"]:
        return f"{head} WRONG: packed error {max(row['correctness']['packed']):.2g}"
    peers = "  ".join(f"{k} {v:.2f}x" for k, v in row["over_peers"].items())
    rate = row["sentences_per_second"]["drillcore"]
    return f"{head} {rate:10,.0f} sentences/s  {row['share_of_matmul']:.1%} of matmul  over {peers}"


if __name__ == "__main__":
    main()
