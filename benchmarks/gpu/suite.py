"""The GPU suite in one command: ceilings, correctness, throughput by design, peers, profiles, the writer.

    python -m benchmarks.gpu.suite [--toy] [--steps ceilings,correctness,models,writer] [--models A,B] [--minutes M]
        [--out FOLDER]

Runs from the checkout, installed or not, and fetches nothing: see README.md beside it. Each step writes its results
when it ends, `models` after each model; with the default settings it takes eight minutes at most. `--toy` runs every
step at toy size, on a CPU too. Exit status 1 where a step failed or states are wrong.
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

from benchmarks.common import RESULTS, processor, results, slug, write_json
from benchmarks.gpu.ceilings import CUDA, ceilings, products
from benchmarks.gpu.correctness import check_architecture
from benchmarks.gpu.flex_sweep import flex_sweep
from benchmarks.gpu.models import ARCHITECTURES, CONFIGS, SENTENCES
from benchmarks.gpu.streamed import check_streamed
from benchmarks.gpu.throughput import lines, measure_model
from benchmarks.parts.host import measure_host

MODELS = "Llama-3.2-1B,Llama-3.1-8B,SmolLM2-135M,Llama-3.2-3B,SmolLM2-1.7B"
# Of the sentences that two seconds take, so much of them is streamed.
STREAMED_PART = 2
# Of an H100 in bfloat16, where the step that measures it is left out.
MATMUL_FLOPS = 798e12


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--toy", action="store_true", help="tiny models on whatever there is: does everything work?")
    parser.add_argument("--steps", default="ceilings,correctness,models,writer", help=f"of {', '.join(STEPS)}")
    parser.add_argument("--models", default=MODELS, help=f"of {', '.join(CONFIGS)}")
    parser.add_argument("--profile", default="Llama-3.2-1B,SmolLM2-135M", help="models whose operations are listed")
    parser.add_argument("--merge", default="Llama-3.2-1B,Llama-3.1-8B", help="models tried with merged products too")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=6.5, help="no further model is begun after so long")
    parser.add_argument(
        "--out", type=Path, help="folder for results and profiles (default: one in benchmarks/results/)"
    )
    options = parser.parse_args()
    if options.toy:
        options.models = options.profile = options.merge = "toy"
        options.repeats = 1
    unknown = [s for s in options.steps.split(",") if s not in STEPS]
    unknown += [m for m in options.models.split(",") if m not in CONFIGS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    card = slug(torch.cuda.get_device_name()) if CUDA else processor()
    options.out = options.out or RESULTS / f"{time.strftime('%Y-%m-%d')}-{card}-gpu-suite"
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def measure_ceilings(scratch: Path, options: Any, found: dict[str, Any]) -> dict[str, Any]:
    """Rates of the machine, and of the products that the models are made of."""
    configs = {"toy": CONFIGS["toy"]} if options.toy else {k: v for k, v in CONFIGS.items() if k != "toy"}
    return {**ceilings(scratch, small=options.toy), "products": products(configs, 256 if options.toy else 32_768)}


def check_architectures(scratch: Path, options: Any, found: dict[str, Any]) -> dict[str, Any]:
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


def measure_models(scratch: Path, options: Any, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Throughput of one model after the other, while there is time; written after each part of each model."""
    rows: list[dict[str, Any]] = []
    flops = found.get("ceilings", {}).get("matmul_flops", MATMUL_FLOPS)
    for name in options.models.split(","):
        started = time.monotonic()
        if started > options.until:
            print(f"{name}: not begun, time is up", flush=True)
            continue
        row: dict[str, Any] = {"model": name}
        rows.append(row)
        try:
            measure_model(row, scratch / name, options, flops, lambda: write_json(options.out / "models.json", rows))
        except Exception:
            row["error"] = traceback.format_exc(limit=-6)
        if CUDA:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        row["seconds"] = time.monotonic() - started
        print(lines(row), flush=True)
        write_json(options.out / "models.json", rows)
    return rows


def measure_writer(scratch: Path, options: Any, found: dict[str, Any]) -> dict[str, Any]:
    """From a finished pass to committed shards, at the shapes of a large and a small model."""
    shapes = ("toy",) if options.toy else ("8b", "135m")
    return {shape: measure_host(scratch / shape, shape, "bfloat16", "float32", repeats=2) for shape in shapes}


def measure_streamed(scratch: Path, options: Any, found: dict[str, Any]) -> dict[str, Any]:
    """Models whose layers are read one at a time, beside the same in memory."""
    names = ("toy",) if options.toy else ("Llama-3.2-1B",)
    return {n: check_streamed(CONFIGS[n], scratch / f"streamed-{n}", SENTENCES[n] // STREAMED_PART) for n in names}


STEPS: dict[str, Callable[[Path, Any, dict[str, Any]], Any]] = {
    "ceilings": measure_ceilings,
    "correctness": check_architectures,
    "models": measure_models,
    "writer": measure_writer,
    "streamed": measure_streamed,
    "flex": lambda scratch, options, found: flex_sweep(),
}


def is_right(step: str, result: Any) -> bool:
    """Whether a step ended, and its states are right where it has any."""
    rows = result if step == "models" else [result, *(result.values() if step == "correctness" else [])]
    if step == "streamed" and "error" not in result:
        rows = [way for model in result.values() for way in model.values()]
    checks = [row.get("check", row) for row in rows] + [row["merged"]["check"] for row in rows if "merged" in row]
    return all("error" not in row for row in rows) and all(check.get("right", True) for check in checks)


def main() -> int:
    """Run the steps in the order asked for."""
    options = arguments()
    options.until = time.monotonic() + 60 * options.minutes
    found: dict[str, Any] = {}
    facts = results("gpu-suite", options, {"toy": options.toy, "steps": found})
    print({key: facts[key] for key in ("hardware", "versions", "git_commit")}, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for step in options.steps.split(","):
            started = time.monotonic()
            try:
                found[step] = STEPS[step](Path(scratch), options, found)
            except Exception:
                found[step] = {"error": traceback.format_exc()}
            print(f"== {step}: {time.monotonic() - started:.1f} s", flush=True)
            if step not in ("models", "correctness", "flex") or "error" in found[step]:
                print(found[step], flush=True)
            write_json(options.out / "results.json", facts)
    print(f"written to {options.out}")
    return 0 if all(is_right(step, result) for step, result in found.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
