"""cuML's UMAP through drillcore's own class: does it run, repeat, and agree with umap-learn in trustworthiness?

    python -m benchmarks.gpu.cuml_check [--toy] [--out FILE]

Twenty clouds in 1,024 dimensions. `--toy` takes few points and umap-learn alone, without a GPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import results, write_json
from benchmarks.gpu.stand_in_for_cudf import install

HIDDEN, CLOUDS, NEIGHBORS = 1024, 20, 16


def clouds(count: int, rng: np.random.Generator) -> np.ndarray:
    """Points [count, HIDDEN] float32 around some centres."""
    centres = rng.normal(size=(CLOUDS, HIDDEN)) * 3
    return (centres[rng.integers(0, CLOUDS, count)] + rng.normal(size=(count, HIDDEN))).astype(np.float32)


def graph_agreement(points: np.ndarray, metric: Any, backend: Any) -> tuple[float, float]:
    """Seconds of the k-NN graph, and the share of neighbours that the exact graph on the CPU has too."""
    from drillcore.neighbours import build

    started = time.perf_counter()
    graph = build(points, NEIGHBORS, metric, 0, backend)
    seconds = time.perf_counter() - started
    if len(points) > 8192:
        return seconds, float("nan")
    exact = build(points, NEIGHBORS, metric, 0, "exact")
    return seconds, float((np.sort(graph.indices_NK) == np.sort(exact.indices_NK)).mean())


def compare(projection: Any, points: np.ndarray, metric: Any, backend: Any) -> dict[str, Any]:
    """Two fits of the same points: seconds, whether they are equal, trustworthiness."""
    from drillcore.job.stages import Project

    seconds, agreement = graph_agreement(points, metric, backend)
    first, second = (projection.fit(points, Project(metric=metric), None) for _ in range(2))
    return {
        "points": len(points),
        "metric": metric,
        "graph_seconds": seconds,
        "graph_agreement": agreement,
        "fit_seconds": [first.seconds, second.seconds],
        "repeats": bool(np.array_equal(first.points_N2, second.points_N2)),
        "trustworthiness": first.trustworthiness,
        "backend": first.backend,
    }


def main() -> int:
    """Compare, print, write; 1 where cuML does not repeat itself or is less trustworthy than umap-learn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    from drillcore.projections import load_projection

    install()
    rng = np.random.default_rng(0)
    few = clouds(400 if options.toy else 3000, rng)
    rows = [compare(load_projection("umap-learn"), few, metric, "exact") for metric in ("euclidean", "cosine")]
    if not options.toy:
        on_gpu = [few, clouds(50_000, rng)]
        rows += [
            compare(load_projection("cuml"), p, metric, "cuml") for p in on_gpu for metric in ("euclidean", "cosine")
        ]
    for row in rows:
        print(row, flush=True)
    if options.out is not None:
        write_json(options.out, results("cuml", options, {"rows": rows}))
    plain = {row["metric"]: row["trustworthiness"] for row in rows[:2]}
    repeats = all(row["repeats"] for row in rows)
    return 0 if repeats and all(r["trustworthiness"] > plain[r["metric"]] - 0.02 for r in rows[2:4]) else 1


if __name__ == "__main__":
    sys.exit(main())
