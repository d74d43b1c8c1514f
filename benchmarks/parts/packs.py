"""How many nodes packs compute over the distinct prefixes of their sentences, and how fast packs are planned.

    python -m benchmarks.parts.packs [--quick] [--out FILE]

Trunks of many lengths before few and many continuations of 20 tokens, and free text; with the settings of a CPU, whose
batches are as wide as their packs, and of CUDA, whose shapes are fixed. Needs no model.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from benchmarks.common import grid, make_parser, parse, write_results
from drillcore.backends.transformers import cpu_trees, flex_attention
from drillcore.backends.transformers.packing import pack_batches, pack_numerics
from drillcore.tokens.packs import sort_sentences
from drillcore.tokens.sequences import Sequences

TRUNKS, CONTINUATIONS, TAIL, VOCABULARY = (100, 450, 1000, 2000, 4000), (8, 24, 1000), 20, 50_000
# Texts with a trunk of their own each.
TEXTS = (1, 8)
# Tokens of texts that a dataset asks questions about.
BRANCHED = (400, 1000, 2000, 4000)
SETTINGS = {"cpu": (cpu_trees.NAME, True), "cuda": (flex_attention.NAME, False)}


def main() -> None:
    """Count, time, print, write."""
    options = parse(make_parser(__doc__, quick="short trunks, few sentences"), {})
    trunks, sentences = (TRUNKS[:2], 1024) if options.quick else (TRUNKS, 8192)
    rows = [count(trunk, n, texts) for trunk in trunks for n in CONTINUATIONS for texts in TEXTS]
    columns = list(rows[0])
    print(grid(columns, [[f"{row[c]:.3f}" if "/" in c else f"{row[c]:,}" for c in columns] for row in rows]))
    branches = [count_branches(text) for text in (BRANCHED[:2] if options.quick else BRANCHED)]
    columns = list(branches[0])
    print(grid(columns, [[f"{row[c]:.3f}" if "/" in c else f"{row[c]:,}" for c in columns] for row in branches]))
    rates = {name: plan_free_text(name, sentences) for name in SETTINGS}
    for name, facts in rates.items():
        print(f"free text, {name}: {facts['sentences_per_second']:,.0f} sentences/s planned, {facts['fill']:.1%} full")
    write_results("packs", options, {"trunks": rows, "branches": branches, "free_text": rates})


def numerics_of(name: str) -> dict[str, Any]:
    """What a model of 135M resolves on a machine with enough memory."""
    attention, on_cpu = SETTINGS[name]
    sizes = pack_numerics(attention, "auto", on_cpu=on_cpu, hidden_size=576, memory_bytes=2**35, fitting_nodes=2**15)
    return {**sizes, "attention": attention}


def count(trunk: int, continuations: int, texts: int) -> dict[str, Any]:
    """Nodes and grids over the distinct prefixes, one trunk a text."""
    draw = np.random.default_rng(0)
    made = []
    for _ in range(texts):
        stem = draw.integers(0, VOCABULARY, trunk)
        made += [np.concatenate([stem, draw.integers(0, VOCABULARY, TAIL)]) for _ in range(continuations)]
    block = Sequences.of(made)
    ordered = sort_sentences(block)
    ideal = int((ordered.lengths_U - ordered.shared_U).sum())
    row = {"trunk": trunk, "continuations": continuations, "texts": texts, "prefixes": ideal}
    return row | _shares(block, ideal, "prefixes")


def _shares(block: Sequences, ideal: int, what: str) -> dict[str, float]:
    """Nodes and grids over the fewest nodes that are possible, with each of the settings."""
    found = {}
    for name in SETTINGS:
        parts = pack_batches(block, numerics_of(name))
        found[f"{name} nodes / {what}"] = sum(b.num_nodes for b in parts) / ideal
        found[f"{name} with padding / {what}"] = sum(b.token_ids_RW.size for b in parts) / ideal
    return found


def count_branches(text: int, questions: int = 24, texts: int = 8) -> dict[str, Any]:
    """Nodes of texts and of questions on each of them, of a dataset and its branches in one block."""
    draw = np.random.default_rng(0)
    parents = [draw.integers(0, VOCABULARY, text) for _ in range(texts)]
    asked = [draw.integers(0, VOCABULARY, TAIL) for _ in range(questions)]
    sets = [Sequences.of(parents), *(Sequences.of([np.concatenate([p, q]) for p in parents]) for q in asked)]
    block, ideal = Sequences.join(sets), texts * (text + questions * TAIL)
    row = {"text": text, "questions": questions, "texts": texts, "text + questions": ideal}
    return row | _shares(block, ideal, "those")


def plan_free_text(name: str, count: int) -> dict[str, float]:
    """Sentences a second through packs and batches, on one core, and how full the batches are."""
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.gamma(4.2, 6.1, count), 1, 78).astype(int)
    block = Sequences.of([draw.integers(0, VOCABULARY, n) for n in lengths])
    seconds = []
    for _ in range(7):
        started = time.perf_counter()
        parts = pack_batches(block, numerics_of(name))
        seconds.append(time.perf_counter() - started)
    fill = sum(b.num_nodes for b in parts) / sum(b.token_ids_RW.size for b in parts)
    return {"sentences_per_second": count / statistics.median(seconds), "fill": fill}


if __name__ == "__main__":
    main()
