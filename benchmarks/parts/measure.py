"""Cost of measuring and projecting layers: seconds by step, memory, and what a whole model would take.

    python -m benchmarks.parts.measure [--quick] [--sentences 2000] [--hidden 576] [--layers 2] [--of-layers 31]
        [--labels 2] [--permutations 1000] [--method umap|pca|none] [--seed N] [--out FILE]

Made-up states: a few directions that carry most of the variance, one massive dimension, labels that grow apart with
depth. A layer's k-NN graph is computed once, for purity and for UMAP. Layers are spread over this machine's cores as in
a run; the target is 31 layers of 100,000 x 576 within 75 minutes on two cores. The first of each process
compiles.
"""

from __future__ import annotations

import os
import resource
import secrets
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.common import make_parser, parse, write_results
from drillcore.job.stages import Measure, Project

QUICK = {"sentences": 300, "hidden": 64, "permutations": 20}


@dataclass(frozen=True)
class Task:
    """One layer to measure. depth: 0 to 1. method: umap, pca or none."""

    sentences: int
    hidden: int
    labels: int
    permutations: int
    depth: float
    method: str
    seed: int


def make_labels(task: Task) -> np.ndarray:
    """Labels [N], the same for all layers."""
    return np.random.default_rng(task.seed).integers(0, task.labels, task.sentences)


def make_states(task: Task) -> np.ndarray:
    """States [N, H] float32 of a layer at some depth."""
    rng = np.random.default_rng([task.seed, int(1000 * task.depth)])
    strong = min(40, task.hidden)
    mixed = rng.normal(size=(task.sentences, strong)) * np.geomspace(10, 0.5, strong)
    states = (mixed.astype(np.float32) @ rng.normal(size=(strong, task.hidden)).astype(np.float32)).astype(np.float32)
    states += 0.5 * rng.normal(size=states.shape).astype(np.float32)
    directions = rng.normal(size=(task.labels, task.hidden)).astype(np.float32)
    states += task.depth * directions[make_labels(task)]
    states[:, 0] += 1000
    return states


def run_layer(task: Task) -> dict[str, float]:
    """Seconds by step of one layer, and the process's peak memory so far."""
    from drillcore.measures import NEIGHBORS, chosen
    from drillcore.measures.draws import make_draws
    from drillcore.measures.separation import measure_layer
    from drillcore.neighbours import build
    from drillcore.projections import choose_projection, load_projection

    states, project = make_states(task), Project(n_neighbors=NEIGHBORS)
    seconds: dict[str, float] = {}

    def timed(name: str, started: float) -> None:
        seconds[name] = time.perf_counter() - started

    started = time.perf_counter()
    graph = build(states, NEIGHBORS, "euclidean", 0)
    timed("graph", started)
    started = time.perf_counter()
    drawn = make_draws(make_labels(task), None, Measure(permutations=task.permutations), task.sentences)
    timed("draws", started)
    for name in chosen("all"):
        started = time.perf_counter()
        settings = Measure(permutations=task.permutations, metrics=(name,))
        measure_layer(states, settings, drawn, graph)
        timed(name, started)
    if task.method != "none":
        started = time.perf_counter()
        name = "pca" if task.method == "pca" else choose_projection(project, task.sentences)[0]
        load_projection(name).fit(states, project, graph)
        timed(task.method, started)
    seconds["layer"] = sum(seconds.values())
    seconds["process"] = os.getpid()
    seconds["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return seconds


def run_all(tasks: list[Task]) -> list[dict[str, float]]:
    """Every layer, by the local executor."""
    from drillcore.job.extract import Extract
    from drillcore.job.stages import Run
    from drillcore.runtime.executors.local import LocalExecutor
    from drillcore.runtime.stages.graphs import memory_needed

    task = tasks[0]
    memory = memory_needed(task.sentences, task.hidden)
    executor = LocalExecutor(Run(), Extract(), print)
    layers: dict[int, dict[str, float]] = {}
    started = time.perf_counter()
    for position, layer in executor.map(run_layer, tasks, memory=memory):
        layers[position] = layer
        print(f"layer {position} done after {time.perf_counter() - started:.0f} s", flush=True)
    return [layers[k] for k in range(len(tasks))]


def summarize(options: Any, layers: list[dict[str, float]], wall: float) -> dict[str, object]:
    """Print a table and return what goes into the JSON file."""
    # The first layer of each process compiles: later ones tell what a layer costs.
    processes = len({layer["process"] for layer in layers})
    steady = layers[processes:] or layers
    print(f"{'step':20} {'first layer':>12} {'later layers':>13}   seconds")
    for name in layers[0]:
        mean = float(np.mean([layer[name] for layer in steady]))
        print(f"{name:20} {layers[0][name]:12.2f} {mean:13.2f}")
    per_layer = float(np.mean([layer["layer"] for layer in steady]))
    compiling = max(0.0, layers[0]["layer"] - per_layer)
    expected = compiling + per_layer * options.of_layers / processes
    print(
        f"{len(layers)} layers took {wall:.0f} s on {processes} processes; "
        f"{options.of_layers} would take about {expected / 60:.1f} min"
    )
    return {"layers": layers, "wall_seconds": wall, "expected_minutes": expected / 60}


def main() -> None:
    """Draw, measure, print, write."""
    parser = make_parser(__doc__, quick="300 sentences of 64 values")
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--layers", type=int, default=2, help="layers to run")
    parser.add_argument("--of-layers", type=int, default=31, help="layers to work the cost out for")
    parser.add_argument("--labels", type=int, default=2)
    parser.add_argument("--permutations", type=int, default=1000)
    parser.add_argument("--method", choices=["umap", "pca", "none"], default="umap")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbits(32), help="of the made-up states; drawn if left out"
    )
    options = parse(parser, QUICK)
    print(f"seed {options.seed}, {options.sentences:,} x {options.hidden}, {options.labels} labels")
    depths = [k / max(1, options.layers - 1) for k in range(options.layers)]
    settings = (options.sentences, options.hidden, options.labels, options.permutations)
    tasks = [Task(*settings, depth, options.method, options.seed) for depth in depths]
    started = time.perf_counter()
    layers = run_all(tasks)
    write_results("measure", options, summarize(options, layers, time.perf_counter() - started))


if __name__ == "__main__":
    main()
