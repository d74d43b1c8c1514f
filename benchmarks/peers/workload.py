"""The sentences of a benchmark run: where they came from, their token ids, and the ones whose states are checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import made_texts
from drillcore.backends.source import ModelSource
from drillcore.cli.bench.texts import encode, read_texts
from drillcore.tokens.sequences import Sequences

NUM_CHECKED, FIRST = 16, 4


@dataclass(frozen=True)
class Text:
    """Sentences with a name. checked: numbers of sentences of all lengths; tokens_file: the ids for other processes."""

    name: str
    origin: str
    sentences: list[str]
    tokens: Sequences
    checked: list[int]
    tokens_file: Path

    def head(self, count: int, folder: Path) -> Text:
        """Its first sentences, to warm up with."""
        count = min(count, len(self.tokens))
        tokens = self.tokens.slice(0, count)
        return _text(f"{self.name}-{count}", self.origin, self.sentences[:count], tokens, folder)


def make_texts(files: list[Path], count: int, source: ModelSource, folder: Path) -> list[Text]:
    """The first `count` sentences of each file, or of each kind that is made up."""
    named = [(f.stem, str(f.name), read_texts(f, "text", count)) for f in files]
    made = [(name, f"made up, seed {made_texts.SEED}", make(count)) for name, make in made_texts.TEXTS.items()]
    return [_text(name, origin, texts, encode(source, texts)[0], folder) for name, origin, texts in named or made]


def _text(name: str, origin: str, sentences: list[str], tokens: Sequences, folder: Path) -> Text:
    path = folder / f"{name}.npz"
    np.savez(path, ids=np.asarray(tokens.ids_T), offsets=tokens.offsets_N1)
    order = np.argsort(tokens.lengths_N, kind="stable")
    checked = order[np.linspace(0, len(order) - 1, min(NUM_CHECKED, len(order))).astype(np.int64)]
    # The first ones too: a peer may show the states of those only.
    return Text(name, origin, sentences, tokens, sorted({*range(min(FIRST, len(order))), *checked.tolist()}), path)


def facts_of(text: Text) -> dict[str, Any]:
    """What a reader must know of the sentences."""
    lengths = text.tokens.lengths_N
    return {
        "origin": text.origin,
        "sentences": len(lengths),
        "tokens": int(lengths.sum()),
        "tokens_shortest_median_longest": [int(lengths.min()), float(np.median(lengths)), int(lengths.max())],
    }
