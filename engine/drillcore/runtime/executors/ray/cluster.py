"""The Ray cluster of a run: an existing one, or a small one on this machine that is started and stopped by the run."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drillcore.errors import JobError
from drillcore.job.extract import Extract
from drillcore.system.machine import num_cores

# Ray's sockets lie below its folder, and a socket's path may have 107 characters.
LONGEST_TEMP = 30


@dataclass(frozen=True)
class Size:
    """How a cluster is divided into workers: how many, and the GPUs and CPU cores of each as Ray counts them.

    threads: CPU threads of a forward pass. accelerator: kind of GPU, where the cluster has several kinds.
    """

    num_workers: int
    gpus: int
    cpus: int
    threads: int
    accelerator: str | None = None

    def on(self, node: Mapping[str, float]) -> int:
        """How many workers have room on a node, given by its resources."""
        return int(node.get("GPU", 0) // self.gpus if self.gpus else node.get("CPU", 0) // self.cpus)

    def beside(self, nodes: Sequence[Mapping[str, Any]], node_id: str) -> int:
        """Workers on the machine of a node, as `ray.nodes` tells of all: Ray may have several nodes on a machine."""
        host = next((n["NodeManagerHostname"] for n in nodes if n["NodeID"] == node_id), None)
        here = [n["Resources"] for n in nodes if n["Alive"] and n["NodeManagerHostname"] == host]
        return max(1, sum(map(self.on, here)))

    def __str__(self) -> str:
        kind = f" {self.accelerator}" if self.accelerator else ""
        return f"{self.gpus}{kind} GPU and {self.cpus} CPU cores" if self.gpus else f"{self.cpus} CPU cores"


def share_out(nodes: Sequence[Mapping[str, float]], extract: Extract) -> Size:
    """Divide nodes, given by their resources under Ray's names, into workers.

    Raises JobError where the job asks for what no node has.

    >>> str(share_out([{"CPU": 8.0}, {"CPU": 8.0}], Extract(threads=4)))
    '4 CPU cores'
    """
    if extract.device.startswith("cuda:"):
        raise JobError(
            f"extract.device: {extract.device} names a device of one machine",
            hint="With run.executor: ray it is auto, cuda or cpu; Ray gives each worker its own GPU.",
        )
    with_gpus = [n for n in nodes if n.get("GPU", 0) >= 1]
    if extract.device == "cuda" and not with_gpus:
        raise JobError("extract.device: cuda, but the Ray cluster has no GPU", hint="Use auto or cpu.")
    return _by_cores(nodes, extract) if extract.device == "cpu" or not with_gpus else _by_gpus(with_gpus, extract)


def _by_gpus(nodes: Sequence[Mapping[str, float]], extract: Extract) -> Size:
    """One worker for each `tensor_parallel` GPUs of one kind, since bits differ between kinds."""
    gpus_of: dict[str, int] = {}
    for node in nodes:
        gpus_of[_kind(node)] = gpus_of.get(_kind(node), 0) + int(node["GPU"])
    kind = max(sorted(gpus_of), key=gpus_of.__getitem__)
    size = extract.tensor_parallel
    chosen = [n for n in nodes if _kind(n) == kind and n["GPU"] >= size]
    if not chosen:
        raise JobError(
            f"extract.tensor_parallel: {size}, but no node of the Ray cluster has so many GPUs of one kind",
            hint=f"The largest has {max(int(n['GPU']) for n in nodes)}.",
        )
    cpus = max(1, min(int(n.get("CPU", 1) // (n["GPU"] // size)) for n in chosen))
    threads = cpus if extract.threads == "auto" else extract.threads
    workers = sum(int(n["GPU"]) // size for n in chosen)
    return Size(workers, size, cpus, threads, kind if len(gpus_of) > 1 else None)


def _kind(node: Mapping[str, float]) -> str:
    return next((name.partition(":")[2] for name in node if name.startswith("accelerator_type:")), "")


def _by_cores(nodes: Sequence[Mapping[str, float]], extract: Extract) -> Size:
    """One worker for each `threads` CPU cores."""
    cores = [int(n.get("CPU", 0)) for n in nodes if n.get("CPU", 0) >= 1]
    threads = min(cores, default=0) if extract.threads == "auto" else extract.threads
    workers = sum(c // threads for c in cores) if threads else 0
    if not workers:
        raise JobError(
            f"extract.threads: {extract.threads}, but no node of the Ray cluster has so many CPU cores",
            hint=f"The largest has {max(cores, default=0)}.",
        )
    return Size(workers, 0, threads, threads)


class Cluster:
    """A connection to Ray; starts a cluster where the job names none, and stops it in `close`."""

    def __init__(self, address: str | None) -> None:
        if address is not None and address.startswith("ray://"):
            raise JobError(
                f"run.address: {address} is a Ray Client address",
                hint="Run on a machine of the cluster with run.address: auto, or with `ray job submit`.",
            )
        self._address, self._temp = address, None if address else _temp_folder()
        self._ours = False
        # Ray replaces `print` with a function of its own, and then numba cannot compile what UMAP needs.
        os.environ.setdefault("RAY_TQDM_PATCH_PRINT", "0")
        if address is None and "ray" not in sys.modules:
            _keep_to_this_machine()
        import ray

        self.ray: Any = ray

    def connect(self) -> None:
        """Connect or start, unless this process is connected already; raises JobError where no cluster answers."""
        if self.ray.is_initialized():
            return
        before = signal.getsignal(signal.SIGTERM)
        try:
            self._init()
        finally:
            # Ray's own handler would end this process without a word about the unfinished store.
            if before is not None and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)

    def _init(self) -> None:
        common = {"log_to_driver": False, "logging_level": logging.ERROR, "namespace": "drillcore"}
        self._ours = True
        if self._temp is not None:
            cores = num_cores()
            self.ray.init(
                address="local",
                num_cpus=cores,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                _temp_dir=str(self._temp),
                **common,
            )
            return
        try:
            self.ray.init(address=self._address, **common)
        except (ConnectionError, RuntimeError, ValueError, AssertionError) as error:
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise JobError(
                f"run.address: {self._address}: {first}",
                hint="Is Ray running there (`ray status`), with this machine's versions of Ray and Python? "
                "A cluster that asks for a token needs RAY_AUTH_MODE=token here too.",
            ) from error

    def nodes(self) -> list[dict[str, float]]:
        """Resources of every node that is alive."""
        return [n["Resources"] for n in self.ray.nodes() if n["Alive"]]

    def keep_logs(self) -> str | None:
        """Keep Ray's logs beyond `close`; returns their folder, None for a cluster that was not started here."""
        folder, self._temp = self._temp, None
        return str(folder / "session_latest" / "logs") if folder is not None else None

    def close(self) -> None:
        """Disconnect, and end every process of a cluster that was started here."""
        if self._ours:
            self.ray.shutdown()
            self._ours = False
        if self._temp is not None:
            shutil.rmtree(self._temp, ignore_errors=True)


def _keep_to_this_machine() -> None:
    """Let the cluster of one run refuse connections from outside, and all that lack its token.

    Ray reads the environment when it is imported; left to itself it would write a token into the home folder, which
    changes what clusters started later ask for.
    """
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _temp_folder() -> Path:
    base = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="drillcore-ray-", dir=base if len(base) <= LONGEST_TEMP else "/tmp"))
