"""What the machine itself can do, measured in the process that is compared with it."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

CUDA = torch.cuda.is_available()
DEVICE, DTYPE = ("cuda", torch.bfloat16) if CUDA else ("cpu", torch.float32)


def synchronise() -> None:
    """Wait for the device."""
    if CUDA:
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], Any]) -> float:
    """Seconds of a call, the device waited for."""
    synchronise()
    started = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - started


def median_seconds(work: Callable[[], Any], repeats: int = 3, warm: int = 1) -> float:
    """The median of some calls, after others that do not count."""
    for _ in range(warm):
        work()
    return statistics.median(seconds_of(work) for _ in range(repeats))


def ceilings(scratch: Path, *, small: bool) -> dict[str, float]:
    """Operations a second of matrix products in the dtype that models run in, and bytes a second of copies and disk."""
    side, num_bytes = (256, 1 << 20) if small else (8192, 1 << 30)
    # Random data: zeros draw less power and run faster than anything real.
    a, b = (torch.randn(side, side, device=DEVICE, dtype=DTYPE) for _ in range(2))
    data = torch.randint(0, 255, (num_bytes,), dtype=torch.uint8, device=DEVICE)
    host = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=CUDA)
    other = torch.empty_like(data)
    rates = {
        "matmul_flops": 2 * side**3 / median_seconds(lambda: a @ b, 20, 3),
        "device_copy_bytes": num_bytes / median_seconds(lambda: other.copy_(data), 10),
        "host_copy_bytes": num_bytes / median_seconds(lambda: host.copy_(data, non_blocking=True), 5),
    }
    raw = host.numpy().tobytes()
    rates["disk_write_bytes"] = num_bytes / median_seconds(lambda: write_flushed(scratch / "ceiling", [raw]), 3)
    (scratch / "ceiling").unlink()
    return rates


def write_flushed(path: Path, pieces: list[Any]) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("wb") as stream:
        stream.writelines(pieces)
        stream.flush()
        os.fsync(stream.fileno())


def products(configs: Mapping[str, Mapping[str, Any]], num_nodes: int) -> dict[str, dict[str, float]]:
    """Milliseconds and operations a second of one decoder layer's matrix products, by model.

    `single`: each as the model has it; `merged`: query, key and value in one, gate and up in one.
    """
    rates = {}
    for name, config in configs.items():
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        query, key = (config[n] * config["head_dim"] for n in ("num_attention_heads", "num_key_value_heads"))
        shapes = {
            "single": [(hidden, query), *[(hidden, key)] * 2, (query, hidden), *[(hidden, inner)] * 2, (inner, hidden)],
            "merged": [(hidden, query + 2 * key), (query, hidden), (hidden, 2 * inner), (inner, hidden)],
        }
        for way, pairs in shapes.items():
            seconds = sum(_product_seconds(num_nodes, wide, out) for wide, out in pairs)
            flops = sum(2.0 * num_nodes * wide * out for wide, out in pairs)
            rates[f"{name} {way}"] = {"milliseconds": seconds * 1e3, "flops_per_second": flops / seconds}
        if CUDA:
            torch.cuda.empty_cache()
    return rates


def _product_seconds(num_nodes: int, wide: int, out: int) -> float:
    inputs = torch.randn(num_nodes, wide, device=DEVICE, dtype=DTYPE)
    weight = torch.randn(out, wide, device=DEVICE, dtype=DTYPE)
    return median_seconds(lambda: torch.nn.functional.linear(inputs, weight), 5, 2)
