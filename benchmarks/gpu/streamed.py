"""Streamed weights on the device: the resident model's states, what each way of holding them takes, and how fast it is.

Four ways on the same sentences, none of them compiled: resident; streamed; streamed with half of the layers staying;
streamed with all that waits in the host's memory.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.ceilings import CUDA, DTYPE
from benchmarks.gpu.models import free_text, random_model
from drillcore.backends.base import all_states, states_of
from drillcore.backends.source import locate
from drillcore.backends.transformers.backend import TransformersBackend
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.tokens.sequences import Sequences

REPEATS = 2
# Of the sentences, those whose states are compared: all layers of them are in memory four times.
COMPARED = 512


def save(config: Mapping[str, Any], folder: Path) -> None:
    """A model with random weights, in files of at most 2 GB."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    causal = random_model(locate(Model(id=str(folder), random_weights=True), Path("/")), DTYPE)
    causal.save_pretrained(folder, max_shard_size="2GB")


def opened(folder: Path, weights: str, sample: Sequences) -> TransformersBackend:
    """A backend for the layers that transformers returns, ready to compute."""
    source = locate(Model(id=str(folder)), Path("/"))
    settings: dict[str, Any] = {"dtype": str(DTYPE).removeprefix("torch."), "weights": weights}
    if CUDA:
        settings |= {"compile": "off", "merge": "off"}
    backend = TransformersBackend(source, Extract(**settings), tuple(range(source.facts.num_layers)))
    backend.prepare(sample, None)
    return backend


def half_stays(backend: TransformersBackend) -> None:
    """Let half of the layers stay in memory."""
    assert backend._loaded.streamed is not None
    backend._loaded.streamed.staying = backend._loaded.cut // 2


def all_waits_in_host(backend: TransformersBackend) -> None:
    """Let whatever waits do so in the host's memory, however much of the device is free."""
    assert backend.sweeps is not None
    room = backend.sweeps._room
    backend.sweeps._room = lambda: replace(room(), memory_bytes=2**60, host_bytes=2**60, leaves=True)


WAYS: dict[str, tuple[str, Callable[[TransformersBackend], None]]] = {
    "resident": ("resident", lambda backend: None),
    "streamed": ("streamed", lambda backend: None),
    "half of the layers stay": ("streamed", half_stays),
    "all waits in the host's memory": ("streamed", all_waits_in_host),
}


def check_streamed(config: Mapping[str, Any], folder: Path, count: int) -> dict[str, Any]:
    """Each way: whether its states are the resident ones, nodes a second, seconds of reading, peak of the device."""
    save(config, folder)
    sentences = free_text(count, config["vocab_size"])
    compared, want = sentences.slice(0, min(COMPARED, count)), None
    rows: dict[str, Any] = {}
    for name, (weights, change) in WAYS.items():
        backend = opened(folder, weights, sentences.slice(0, 8))
        change(backend)
        got = all_states(backend, compared)
        want = got if want is None else want
        if CUDA:
            torch.cuda.reset_peak_memory_stats()
        layers, seconds, work = backend._loaded.streamed, list[float](), backend.lay_out(sentences)
        read = 0.0 if layers is None else layers.read_seconds
        for _ in range(REPEATS):
            started = time.perf_counter()
            states_of(backend, work)
            seconds.append(time.perf_counter() - started)
        rows[name] = {
            "right": bool(np.array_equal(got, want)),
            "nodes_per_second": work.num_nodes / min(seconds),
            "seconds": seconds,
            "read_seconds": 0.0 if layers is None else (layers.read_seconds - read) / REPEATS,
            "device_peak_bytes": torch.cuda.max_memory_allocated() if CUDA else None,
        }
        backend.close()
        del backend, layers
        if CUDA:
            torch.cuda.empty_cache()
        print(name, rows[name], flush=True)
    return rows
