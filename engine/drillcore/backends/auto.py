"""The `auto` backend: measures the others on the job's sentences when a model is prepared, then is the faster one.

The stored numerics keep the choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.backends import load_backend, versions_of
from drillcore.backends.alone import Alone
from drillcore.backends.base import Backend, FloatStates, Prepared, States, Work
from drillcore.backends.device import host_hardware
from drillcore.backends.source import ModelSource, identity
from drillcore.backends.timing import pass_seconds
from drillcore.backends.transformers import refusals as plain
from drillcore.backends.vllm import refusals as vllm
from drillcore.errors import DrillcoreError, InputError, MissingExtraError, RunError
from drillcore.job.extract import Extract
from drillcore.system.cached import Entry, Opened
from drillcore.system.files import cache_dir, digest
from drillcore.system.machine import num_cores
from drillcore.tokens.places import Places
from drillcore.tokens.sequences import Sequences

# Sentences that are timed: as many as the first backend runs in PASS_SECONDS, within these bounds.
MIN_SAMPLE, MAX_SAMPLE = 8, 256
PASS_SECONDS = 5.0
# The fastest pass counts, since other work on the machine can only slow one down.
PASSES = 3


def check(source: ModelSource | None, extract: Extract) -> None:
    """Refuse what neither takes; where a model is not to be shared out over devices, transformers takes it."""
    if extract.tensor_parallel > 1:
        _sharing(source, extract)


def versions() -> dict[str, str]:
    """Empty: the chosen backend, which the numerics name, decides bytes."""
    return {}


class AutoBackend:
    """A model whose backend is still open until `prepare`."""

    def __init__(self, source: ModelSource, extract: Extract, layers: Sequence[int]) -> None:
        self.facts = source.facts
        self._source, self._extract = source, extract
        self._layers = tuple(layers)
        self._name, self._choice = "", dict[str, Any]()
        self._backend: Backend | None = None

    def alone(self, sentences: Sequences, places: Places | None = None) -> Alone:
        """States of each sentence alone by transformers; no backend need be chosen yet."""
        from drillcore.backends.transformers.plain import alone_states

        return alone_states(self._source, self._extract, self._layers, sentences, places)

    def prepare(self, sample: Sequences, stored: dict[str, Any] | None) -> Prepared:
        """Choose a backend, or take that of the `stored` numerics, and prepare it; the numerics then name it."""
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
            self._backend = load_backend(name, self._source, self._extract, self._layers)
            self._name = name

    def lay_out(self, block: Sequences) -> Work:
        """As the chosen backend does."""
        return self._chosen().lay_out(block)

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


@dataclass(frozen=True)
class Choice:
    """The backend of a model and why; JSON-ready.

    measured: by backend, sentences_per_second and prepare_seconds; empty if nothing had to be measured.
    """

    backend: str
    reason: str
    measured: dict[str, dict[str, float]] = field(default_factory=dict)


def choose_backend(source: ModelSource, extract: Extract, layers: Sequence[int], sentences: Sequences) -> Choice:
    """Time `transformers` and vLLM on some of these sentences, the same for both, and take the faster.

    Nothing is timed if vLLM is not installed or refuses the model, or if several devices share it. Raises JobError if
    neither can run the job.
    """
    if extract.tensor_parallel > 1:
        return _sharing(source, extract)
    try:
        vllm.check(source, extract)
    except InputError as error:
        return _only("transformers", error)
    sample = sentences.slice(0, min(MAX_SAMPLE, len(sentences)))
    entry = _entry(source, extract, layers, sample)
    kept = entry.read(_kept)
    if kept is not None:
        return kept
    choice, lasting = _measure_both(source, extract, layers, sample)
    if lasting:
        entry.write(asdict(choice))
    return choice


def _sharing(source: ModelSource | None, extract: Extract) -> Choice:
    """vLLM where it takes a model that several devices share, else transformers; raises what refuses that."""
    try:
        vllm.check(source, extract)
    except MissingExtraError as error:
        plain.check(source, extract)
        return _only("transformers", error)
    except InputError as error:
        try:
            plain.check(source, extract)
        except InputError:
            raise error from None
        return _only("transformers", error)
    return Choice("vllm", f"vllm, since extract.tensor_parallel is {extract.tensor_parallel}")


def _measure_both(
    source: ModelSource, extract: Extract, layers: Sequence[int], sample: Sequences
) -> tuple[Choice, bool]:
    """The choice, and whether to keep it: too little memory now may be enough another time."""
    measured: dict[str, dict[str, float]] = {}
    for name, other in (("vllm", "transformers"), ("transformers", "vllm")):
        try:
            sample, measured[name] = _measure(name, source, extract, layers, sample, first=not measured)
        except DrillcoreError as error:
            return _only(other, error), isinstance(error, InputError)
    best, other = sorted(measured, key=lambda name: -measured[name]["sentences_per_second"])
    rate, slower = (measured[name]["sentences_per_second"] for name in (best, other))
    reason = (
        f"{best}: measured {rate / max(slower, 1e-9):.2f} times as fast as {other} on {len(sample)} of this job's "
        f"sentences ({rate:,.1f} and {slower:,.1f} sentences/s)"
    )
    return Choice(best, reason, measured), True


def _only(backend: str, error: DrillcoreError) -> Choice:
    """The only choice left after an error of the other backend."""
    return Choice(backend, f"{backend}, since {error}")


def _measure(
    name: str, source: ModelSource, extract: Extract, layers: Sequence[int], sample: Sequences, first: bool
) -> tuple[Sequences, dict[str, float]]:
    """The timed sentences and the figures; the `first` backend decides how many sentences."""
    backend = load_backend(name, source, extract, layers)
    try:
        prepared = backend.prepare(sample, None)
        if first:
            few = sample.slice(0, min(MIN_SAMPLE, len(sample)))
            spent = min(pass_seconds(backend, backend.lay_out(few)) for _ in range(2))
            count = max(MIN_SAMPLE, int(len(few) * PASS_SECONDS / max(spent, 1e-9)))
            sample = sample.slice(0, min(count, len(sample)))
        work = backend.lay_out(sample)
        spent = min(pass_seconds(backend, work) for _ in range(PASSES))
    finally:
        backend.close()
    return sample, {
        "sentences_per_second": round(len(sample) / max(spent, 1e-9), 2),
        "prepare_seconds": round(prepared.load_seconds, 2),
    }


def _kept(opened: Opened) -> Choice:
    """The choice that an entry holds; raises ValueError or TypeError where it holds something else."""
    choice = Choice(**opened.facts)
    if choice.backend not in ("transformers", "vllm") or not isinstance(choice.measured, dict):
        raise ValueError
    return choice


# Fields of a model that its identity holds, or that decide nothing.
IN_IDENTITY = {"id", "as_", "revision", "adapter_revision", "quantization", "offload"}


def _entry(source: ModelSource, extract: Extract, layers: Sequence[int], sample: Sequences) -> Entry:
    """The place in the cache of the choice for this model, job section, sample and machine."""
    about = {
        "model": identity(source),
        "model_settings": source.model.model_dump(mode="json", exclude=IN_IDENTITY),
        "extract": extract.model_dump(mode="json"),
        "layers": list(layers),
        "versions": versions_of("transformers") | versions_of("vllm"),
        "hardware": asdict(host_hardware(extract)),
        "cores": num_cores(),
        "sample": [sample.lengths_N.tolist(), sample.ids_T.tolist()],
    }
    return Entry(cache_dir() / "choices", digest(about), "the choice of a backend")
