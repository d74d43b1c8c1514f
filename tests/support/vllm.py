"""Real vLLM on tiny models: engines that tests share, and their worker processes; `vllm_fixtures` makes them."""

from __future__ import annotations

from pathlib import Path

import psutil

from drillcore.backends.layers import resolve_layers
from drillcore.backends.source import locate
from drillcore.backends.vllm.backend import VllmBackend
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.tokens.sequences import Sequences

# Tokens of a step, so that the longest sentences are computed in several.
CHUNK = 64
# vLLM's attention on a CPU wants heads of 32 and more.
SIZES = {
    "llama": {"hidden_size": 128, "head_dim": 32, "intermediate_size": 128},
    "gpt2": {"hidden_size": 128, "n_embd": 128},
    "cohere": {"hidden_size": 128, "head_dim": 32, "intermediate_size": 128},
}


def open_vllm(model: str, wanted="all", random_weights=False, **extract):
    source = locate(Model(id=model, random_weights=random_weights), Path("/"))
    asked = Extract(backend="vllm", **{"dtype": "float32", "batch_tokens": CHUNK, **extract})
    return VllmBackend(source, asked, resolve_layers(wanted, source.facts.num_layers))


class Opened:
    """Backends that are prepared, the last few of them."""

    def __init__(self, keep=2):
        self._backends, self._keep = {}, keep

    def get(self, model, wanted="all", **extract):
        key = (model, wanted, *sorted(extract.items()))
        if key not in self._backends:
            while len(self._backends) >= self._keep:
                self._backends.pop(next(iter(self._backends))).close()
            backend = open_vllm(model, wanted, **extract)
            try:
                assert backend.prepare(Sequences.of([]), None).check.passed
            except BaseException:
                backend.close()
                raise
            self._backends[key] = backend
        return self._backends[key]

    def close(self):
        for backend in self._backends.values():
            backend.close()


def workers(of: int | None = None) -> list[psutil.Process]:
    """Processes below this one, or another, that run vLLM's worker."""
    children = []
    for child in psutil.Process(of).children(recursive=True):
        try:
            if child.status() != psutil.STATUS_ZOMBIE and (
                "spawn_main" in " ".join(child.cmdline()) or "VLLM" in child.name()
            ):
                children.append(child)
        except psutil.NoSuchProcess:
            continue
    return children
