"""The `auto` backend: one of the others, chosen when the model is prepared and kept by the stored numerics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.backends import BACKENDS
from drillcore.backends.base import Backend, FloatStates, Prepared, States, Work
from drillcore.backends.choice import choose_backend
from drillcore.backends.source import Source
from drillcore.errors import RunError
from drillcore.job.fields import Extract
from drillcore.system.registry import load_by_name
from drillcore.tokens.sequences import Sequences


class AutoBackend:
    """A model whose backend is still open until `prepare`."""

    def __init__(self, source: Source, extract: Extract, layers: Sequence[int]) -> None:
        self.facts = source.facts
        self._source, self._extract, self._layers = source, extract, tuple(layers)
        self._name, self._choice = "", dict[str, Any]()
        self._backend: Backend | None = None

    def prepare(self, sample: Sequences, stored: dict[str, Any] | None) -> Prepared:
        """Choose, or take the backend of the `stored` numerics, and prepare it; `numerics` then names it."""
        if stored is not None:
            self._open(stored["backend"])
        elif self._backend is None:
            choice = choose_backend(self._source, self._extract, self._layers, sample)
            self._open(choice.backend)
            self._choice = asdict(choice)
        prepared = self._chosen().prepare(sample, stored)
        return replace(prepared, numerics={"backend": self._name, **prepared.numerics}, choice=self._choice)

    def _open(self, name: str) -> None:
        if name != self._name:
            self.close()
            self._backend = load_by_name("backend", name, BACKENDS)(self._source, self._extract, self._layers)
            self._name = name

    def plan(self, block: Sequences) -> Work:
        """As the chosen backend does."""
        return self._chosen().plan(block)

    def run(self, work: Work) -> Iterator[States]:
        """As the chosen backend does."""
        return self._chosen().run(work)

    def unembed(self, states_GH: FloatStates) -> NDArray[np.float32]:
        """As the chosen backend does."""
        return self._chosen().unembed(states_GH)

    def close(self) -> None:
        """Close the chosen backend, if any."""
        backend, self._backend = self._backend, None
        self._name, self._choice = "", {}
        if backend is not None:
            backend.close()

    def _chosen(self) -> Backend:
        if self._backend is None:
            raise RunError("no backend is chosen yet", hint="Call prepare first.")
        return self._backend
