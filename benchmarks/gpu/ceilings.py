"""What the machine itself can do, measured in the process that is compared with it."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def synchronise() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _median(work: Callable[[], Any], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        synchronise()
        started = time.perf_counter()
        work()
        synchronise()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def ceilings(scratch: Path, *, small: bool) -> dict[str, float]:
    """Operations a second of matrix products in the dtype that models run in, and bytes a second of copies and disk."""
    cuda = torch.cuda.is_available()
    device, dtype = ("cuda", torch.bfloat16) if cuda else ("cpu", torch.float32)
    side, copied = (256, 1 << 20) if small else (8192, 1 << 30)
    # Random data: zeros draw less power and run faster than anything real.
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    data = torch.randint(0, 255, (copied,), dtype=torch.uint8, device=device)
    host = torch.empty(copied, dtype=torch.uint8, pin_memory=cuda)
    other = torch.empty_like(data)
    found = {
        "matmul_flops": 2 * side**3 / _median(lambda: a @ b, 20),
        "device_copy_bytes": copied / _median(lambda: other.copy_(data), 5),
        "host_copy_bytes": copied / _median(lambda: host.copy_(data), 5),
    }
    raw = host.numpy().tobytes()

    def write() -> None:
        with (scratch / "ceiling").open("wb") as stream:
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())

    found["disk_write_bytes"] = copied / _median(write, 3)
    (scratch / "ceiling").unlink()
    return found
