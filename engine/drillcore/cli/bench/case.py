"""One measurement of one case, in a process of its own: `python -m drillcore.cli.bench.case REQUEST.json ANSWER.json`.

A fresh process each time, so that peak memory is the case's own, and one that fails takes nothing with it.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from drillcore.backends import layers as contract
from drillcore.backends.rates import matrix_products
from drillcore.backends.source import ModelSource, locate
from drillcore.backends.timing import pass_seconds
from drillcore.cli.bench.scratch_job import make_job
from drillcore.cli.bench.texts import Lengths, encode, read_texts
from drillcore.errors import DrillcoreError
from drillcore.job.extract import Extract
from drillcore.job.model import Model
from drillcore.runtime.work.tasks import ModelTask
from drillcore.runtime.work.worker import Worker
from drillcore.system.files import write_atomic
from drillcore.system.machine import peak_memory_bytes
from drillcore.tokens.sequences import Sequences

WARM_SENTENCES = 256
# Beside the backends: transformers, with its layers read one after the other.
STREAMED = "streamed"


@dataclass(frozen=True)
class Request:
    """What to measure.

    base: folder that relative model directories start from. texts: file, or None for `lengths`, a distribution.
    num_sentences: at most, or how many random ones. scratch: folder that the store is written into, and removed from.
    """

    model: str
    random_weights: bool
    backend: str
    dtype: str
    batch_tokens: int | str
    base: str
    texts: str | None
    text_field: str
    lengths: str | None
    num_sentences: int | None
    layers: Any
    device: str
    threads: int | str
    scratch: str


@dataclass(frozen=True)
class Sample:
    """The result of one measurement. wall_seconds: from the first token id to the last commit.

    stage_seconds: by step, overlapping; warm_seconds: a first pass over some sentences, compilation included;
    flops: two a parameter (embeddings left out) and useful node; matrix_flops_per_second: of this machine, measured
    before and after, in the model's dtype on its device.
    """

    num_sentences: int
    num_tokens: int
    num_nodes: int
    num_padding: int
    wall_seconds: float
    tokenize_seconds: float
    load_seconds: float
    warm_seconds: float
    stage_seconds: dict[str, float]
    flops: float
    matrix_flops_per_second: float
    peak_host_bytes: int
    peak_device_bytes: int
    committed_bytes: int
    self_check: float
    numerics: dict[str, Any]
    notes: tuple[str, ...] = field(default=())


def measure(request: Request) -> Sample:
    """Load the model, warm it up, run the whole job once; raises an error of the tree in `errors`."""
    source = locate(Model(id=request.model, random_weights=request.random_weights), Path(request.base))
    tokens, tokenize_seconds = _tokens(request, source)
    task = _task(request, source, tokens)
    worker = Worker()
    try:
        return _measure(worker, task, tokens, tokenize_seconds, Path(request.scratch))
    finally:
        worker.close()


def _measure(worker: Worker, task: ModelTask, tokens: Sequences, tokenize_seconds: float, scratch: Path) -> Sample:
    prepared = worker.prepare(task)
    backend = worker.load(task)
    device = "cpu" if prepared.numerics.get("device", "cpu") == "cpu" else "cuda"
    dtype = prepared.numerics.get("dtype", "float32")
    rates = matrix_products(device, dtype)
    used_before = _device_bytes(device)
    warm_seconds = pass_seconds(backend, warm_up_sentences(tokens))
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="bench-") as folder:
        job = make_job(task, backend.facts.num_layers, backend.facts.hidden_size, tokens, Path(folder) / "bench.zarr")
        times = job.run(worker)
    peak_host, peak_device = peak_memory_bytes(), max(used_before, _device_bytes(device))
    rates += matrix_products(device, dtype)
    return Sample(
        num_sentences=len(tokens),
        num_tokens=len(tokens.ids_T),
        num_nodes=times.num_nodes,
        num_padding=times.num_padding,
        wall_seconds=times.wall_seconds,
        tokenize_seconds=tokenize_seconds,
        load_seconds=prepared.load_seconds,
        warm_seconds=warm_seconds,
        stage_seconds=times.stage_seconds,
        flops=2.0 * backend.facts.num_parameters * times.num_nodes,
        matrix_flops_per_second=statistics.median(rates),
        peak_host_bytes=peak_host,
        peak_device_bytes=peak_device,
        committed_bytes=times.committed_bytes,
        self_check=prepared.check.worst,
        numerics=prepared.numerics,
        notes=prepared.notes,
    )


def _tokens(request: Request, source: ModelSource) -> tuple[Sequences, float]:
    if request.texts is not None:
        return encode(source, read_texts(Path(request.texts), request.text_field, request.num_sentences))
    lengths, facts = Lengths.parse(request.lengths or ""), source.facts
    return lengths.sentences(request.num_sentences or 1024, facts.vocab_size, facts.max_tokens), 0.0


def _task(request: Request, source: ModelSource, tokens: Sequences) -> ModelTask:
    extract = Extract.model_validate(
        {
            **({"weights": STREAMED} if request.backend == STREAMED else {"backend": request.backend}),
            "dtype": request.dtype,
            "batch_tokens": request.batch_tokens,
            "device": request.device,
            "threads": request.threads,
            "layers": request.layers,
        }
    )
    wanted = contract.resolve_layers(extract.layers, source.facts.num_layers)
    sample = tokens.slice(0, min(64, len(tokens)))
    return ModelTask(source.model, request.base, extract.backend, extract, wanted, None, sample)


def warm_up_sentences(tokens: Sequences) -> Sequences:
    """At most 256 sentences of every length that there is, the longest among them."""
    order = np.argsort(tokens.lengths_N, kind="stable")
    picked = order[np.linspace(0, len(order) - 1, min(WARM_SENTENCES, len(order))).astype(np.int64)]
    return tokens.take(picked)


def _device_bytes(device: str) -> int:
    """Memory taken on the accelerator: the most this process reserved, or all that is in use where another runs it."""
    if device == "cpu":
        return 0
    import torch

    free, total = torch.cuda.mem_get_info()
    return max(torch.cuda.max_memory_reserved(), total - free)


def main(request_path: str, answer_path: str) -> int:
    """Measure, and write the sample or the error as JSON; returns the exit status."""
    request = Request(**json.loads(Path(request_path).read_text(encoding="utf-8")))
    answer: dict[str, Any]
    try:
        answer = {"sample": asdict(measure(request))}
    except DrillcoreError as error:
        answer = {"error": str(error), "hint": error.hint}
    except Exception as error:  # a case that fails, out of memory for one, is a row that says so
        answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", "hint": ""}
    write_atomic(Path(answer_path), json.dumps(answer).encode())
    return int("error" in answer)


if __name__ == "__main__":
    # Engines leave threads and children behind that would hold the process up.
    status = main(sys.argv[1], sys.argv[2])
    sys.stdout.flush()
    os._exit(status)
