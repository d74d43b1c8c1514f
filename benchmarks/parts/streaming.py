"""Streamed weights against resident ones, and how well the model of their time predicts slow reads.

    python -m benchmarks.parts.streaming --texts FILE [--field text] [--model demo/smollm2-135m-instruct]
        [--sentences 4096] [--slow-sentences 1024] [--repeats 3] [--out FILE]

Both ways take turns in one process, on the same sentences, float32, from tokens to states. Then reads are slowed down
until loading all layers takes half, once and twice as long as the arithmetic of a sweep: the seconds that are measured
stand beside the larger of the two and one layer's reading (docs/streaming.md). Exit status 1 where a target is missed.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.common import make_parser, parse, write_results
from drillcore.backends import layers
from drillcore.backends.source import locate
from drillcore.backends.transformers.backend import TransformersBackend
from drillcore.backends.transformers.streamed.timing import Timing
from drillcore.cli.bench.texts import encode, read_texts
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.tokens.sequences import Sequences

QUICK = {"sentences": 32, "slow_sentences": 32, "repeats": 1}
# Reading over computing.
SLOW = (0.5, 1.0, 2.0)
TARGETS = {"streamed_over_resident": 1.10, "measured_over_predicted": 1.10}


class Way:
    """One way of holding the weights, ready to compute."""

    def __init__(self, source: Any, weights: str, sample: Sequences) -> None:
        extract = Extract(backend="transformers", dtype="float32", device="cpu", weights=weights)
        self.backend = TransformersBackend(source, extract, layers.resolve_layers("all", source.facts.num_layers))
        self.seconds_to_load = self.backend.prepare(sample, None).load_seconds

    def run(self, sentences: Sequences) -> dict[str, float]:
        """Wall and CPU seconds from tokens to states."""
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in self.backend.run(self.backend.lay_out(sentences)):
            pass
        return {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


class Slowed:
    """Reads of a streamed model that take as long as is asked for, and what its sweeps took."""

    def __init__(self, way: Way) -> None:
        self.way, self.sweeps = way, 0
        sweeps: Any = way.backend.sweeps
        self.layers: Any = sweeps._layers
        self._load, self._together, self.layer_seconds = self.layers._load, sweeps._together, 0.0
        self.layers._load, sweeps._together = self._slow_load, self._count

    def _slow_load(self, number: int) -> Any:
        started = time.perf_counter()
        loaded = self._load(number)
        time.sleep(max(0.0, self.layer_seconds - (time.perf_counter() - started)))
        return loaded

    def _count(self, *arguments: Any) -> Any:
        self.sweeps += 1
        return self._together(*arguments)

    def run(self, sentences: Sequences, layer_seconds: float) -> dict[str, float]:
        """What a run takes with reads of so many seconds a layer; its sweeps and seconds of computing."""
        self.layer_seconds, self.sweeps, computed = layer_seconds, 0, self.layers.computed_seconds
        read = self.layers.read_seconds
        seconds = self.way.run(sentences)
        took = {"read": self.layers.read_seconds - read, "computed": self.layers.computed_seconds - computed}
        return {**seconds, **{f"{name}_seconds": value for name, value in took.items()}, "sweeps": self.sweeps}


def slow_reads(way: Way, sentences: Sequences) -> list[dict[str, float]]:
    """Runs with slow reads, each beside what the model of its time predicts."""
    slowed = Slowed(way)
    plain = slowed.run(sentences, 0.0)
    num_layers, rows = slowed.layers.num_layers, []
    for share in SLOW:
        reading = share * plain["computed_seconds"] / plain["sweeps"]
        measured = slowed.run(sentences, reading / num_layers)
        timing = Timing(reading, plain["computed_seconds"], len(sentences), num_layers)
        predicted = timing.seconds(len(sentences), -(-len(sentences) // int(plain["sweeps"])))
        ratio = measured["wall_seconds"] / predicted
        rows.append({"reading_over_computing": share, "predicted_seconds": predicted, "ratio": ratio, **measured})
    return rows


def arguments() -> Any:
    """The command line."""
    parser = make_parser(__doc__, quick="few sentences, one round")
    parser.add_argument("--model", default="demo/smollm2-135m-instruct")
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--field", default="text")
    parser.add_argument("--sentences", type=int, default=4096)
    parser.add_argument("--slow-sentences", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    return parse(parser, QUICK)


def main() -> int:
    """Run, print, write; 1 where a target is missed."""
    options = arguments()
    source = locate(Model(id=options.model), Path.cwd())
    sentences, _ = encode(source, read_texts(options.texts, options.field, options.sentences))
    ways = {name: Way(source, name, sentences.slice(0, min(64, len(sentences)))) for name in ("resident", "streamed")}
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for number in range(options.repeats):
        for name in list(ways) if number % 2 == 0 else list(ways)[::-1]:
            seconds[name].append(ways[name].run(sentences))
    medians = {
        name: {key: statistics.median(one[key] for one in runs) for key in runs[0]} for name, runs in seconds.items()
    }
    ratios = {key: medians["streamed"][key] / medians["resident"][key] for key in medians["resident"]}
    slow = slow_reads(ways["streamed"], sentences.slice(0, min(options.slow_sentences, len(sentences))))
    facts = {
        "targets": TARGETS,
        "sentences": len(sentences),
        "tokens": int(sentences.lengths_N.sum()),
        "seconds_to_load": {name: way.seconds_to_load for name, way in ways.items()},
        "medians": medians,
        "streamed_over_resident": ratios,
        "all": seconds,
        "slow_reads": slow,
    }
    print(f"{len(sentences):,} sentences: {medians}\nstreamed over resident: {ratios}")
    for row in slow:
        print(
            f"reading {row['reading_over_computing']:g} of computing: {row['wall_seconds']:.1f} s, "
            f"predicted {row['predicted_seconds']:.1f} s, ratio {row['ratio']:.3f}, {row['sweeps']:.0f} sweeps"
        )
    write_results("streaming", options, facts)
    is_met = ratios["wall_seconds"] <= TARGETS["streamed_over_resident"]
    is_met = is_met and all(row["ratio"] <= TARGETS["measured_over_predicted"] for row in slow)
    return 0 if options.quick or is_met else 1


if __name__ == "__main__":
    sys.exit(main())
