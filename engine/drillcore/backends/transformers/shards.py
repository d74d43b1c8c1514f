"""One model shared out over processes of this host, by the plan of transformers; this process is the first of them.

Each holds a part of every decoder layer's weights, and all give the same states after each layer. This process sends
the arguments of every pass of the decoder to the others, which run the same pass. Whatever fails in one of them ends
them all: half a pass must leave no state behind.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import wraps
from typing import IO, Any

import torch
import torch.distributed as dist

from drillcore.backends.device import choose_device, num_threads
from drillcore.backends.source import ModelSource
from drillcore.backends.transformers.fit import build_on_meta
from drillcore.backends.weight_files import first_line
from drillcore.errors import RunError
from drillcore.job.extract import Extract
from drillcore.job.model import Model

HOST = "127.0.0.1"
TRANSPORTS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
# Reading a model may take that long in one process and not in another.
LONGEST_WAIT = timedelta(hours=1)
# Seconds in which a process that failed is gone, and one that is stopped ends.
GRACE = 5.0
READY = b"+"


@dataclass(frozen=True)
class Start:
    """What another process is told first. threads: of each."""

    model: Model
    extract: Extract
    port: int
    rank: int
    threads: int


@dataclass(frozen=True)
class Pass:
    """One pass of the decoder. attention: the function's name. dtype: of the computation; None: the model's own."""

    attention: str
    dtype: torch.dtype | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def threads_of_each(extract: Extract) -> int:
    """CPU threads of each process of a model in shards: together those of the job."""
    return max(1, num_threads(extract) // extract.tensor_parallel)


def plan_argument(source: ModelSource, ranks: int) -> dict[str, Any]:
    """The argument of from_pretrained for a model in so many shards; embedding and head stay whole in each."""
    from transformers.distributed.configuration_utils import DistributedConfig

    whole = {name: "replicate" for name in build_on_meta(source).tp_plan if "*" not in name}
    return {"distributed_config": DistributedConfig(tp_size=ranks, tp_plan=whole or "auto")}


def unwrap(causal: Any) -> None:
    """Put this process's part of each distributed parameter in the parameter's place, as a plain tensor."""
    from torch.distributed.tensor import DTensor

    for module in causal.modules():
        for name, parameter in list(module._parameters.items()):
            if isinstance(parameter, DTensor):
                module._parameters[name] = torch.nn.Parameter(parameter.to_local(), requires_grad=False)


def store_at(port: int) -> Any:
    """Where the processes find each other on this host; port 0 opens it, at a free one, which is its `port`."""
    kind: Any = vars(dist)["TCPStore"]
    return kind(HOST, port, is_master=port == 0, wait_for_workers=False, timeout=LONGEST_WAIT)


def join(store: Any, rank: int, ranks: int, device: torch.device) -> None:
    """Make this process one of those that share a model."""
    if device.type == "cuda":
        torch.cuda.set_device(rank)
    dist.init_process_group(TRANSPORTS[device.type], store=store, rank=rank, world_size=ranks, timeout=LONGEST_WAIT)


class _Peer:
    """Another process of the model. Its standard input carries what it is to do, and ends with this process."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - `stop` closes it
        paths = os.pathsep.join(path for path in sys.path if path)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "drillcore.backends.transformers.shard", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            # Ctrl-C is for the first process, which ends the others.
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": paths, "LOCAL_RANK": str(rank)},
        )

    def send(self, message: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(message)
        self.process.stdin.flush()

    def wait_until_ready(self) -> None:
        """Raise BrokenPipeError where it ended instead."""
        assert self.process.stdout is not None
        if self.process.stdout.read(1) != READY:
            raise BrokenPipeError("it ended before it was ready")

    def ending(self) -> str:
        """How it ended, in words; empty while it runs."""
        status = self.process.poll()
        if status is None:
            return ""
        if status < 0:
            return f"process {self._rank + 1} was killed by signal {-status}"
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return f"process {self._rank + 1} ended with status {status}: {lines[-1] if lines else 'it said nothing'}"

    def stop(self) -> None:
        process = self.process
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._said.close()


class Shards:
    """The other processes of a model; `share` makes them run every pass of its decoder."""

    def __init__(self, source: ModelSource, extract: Extract) -> None:
        """Start them; raises RunError where one ends, or this process shares another model already."""
        self.ranks, self._model, self._device = extract.tensor_parallel, source.model.id, choose_device(extract)
        self._peers: list[_Peer] = []
        self._dtype: torch.dtype | None = None
        self._failure: RunError | None = None
        self._joined = False
        if dist.is_initialized():
            raise RunError(
                f"model {self._model} cannot be shared out: this process is part of a torch distributed group already",
                hint="Close the other Extractor first, or run drillcore in a process of its own.",
            )
        try:
            store = store_at(0)
            # The place where the files are, so that no other process finds others.
            entry = {"id": source.location, "revision": source.revision, "tokenizer": None}
            model = source.model.model_copy(update=entry)
            start = Start(model, extract, store.port, 0, threads_of_each(extract))
            for rank in range(1, self.ranks):
                self._peers.append(_Peer(rank))
                self._peers[-1].send(pickle.dumps(replace(start, rank=rank)))
            self.wait_until_ready()
            join(store, 0, self.ranks, self._device)
            self._joined = True
        except OSError as error:
            raise self._fail(error) from error
        except BaseException as error:
            self._fail(error)
            raise

    def wait_until_ready(self) -> None:
        """Wait until every process has done what it was started for, or has read its shard."""
        try:
            for peer in self._peers:
                peer.wait_until_ready()
        except OSError as error:
            raise self._fail(error) from error

    def share(self, decoder: Any) -> None:
        """Run each pass of this decoder in all processes from now on. Raises RunError in a pass that fails."""
        own = decoder.forward

        @wraps(own)
        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._failure is not None:
                raise self._failure
            try:
                self._send(Pass(decoder.config._attn_implementation, self._dtype, args, kwargs))
                # Another code path, with other messages, runs where gradients are on.
                with torch.inference_mode():
                    output = own(*args, **kwargs)
                self._settle()
            except Exception as error:
                raise self._fail(error) from error
            except BaseException as error:
                self._fail(error)
                raise
            return output

        decoder.forward = forward

    @contextmanager
    def in_precision(self, dtype: torch.dtype) -> Iterator[None]:
        """Inside, the other processes compute in this dtype too."""
        before, self._dtype = self._dtype, dtype
        try:
            yield
        finally:
            self._dtype = before

    def close(self) -> None:
        """End the other processes."""
        peers, self._peers = self._peers, []
        for peer in peers:
            peer.stop()
        if self._failure is None:
            self._failure = RunError(f"model {self._model} is closed", hint="Load it again.")
        if self._joined:
            self._joined = False
            dist.destroy_process_group()

    def _send(self, passed: Pass) -> None:
        passed = replace(passed, args=on_device(passed.args, "cpu"), kwargs=on_device(passed.kwargs, "cpu"))
        message = pickle.dumps(passed)
        for peer in self._peers:
            peer.send(message)

    def _settle(self) -> None:
        """Wait for the pass where it runs on GPUs: one that waits for a process that is gone would wait for ever."""
        if self._device.type != "cuda":
            return
        event = torch.cuda.Event()
        event.record()
        while not event.query():
            if any(peer.ending() for peer in self._peers):
                dist.distributed_c10d._abort_process_group()
                raise BrokenPipeError("a process of the model ended during a pass")
            time.sleep(2e-4)

    def _fail(self, error: BaseException) -> RunError:
        """The error of this model from now on; ends all processes."""
        if self._failure is None:
            what = type(error).__name__
            if isinstance(error, Exception):
                what = "; ".join(self._endings()) or first_line(error)
            self._failure = RunError(
                f"model {self._model}, shared out over {self.ranks} processes, failed: {what}",
                hint="What is committed is kept: run again. Where memory was short: a smaller extract.batch_tokens.",
            )
            self.close()
        return self._failure

    def _endings(self) -> list[str]:
        """How processes ended; waits a little for one that is about to."""
        until = time.monotonic() + GRACE
        while True:
            found = [said for peer in self._peers if (said := peer.ending())]
            if found or time.monotonic() > until:
                return found
            time.sleep(0.05)


def on_device(value: Any, device: Any) -> Any:
    """The same value with every tensor in it on a device.

    >>> on_device({"input_ids": torch.tensor([1]), "use_cache": False}, "cpu")
    {'input_ids': tensor([1]), 'use_cache': False}
    """
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: on_device(part, device) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(on_device(part, device) for part in value)
    return value
