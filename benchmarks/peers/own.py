"""drillcore's own steps as contenders: tokenize, pack, forward, write, the whole job, and the machine's own rate."""

from __future__ import annotations

import os
import shutil
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.peers.workload import Text
from drillcore.backends import layers
from drillcore.backends.base import Prepared
from drillcore.backends.rates import matrix_products
from drillcore.backends.source import ModelSource
from drillcore.cli.bench.scratch_job import JobTimes, ScratchJob, make_job
from drillcore.job.extract import Extract
from drillcore.runtime.work.tasks import ModelTask
from drillcore.runtime.work.worker import Worker
from drillcore.store.layout import Shape, choose_shape
from drillcore.store.shards import encode_shard
from drillcore.tokens.sequences import Sequences
from drillcore.tokens.tokenizer import Tokenizer

# The writer alone is fed so much, whole shards, that start-up does not decide its figure.
WRITE_BYTES = 256 * 2**20
Dtype = Literal["float32", "bfloat16"]
STEPS = ("tokenize", "pack", "forward", "job", "write", "encode", "disk")


@dataclass
class Fed:
    """States in memory for the writer. stored_bytes: their size on disk."""

    shape: Shape
    states: Any
    stored_bytes: int = 0


class Own:
    """One loaded model and the steps to measure."""

    def __init__(self, source: ModelSource, threads: int, scratch: Path, dtype: Dtype = "float32") -> None:
        self.source, self.dtype, self._scratch, self._names = source, dtype, scratch, count()
        extract = Extract(backend="transformers", dtype=dtype, device="cpu", threads=threads)
        wanted = layers.resolve_layers("all", source.facts.num_layers)
        self._task = ModelTask(source.model, "", "transformers", extract, wanted, None, Sequences.of([]))
        self._worker = Worker()
        self._tokenizer = Tokenizer(source.location, "auto", **source.arguments())
        self._fed: dict[str, Fed] = {}
        self.last: dict[str, JobTimes] = {}

    def prepare(self, texts: list[Text]) -> Prepared:
        """Load the model, resolve the numerics and check them, as a run does."""
        sample = Sequences.of([s for text in texts for s in text.tokens.slice(0, min(64, len(text.tokens)))])
        self._task = replace(self._task, sample=sample)
        return self._worker.prepare(self._task)

    def warm(self, text: Text, write_bytes: int = WRITE_BYTES) -> tuple[float, Any]:
        """One whole job: compiles what needs compiling and keeps states for the writer.

        Returns its seconds and the states of the checked sentences.
        """
        job = self._job(text)
        times = job.run(self._worker)
        states = np.asarray(job.states()[:])
        self._feed(text, job.shape, states, write_bytes)
        self._remove(job)
        return times.wall_seconds, states[text.checked]

    def measure(self, step: str, text: Text) -> float:
        """Seconds of one step."""
        measures: dict[str, Callable[[Text], float]] = {
            "tokenize": self._tokenize,
            "pack": self._pack,
            "forward": self._forward,
            "job": self._whole_job,
            "write": self._write,
            "encode": self._encode,
            "disk": self._disk,
        }
        return measures[step](text)

    def matrix(self) -> list[float]:
        """Matrix products of this machine, floating-point operations a second each."""
        return matrix_products("cpu", self.dtype, 5)

    def written(self, text: Text) -> dict[str, int]:
        """What the writer alone is fed with, in bytes and sentences."""
        fed = self._fed[text.name]
        return {"raw_bytes": fed.states.nbytes, "stored_bytes": fed.stored_bytes, "sentences": len(fed.states)}

    def close(self) -> None:
        """Unload the model."""
        self._worker.close()

    def _job(self, text: Text) -> ScratchJob:
        facts = self.source.facts
        return make_job(self._task, facts.num_layers, facts.hidden_size, text.tokens, self._new_folder())

    def _new_folder(self) -> Path:
        return self._scratch / f"{self.dtype}-{next(self._names)}.zarr"

    def _remove(self, job: ScratchJob) -> None:
        shutil.rmtree(job.tasks[0].store)

    def _tokenize(self, text: Text) -> float:
        started = time.perf_counter()
        self._tokenizer.encode(text.sentences)
        return time.perf_counter() - started

    def _blocks(self, text: Text) -> list[Sequences]:
        job = self._job(text)
        self._remove(job)
        return [task.tokens for task in job.tasks]

    def _pack(self, text: Text) -> float:
        backend, blocks = self._worker.load(self._task), self._blocks(text)
        started = time.perf_counter()
        for block in blocks:
            backend.lay_out(block)
        return time.perf_counter() - started

    def _forward(self, text: Text) -> float:
        backend = self._worker.load(self._task)
        works = [backend.lay_out(block) for block in self._blocks(text)]
        started = time.perf_counter()
        for work in works:
            for _ in backend.run(work):
                pass
        return time.perf_counter() - started

    def _whole_job(self, text: Text) -> float:
        job = self._job(text)
        self.last[text.name] = job.run(self._worker)
        self._remove(job)
        return self.last[text.name].wall_seconds

    def _feed(self, text: Text, shape: Shape, states: Any, write_bytes: int) -> None:
        times = max(1, -(-write_bytes // states.nbytes))
        states = np.concatenate([states] * times)
        whole = choose_shape(len(states), shape.layers, shape.layer_names, shape.hidden_size, shape.store_dtype)
        self._fed[text.name] = Fed(whole, states[: max(1, len(states) // whole.shard) * whole.shard])

    def _write(self, text: Text) -> float:
        """Commit from memory, one shard after the other, as the writing thread does."""
        fed = self._fed[text.name]
        tokens = Sequences(np.zeros(len(fed.states), np.int32), np.arange(len(fed.states) + 1))
        facts = self.source.facts
        job = make_job(self._task, facts.num_layers, facts.hidden_size, tokens, self._new_folder())
        absmax = np.zeros(len(fed.shape.layers), np.float32)
        started = time.perf_counter()
        for task in job.tasks:
            for shard in range(task.block.first_shard, task.block.first_shard + len(task.block.fingerprints)):
                low, high = job.shape.bounds(shard)
                self._worker.sink.commit(task, shard, fed.states[low:high], absmax)
        seconds = time.perf_counter() - started
        folder = Path(job.tasks[0].store) / job.group.path / "hidden_states"
        fed.stored_bytes = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        self._remove(job)
        return seconds

    def _encode(self, text: Text) -> float:
        """The same shards, their bytes discarded: what encoding alone takes."""
        fed = self._fed[text.name]
        started = time.perf_counter()
        for low in range(0, len(fed.states), fed.shape.shard):
            deque(encode_shard(fed.states[low : low + fed.shape.shard], fed.shape), maxlen=0)
        return time.perf_counter() - started

    def _disk(self, text: Text) -> float:
        """As many bytes as were stored, as plain files flushed to disk: what the disk alone takes."""
        fed = self._fed[text.name]
        num_files = -(-len(fed.states) // fed.shape.shard)
        data = np.random.default_rng(0).bytes(max(1, fed.stored_bytes // num_files))
        folder = self._new_folder()
        folder.mkdir()
        started = time.perf_counter()
        for i in range(num_files):
            with (folder / str(i)).open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        seconds = time.perf_counter() - started
        shutil.rmtree(folder)
        return seconds
