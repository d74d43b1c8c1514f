"""Which backend runs a model, where the job leaves it open: the one that was measured to be faster on its sentences."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from drillcore.backends import BACKENDS
from drillcore.backends.base import Backend
from drillcore.backends.catalog import Source
from drillcore.errors import DrillcoreError
from drillcore.job import Extract
from drillcore.plugins import load_by_name
from drillcore.sequences import Sequences

CANDIDATES = ("transformers", "vllm")
# Sentences that are timed, and those that run before: the first pass pays for what is made once.
SAMPLE, WARM_UP = 256, 8


@dataclass(frozen=True)
class Choice:
    """The backend of a model and why; JSON-ready.

    measured: by backend, sentences_per_second and prepare_seconds, or the error that ruled it out.
    """

    backend: str
    reason: str
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)


def choose_backend(source: Source, extract: Extract, layers: Sequence[int], sentences: Sequences) -> Choice:
    """Time each backend that takes the model on the first `SAMPLE` of these sentences, and take the faster.

    Raises the error of `transformers` where no backend takes the model.
    """
    if extract.tensor_parallel > 1:
        return Choice("vllm", f"tensor_parallel is {extract.tensor_parallel}, which transformers does not offer")
    measured: dict[str, dict[str, Any]] = {}
    errors: dict[str, DrillcoreError] = {}
    sample = sentences.slice(0, min(SAMPLE, len(sentences)))
    for name in CANDIDATES:
        try:
            measured[name] = _measure(name, source, extract, layers, sample)
        except DrillcoreError as error:
            errors[name], measured[name] = error, {"error": str(error)}
    rates = {name: found["sentences_per_second"] for name, found in measured.items() if "error" not in found}
    if not rates:
        raise errors["transformers"]
    best = max(rates, key=rates.__getitem__)
    return Choice(best, _reason(best, rates, errors, len(sample)), measured)


def _measure(name: str, source: Source, extract: Extract, layers: Sequence[int], sample: Sequences) -> dict[str, float]:
    backend: Backend = load_by_name("backend", name, BACKENDS)(source, extract, layers)
    try:
        prepared = backend.prepare(sample.slice(0, min(WARM_UP, len(sample))), None)
        for _ in backend.run(backend.plan(sample.slice(0, min(WARM_UP, len(sample))))):
            pass
        started = time.perf_counter()
        for _ in backend.run(backend.plan(sample)):
            pass
        spent = time.perf_counter() - started
    finally:
        backend.close()
    return {
        "sentences_per_second": round(len(sample) / max(spent, 1e-9), 2),
        "prepare_seconds": round(prepared.load_seconds, 2),
    }


def _reason(best: str, rates: dict[str, float], errors: dict[str, DrillcoreError], num_sentences: int) -> str:
    other = next((name for name in CANDIDATES if name != best), best)
    if other in errors:
        return f"{best}, since {errors[other]}"
    return (
        f"{best}, measured {rates[best] / max(rates[other], 1e-9):.2f} times as fast as {other} on this job's first "
        f"{num_sentences} sentences ({rates[best]:,.1f} and {rates[other]:,.1f} sentences/s)"
    )
