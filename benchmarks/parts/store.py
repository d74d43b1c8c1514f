"""How fast one layer of a large store is read, against the same decoded bytes in one plain file, warm and cold.

    python -m benchmarks.parts.store [--quick] [--sentences 131072] [--layers 8] [--hidden 576] [--repeats 9]
        [--out FILE]

Made-up normal states, which compress as real ones do. Read in turn, each time another layer: through `drillcore.open`,
through zarr-python itself, and the plain file. Cold: the system is asked to forget the files' pages before (no rights
are needed). Targets: at least 0.3 of the plain file's speed warm and 0.5 cold. Exit status 1 where one is missed.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr

import drillcore
from benchmarks.common import grid, make_parser, parse, scratch_folder, write_results
from drillcore.store.layout import choose_shape
from drillcore.store.places.location import Location
from drillcore.store.writer import StoreWriter
from drillcore.system.machine import busy_cores

QUICK = {"sentences": 4096, "layers": 2, "hidden": 64, "repeats": 1}
TARGETS = {"warm": 0.3, "cold": 0.5}


def make_store(folder: Path, options: Any, rng: np.random.Generator) -> tuple[Path, Path]:
    """A committed store of one model and dataset, and one layer's bytes as a plain file."""
    layers = tuple(range(options.layers))
    names = [f"block_{k}" for k in layers]
    shape = choose_shape(options.sentences, layers, names, options.hidden, "float32", None)
    writer = StoreWriter(Location(str(folder / "made.zarr")), "made", "0")
    dataset = writer.dataset("m", "d")
    dataset.ensure(shape, ())
    for shard in range(shape.num_shards):
        low, high = shape.bounds(shard)
        states = rng.standard_normal((high - low, options.layers, options.hidden), np.float32)
        dataset.commit(low, shard, states, np.zeros(options.layers, np.float32), "11" * 32)
    writer.finish()
    plain = folder / "plain.bin"
    rng.standard_normal((options.sentences, options.hidden), np.float32).tofile(plain)
    os.sync()  # or the system writes the files while they are read
    return folder / "made.zarr", plain


def forget(folder: Path) -> None:
    """Ask the system to drop its pages of every file."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def readers(store: Path, plain: Path) -> dict[str, Callable[[int], Any]]:
    """Ways of reading layer k whole."""
    states = drillcore.open(str(store))["m/d"].hidden_states
    array = zarr.open_group(store, mode="r")["m/d/hidden_states"]
    return {
        "drillcore": lambda k: states[:, k].to_numpy(),
        "zarr-python": lambda k: np.asarray(array[:, k]),  # type: ignore[index]
        "plain file": lambda _: np.fromfile(plain, np.float32),
    }


def measure(folder: Path, ways: dict[str, Callable[[int], Any]], options: Any) -> dict[str, dict[str, list[float]]]:
    """Seconds of every round, by warmth and way; each way comes first in turn."""
    seconds: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in ways} for kind in TARGETS}
    for kind, times in seconds.items():
        for repeat in range(options.repeats + 1):
            order = list(ways)[repeat % len(ways) :] + list(ways)[: repeat % len(ways)]
            for name in order:
                if kind == "cold":
                    forget(folder)
                started = time.perf_counter()
                ways[name](0 if kind == "warm" else repeat % options.layers)
                if repeat:  # the first round warms
                    times[name].append(time.perf_counter() - started)
    return seconds


def judge(times: dict[str, dict[str, list[float]]], layer_bytes: int) -> tuple[list[list[str]], dict[str, Any]]:
    """Rows to print, and the share of the plain file's speed by warmth and way."""
    rows, shares = [], dict[str, Any]()
    for kind, ways in times.items():
        for name, seconds in ways.items():
            pairs = [p / s for p, s in zip(ways["plain file"], seconds, strict=True)]
            share = statistics.median(pairs)
            shares[f"{kind} {name}"] = {"median": share, "low": min(pairs), "high": max(pairs)}
            verdict = "" if name != "drillcore" else ("met" if share >= TARGETS[kind] else "not met")
            speed = layer_bytes / statistics.median(seconds) / 1e6
            rows.append([kind, name, f"{speed:,.0f}", f"{share:.2f} ({min(pairs):.2f} to {max(pairs):.2f})", verdict])
    return rows, shares


def main() -> int:
    """Make, measure, print, judge."""
    parser = make_parser(__doc__, quick="a small store, one round")
    parser.add_argument("--sentences", type=int, default=131_072)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--repeats", type=int, default=9)
    options = parse(parser, QUICK)
    with scratch_folder(options, "store") as folder:
        store, plain = make_store(folder, options, np.random.default_rng())
        busy = busy_cores()
        times = measure(folder, readers(store, plain), options)
        stored = sum(f.stat().st_size for f in store.rglob("*") if f.is_file())
    layer_bytes = 4 * options.sentences * options.hidden
    rows, shares = judge(times, layer_bytes)
    print(f"{layer_bytes / 1e6:,.0f} MB a layer; stored {stored / layer_bytes / options.layers:.0%} of the raw bytes")
    print(grid(["", "read by", "MB/s", "of the plain file's speed", ""], rows))
    facts = {"busy_cores": busy, "layer_bytes": layer_bytes, "stored_bytes": stored, "times": times, "shares": shares}
    write_results("store", options, facts)
    return 1 if not options.quick and any(row[4] == "not met" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
