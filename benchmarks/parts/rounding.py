"""How far rounding takes the packs from `transformers` on one sentence alone, and how far it takes that from itself.

    python -m benchmarks.parts.rounding [--quick] [--texts FILE ...] [--sentences 300] [--seed N] [--model ID]
        [--out FILE]

Sentences of random token ids, which no model was trained on, and those of files. Every way is compared with the same
model in float64; packs, and `transformers` in ways that change nothing but the shapes of its products (seven equal rows
beside the sentence, 32 tokens after it), with `transformers` alone. Relative error: ‖a − b‖₂ / ‖b‖₂, every layer.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import grid, make_parser, parse, write_results
from benchmarks.peers.plain import Plain, differences
from drillcore.backends import layers
from drillcore.backends.base import all_states
from drillcore.backends.source import ModelSource, locate
from drillcore.backends.transformers.backend import TransformersBackend
from drillcore.cli.bench.texts import encode, read_texts
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.system.machine import num_cores
from drillcore.tokens.sequences import Sequences

BOUND = 1e-5
QUICK = {"sentences": 5}
PAIRS = (
    ("packs", "alone"),
    ("8 copies", "alone"),
    ("32 tokens after it", "alone"),
    ("packs", "float64"),
    ("alone", "float64"),
    ("8 copies", "float64"),
    ("32 tokens after it", "float64"),
)


def packed(source: ModelSource, sentences: Sequences, threads: int) -> NDArray[np.float32]:
    """States [N, L + 2, hidden] by drillcore's packs, and that it took packs."""
    extract = Extract(backend="transformers", dtype="float32", device="cpu", layout="packed", threads=threads)
    backend = TransformersBackend(source, extract, layers.resolve_layers("all", source.facts.num_layers))
    backend.prepare(sentences.slice(0, min(64, len(sentences))), None)
    states = all_states(backend, sentences)
    backend.close()
    return states


def all_ways(
    source: ModelSource, sentences: Sequences, rng: np.random.Generator, threads: int
) -> dict[str, NDArray[np.float64]]:
    """States of every way, float64 [N, L + 2, hidden]."""
    ways = {"packs": packed(source, sentences, threads).astype(np.float64)}
    plain, exact = Plain(source.location), Plain(source.location, "float64")
    after = [rng.integers(0, source.facts.vocab_size, 32).tolist() for _ in sentences]
    ways["alone"] = np.stack([plain.states(s) for s in sentences])
    ways["8 copies"] = np.stack([plain.states(s, copies=8) for s in sentences])
    ways["32 tokens after it"] = np.stack([plain.states(s, after=a) for s, a in zip(sentences, after, strict=True)])
    ways["float64"] = np.stack([exact.states(s) for s in sentences])
    return ways


def judge(ways: dict[str, NDArray[np.float64]]) -> list[dict[str, Any]]:
    """Of every pair: the worst error and its layer, the median sentence's worst, and sentences beyond the bound."""
    rows = []
    for way, other in PAIRS:
        errors = differences(ways[way], ways[other])
        worst = errors.max(axis=1)
        rows.append(
            {
                "way": way,
                "against": other,
                "worst": float(errors.max()),
                "layer": int(errors.max(axis=0).argmax()),
                "median": float(np.median(worst)),
                "beyond": int((worst > BOUND).sum()),
                "sentences": len(worst),
            }
        )
    return rows


def make_sentences(options: Any, source: ModelSource, rng: np.random.Generator) -> dict[str, Sequences]:
    """Random ids of 1 to 60 tokens, and sentences drawn from each file."""
    sizes = rng.integers(1, 61, options.sentences)
    made = {"random ids": Sequences.of([rng.integers(0, source.facts.vocab_size, n).astype(np.int32) for n in sizes])}
    for path in options.texts:
        tokens = encode(source, read_texts(path, "text", None))[0]
        chosen = rng.choice(len(tokens), min(options.sentences, len(tokens)), replace=False)
        made[path.stem] = Sequences.of([tokens[i] for i in sorted(chosen.tolist())])
    return made


def main() -> int:
    """Draw, compute, print."""
    parser = make_parser(__doc__, quick="five sentences")
    parser.add_argument("--texts", type=Path, nargs="+", default=[], help="files with a field `text`")
    parser.add_argument("--sentences", type=int, default=300)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--model", default="demo/smollm2-135m-instruct")
    parser.add_argument("--threads", type=int, default=num_cores())
    options = parse(parser, QUICK)
    source, rng = locate(Model(id=options.model), Path.cwd()), np.random.default_rng(options.seed)
    results = {
        name: judge(all_ways(source, sentences, rng, options.threads))
        for name, sentences in make_sentences(options, source, rng).items()
    }
    print(f"seed {options.seed}")
    rows = [
        [
            name,
            f"{row['way']} against {row['against']}",
            f"{row['worst']:.1e} at layer {row['layer']}",
            f"{row['median']:.1e}",
            f"{row['beyond']} of {row['sentences']}",
        ]
        for name, pairs in results.items()
        for row in pairs
    ]
    print(grid(["", "", "worst", "median", f"beyond {BOUND:g}"], rows))
    write_results("rounding", options, {"results": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
