"""Sentences to measure throughput on: a text file's, or random token ids of a stated length distribution."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from drillcore.backends.source import ModelSource
from drillcore.errors import JobError, TextError
from drillcore.job.inputs import Dataset
from drillcore.texts.problems import Problems
from drillcore.texts.read import read_batches
from drillcore.tokens.sequences import Sequences

_LENGTHS = {
    "fixed": re.compile(r"fixed:(\d{1,7})"),
    "uniform": re.compile(r"uniform:(\d{1,7})-(\d{1,7})"),
    "lognormal": re.compile(r"lognormal:(\d{1,7}),(\d{0,2}\.?\d{1,9})"),
}
HINT = (
    "fixed:N, uniform:LOW-HIGH or lognormal:MEDIAN,SIGMA (of the logarithm), lengths in tokens, such as uniform:8-64."
)


@dataclass(frozen=True)
class Lengths:
    """A length distribution, in tokens. kind: fixed (N), uniform (low, high) or lognormal (median, sigma)."""

    kind: str
    values: tuple[float, ...]

    @staticmethod
    def parse(text: str) -> Lengths:
        """Read `fixed:128`, `uniform:8-256` or `lognormal:24,0.6`; raises JobError for anything else."""
        for kind, pattern in _LENGTHS.items():
            match = pattern.fullmatch(text.strip())
            if match:
                values = tuple(float(v) for v in match.groups())
                if values[0] < 1 or (kind == "uniform" and values[1] < values[0]):
                    break
                return Lengths(kind, values)
        raise JobError(f"the length distribution {text!r} is not understood", hint=HINT)

    def sentences(self, count: int, vocab_size: int, max_tokens: int | None, seed: int = 0) -> Sequences:
        """`count` sentences of random token ids, none longer than `max_tokens`; they share next to no prefixes."""
        draw = np.random.default_rng(seed)
        if self.kind == "fixed":
            lengths = np.full(count, int(self.values[0]))
        elif self.kind == "uniform":
            lengths = draw.integers(int(self.values[0]), int(self.values[1]) + 1, count)
        else:
            lengths = np.rint(draw.lognormal(np.log(self.values[0]), self.values[1], count)).astype(np.int64)
        lengths = np.clip(lengths, 1, max_tokens)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return Sequences(draw.integers(0, vocab_size, int(offsets[-1])).astype(np.int32), offsets)


def read_texts(path: Path, field: str, limit: int | None) -> list[str]:
    """A file's first `limit` sentences; raises TextError naming what is wrong with it."""
    problems = Problems()
    dataset = Dataset(name="bench", path=str(path), text=field, limit=limit)
    texts = [text for batch in read_batches(path, dataset, problems) for text in batch.column("text").to_pylist()]
    problems.raise_if_any()
    return texts


def encode(source: ModelSource, texts: list[str]) -> tuple[Sequences, float]:
    """Token ids under the model's own tokenizer, cut to its context, and the seconds that it took.

    Raises TextError where a sentence has no token.
    """
    tokenizer = source.tokenizer("auto")
    started = time.perf_counter()
    tokens = Sequences.of(tokenizer.encode(texts))
    seconds = time.perf_counter() - started
    empty = np.flatnonzero(tokens.lengths_N == 0)
    if len(empty):
        raise TextError(f"sentence {int(empty[0])} has no token", hint="Take empty sentences out of the file.")
    most = source.facts.max_tokens
    return (tokens if most is None else tokens.truncate(most)), seconds
