"""What a worker computes with, as far as it decides bytes: device, threads, and its share of the host's memory."""

from __future__ import annotations

import os
from dataclasses import dataclass

from drillcore.job.fields import Extract


@dataclass(frozen=True)
class Hardware:
    """One worker's.

    device: name of the GPU, or the CPU's instruction set. threads: CPU threads of a forward pass. memory_bytes: the
    host's memory over the workers that the host has room for, so that blocks are as large whichever executor runs them.
    num_workers: how many share the work. gpus: that one worker has.
    """

    device: str
    threads: int
    memory_bytes: int
    num_workers: int = 1
    gpus: int = 0


def host_hardware(extract: Extract, gpus_on_host: int | None = None) -> Hardware:
    """That of a worker on this host.

    gpus_on_host: where this process sees only some of them.
    """
    import torch

    cores = len(os.sched_getaffinity(0))
    threads = cores if extract.threads == "auto" else extract.threads
    on_gpu = extract.device != "cpu" and torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else torch.backends.cpu.get_cpu_capability()
    gpus = gpus_on_host or torch.cuda.device_count()
    workers = gpus // extract.tensor_parallel if on_gpu else cores // threads
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Hardware(device, threads, memory // max(1, workers), gpus=extract.tensor_parallel if on_gpu else 0)
