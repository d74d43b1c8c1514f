"""The machine's rate of matrix products."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

# Large enough to run at full speed, small enough to be done in a moment.
CPU_SIDE, CUDA_SIDE = 2048, 8192
# Below, bfloat16's products gain too little for its rounding.
WORTHWHILE = 1.3


def matrix_products(device: str, dtype: str, count: int = 8) -> list[float]:
    """Floating-point operations a second of `count` square matrix products, one after the other.

    The faster of PyTorch's product and, on a CPU in float32 or bfloat16, oneDNN's with weights laid out for it. The
    first of each, which allocates, is left out. Uses as many threads as torch is set to.
    """
    import torch

    from drillcore.backends.transformers.cpu_linears import is_available, prepared

    side = CPU_SIDE if device == "cpu" else CUDA_SIDE
    kind: torch.dtype = getattr(torch, dtype)
    with torch.inference_mode():
        linear = torch.nn.Linear(side, side, bias=False, dtype=kind, device=device)
        states = torch.randn(side, side, dtype=kind, device=device)
        ways: list[Callable[[Any], Any]] = [linear]
        if device == "cpu" and dtype in ("float32", "bfloat16") and is_available():
            ways.append(prepared(linear.weight.detach(), None, side))
        return max(([_product_rate(way, states) for _ in range(count + 1)][1:] for way in ways), key=statistics.median)


def _product_rate(way: Callable[[Any], Any], states: Any) -> float:
    started = time.perf_counter()
    way(states)
    if states.is_cuda:
        import torch

        torch.cuda.synchronize()
    return float(2.0 * len(states) ** 3 / (time.perf_counter() - started))


def bfloat16_gain(device: str) -> float:
    """How many times as fast as in float32 this machine multiplies in bfloat16; with matrix units, two to ten times."""
    return matrix_rate(device, "bfloat16", 5) / matrix_rate(device, "float32", 5)


def matrix_rate(device: str, dtype: str, count: int = 8) -> float:
    """The median of `matrix_products`."""
    return statistics.median(matrix_products(device, dtype, count))
