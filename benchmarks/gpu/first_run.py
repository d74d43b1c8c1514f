"""The first minutes on a GPU: ceilings, correctness, throughput by design, the host; each step writes its results.

    python -m benchmarks.gpu.first_run [--toy] [--steps ceilings,correctness,models,host,flex] [--models A,B]
        [--minutes M] --out FOLDER

Runs from the checkout, installed or not, and fetches nothing: see README.md beside it. `--toy` runs every step at toy
size, on a CPU too. Exit status 1 where a step failed or states are wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import write_json
from benchmarks.gpu.ceilings import CUDA, ceilings, products
from benchmarks.gpu.correctness import check_architecture
from benchmarks.gpu.flex_sweep import flex_sweep
from benchmarks.gpu.host import host_rates
from benchmarks.gpu.models import ARCHITECTURES, CONFIGS
from benchmarks.gpu.throughput import line, measure_model
from drillcore.backends.device import hardware
from drillcore.system.versions import git_commit, versions

MODELS = "Llama-3.2-1B,Llama-3.1-8B,SmolLM2-135M,Llama-3.2-3B,SmolLM2-1.7B"
# Of an H100 in bfloat16, where the step that measures it is left out.
MATMUL_FLOPS = 798e12


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--toy", action="store_true", help="tiny models on whatever there is: does everything work?")
    parser.add_argument("--steps", default="ceilings,correctness,models,host", help=f"of {', '.join(STEPS)}")
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--profile", default="Llama-3.2-1B,SmolLM2-135M", help="models whose operations are listed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=7.5, help="no further model is begun after so long")
    parser.add_argument("--out", type=Path, required=True, help="folder for results and profiles")
    options = parser.parse_args()
    if options.toy:
        options.models, options.profile, options.repeats = "toy", "toy", 1
    options.out.mkdir(parents=True, exist_ok=True)
    options.until = time.monotonic() + 60 * options.minutes
    unknown = [s for s in options.steps.split(",") if s not in STEPS]
    if unknown:
        parser.error(f"unknown steps: {', '.join(unknown)}")
    return options


def measure_ceilings(scratch: Path, options: Any, results: dict[str, Any]) -> dict[str, Any]:
    """Rates of the machine, and of the products that the models are made of."""
    configs = {"toy": CONFIGS["toy"]} if options.toy else {k: v for k, v in CONFIGS.items() if k != "toy"}
    return {**ceilings(scratch, small=options.toy), "products": products(configs, 256 if options.toy else 32_768)}


def check_architectures(scratch: Path, options: Any, results: dict[str, Any]) -> dict[str, Any]:
    """Small models of several architectures."""
    rows: dict[str, Any] = {}
    for name in ("qwen3",) if options.toy else tuple(ARCHITECTURES):
        started = time.monotonic()
        try:
            rows[name] = check_architecture(ARCHITECTURES[name], scratch / name)
        except Exception:
            rows[name] = {"right": False, "error": traceback.format_exc(limit=-4)}
        rows[name]["seconds"] = round(time.monotonic() - started, 1)
        print(name, rows[name], flush=True)
    return rows


def measure_models(scratch: Path, options: Any, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Throughput of one model after the other, while there is time; written after each."""
    rows: list[dict[str, Any]] = []
    flops = results.get("ceilings", {}).get("matmul_flops", MATMUL_FLOPS)
    for name in options.models.split(","):
        started = time.monotonic()
        if started > options.until:
            print(f"{name}: not begun, time is up", flush=True)
            continue
        try:
            row = measure_model(name, scratch / name, options, flops)
        except Exception:
            row = {"model": name, "error": traceback.format_exc(limit=-6)}
        if CUDA:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        row["seconds"] = time.monotonic() - started
        rows.append(row)
        print(line(row), flush=True)
        write_json(options.out / "models.json", rows)
    return rows


STEPS: dict[str, Callable[[Path, Any, dict[str, Any]], Any]] = {
    "ceilings": measure_ceilings,
    "correctness": check_architectures,
    "models": measure_models,
    "host": lambda scratch, options, results: host_rates(options.out),
    "flex": lambda scratch, options, results: flex_sweep(),
}


def is_right(step: str, result: Any) -> bool:
    """Whether a step ended, and its states are right where it has any."""
    rows = result if step == "models" else [result, *(result.values() if step == "correctness" else [])]
    return all("error" not in row and row.get("check", row).get("right", True) for row in rows)


def main() -> int:
    """Run the steps in the order asked for."""
    options = arguments()
    # Every shape of attention is a graph of its own; past the limit, 8 by default, the process would end.
    torch._dynamo.config.recompile_limit = 256
    torch._dynamo.config.accumulated_recompile_limit = 4096
    results: dict[str, Any] = {}
    about = {"hardware": hardware(), "versions": versions(), "git_commit": git_commit(), "toy": options.toy}
    print(about, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for step in options.steps.split(","):
            started = time.monotonic()
            try:
                results[step] = STEPS[step](Path(scratch), options, results)
            except Exception:
                results[step] = {"error": traceback.format_exc()}
            print(f"== {step}: {time.monotonic() - started:.1f} s", flush=True)
            if step not in ("models", "correctness", "flex") or "error" in results[step]:
                print(results[step], flush=True)
            write_json(options.out / "results.json", {"kind": "drillcore-gpu-first-run", **about, "steps": results})
    return 0 if all(is_right(step, result) for step, result in results.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
