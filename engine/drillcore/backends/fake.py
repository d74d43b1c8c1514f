"""A backend without a model: states are a fixed function of the tokens. For tests of everything around a backend."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.backends.base import FloatStates, Prepared, SelfCheck, States, Work
from drillcore.backends.source import ModelSource
from drillcore.job.extract import Extract
from drillcore.tokens.places import Places
from drillcore.tokens.sequences import Sequences

BATCH = 64


def check(source: ModelSource | None, extract: Extract) -> None:
    """Everything is taken."""


def versions() -> dict[str, str]:
    """Arithmetic: no distribution decides its bytes."""
    return {}


class FakeBackend:
    """Fulfils the contract by arithmetic."""

    def __init__(self, source: ModelSource, extract: Extract, layers: Sequence[int]) -> None:
        self.facts, self._layers = source.facts, tuple(layers)

    def prepare(self, sample: Sequences, stored: dict[str, Any] | None) -> Prepared:
        """Nothing to load."""
        return Prepared(stored or {"layout": "fake"}, SelfCheck("fake", 0.0, {}, 0), 0.0)

    def lay_out(self, block: Sequences) -> Work:
        """Batches of a fixed number of sentences, last ones first."""
        parts = [(s, block.slice(s, min(s + BATCH, len(block)))) for s in range(0, len(block), BATCH)]
        return Work(len(block), len(block.ids_T), 0, parts[::-1])

    def run(self, work: Work) -> Iterator[States]:
        """States from a checksum of the tokens up to a place."""
        for start, part in work.parts:
            nodes = len(part.ids_T)
            for number, whole in enumerate(work.places or (None,)):
                places = Places.last(part) if whole is None else whole.slice(start, start + len(part))
                values, first = self._rows(part, places).astype(np.float32), start
                if whole is not None and whole.row_Q is not None:
                    first = int(whole.row_Q[whole.bounds_N1[start]]) if len(values) else 0
                elif whole is not None and not whole.is_mean:
                    first = int(whole.bounds_N1[start])
                rows = np.arange(len(values))
                if len(rows):
                    yield States(values, np.abs(values).max(-1), first + rows, rows, nodes, 0, group=number)
                    nodes = 0

    def _rows(self, part: Sequences, places: Places) -> NDArray[np.float64]:
        """The states of a group's rows in some sentences."""
        counts_N = np.diff(places.bounds_N1)
        sentence_Q = np.repeat(np.arange(len(part)), counts_N)
        pairs = zip(sentence_Q.tolist(), places.index_Q.tolist(), strict=True)
        states_QKH = self._states([part[n][: place + 1].tobytes() for n, place in pairs])
        if not places.is_mean or not len(states_QKH):
            return states_QKH
        row_Q = sentence_Q if places.row_Q is None else places.row_Q
        begin_R = np.flatnonzero(np.diff(row_Q, prepend=-1))
        sums: NDArray[np.float64] = np.add.reduceat(states_QKH, begin_R)
        return sums / np.diff(begin_R, append=len(row_Q))[:, None, None]

    def _states(self, seen: Sequence[bytes]) -> NDArray[np.float64]:
        layer_K, unit_H = np.array(self._layers), np.arange(1, self.facts.hidden_size + 1)
        seed_G = np.array([zlib.crc32(ids) for ids in seen], np.float64)
        return np.sin(seed_G[:, None, None] * 1e-3 + (layer_K[:, None] + 1) * unit_H * 0.1)

    def unembed(self, states_GH: FloatStates) -> NDArray[np.float32]:
        """Logits by a fixed matrix."""
        table = np.sin(np.outer(np.arange(states_GH.shape[1]), np.arange(self.facts.vocab_size)) * 0.01)
        logits: NDArray[np.float32] = (states_GH @ table).astype(np.float32)
        return logits

    def close(self) -> None:
        """Nothing to free."""
