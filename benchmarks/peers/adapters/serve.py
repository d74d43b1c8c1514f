"""Runs a peer in a process (and environment) of its own: `python serve.py ADAPTER --model DIR --threads N --dtype D`.

Speaks JSON lines. First a greeting: {"load_seconds", "versions"}, or {"absent": reason}. Then, for each line that it
reads, {"tokens": FILE.npz, "check": [sentence, ...], "states": FILE.npy or null}, an answer: {"seconds"} or
{"failed": reason}. Only the work from token ids to states is timed; those of the checked sentences are written.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import itertools
import json
import os
import sys
import time
from typing import Any, TextIO


def reason(error: BaseException) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ")


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    installed = {}
    for package in packages:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def answer(run: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Measure once."""
    import numpy as np

    with np.load(request["tokens"]) as tokens:
        ids, offsets = tokens["ids"], tokens["offsets"]
    sentences = [ids[a:b] for a, b in itertools.pairwise(offsets)]
    started = time.perf_counter()
    states = run(sentences)
    seconds = time.perf_counter() - started
    if request.get("states"):
        np.save(request["states"], np.stack([np.asarray(states[i]) for i in request["check"]]))
    return {"seconds": seconds}


def serve(adapter: str, model: str, threads: int, dtype: str, channel: TextIO) -> None:
    """Load the peer, greet, and answer until the input ends."""

    def say(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    started = time.perf_counter()
    try:
        module = importlib.import_module(adapter)
        run = module.load(model, threads, dtype)
    except Exception as error:
        say({"absent": reason(error)})
        return
    say({"load_seconds": time.perf_counter() - started, "versions": versions(module.PACKAGES)})
    for line in sys.stdin:
        try:
            say(answer(run, json.loads(line)))
        except Exception as error:
            say({"failed": reason(error)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("adapter")
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    # Libraries print to standard output: it becomes standard error, and the answers go where it led.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(arguments.adapter, arguments.model, arguments.threads, arguments.dtype, answers)
    answers.flush()
    # Engines leave threads and children behind that would hold the process up.
    os._exit(0)
