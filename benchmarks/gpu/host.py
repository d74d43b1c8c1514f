"""What becomes of states after the device: casts, gathers, encoding and writing, single threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.ceilings import CUDA, median_seconds, write_flushed
from drillcore.store.layout import choose_shape
from drillcore.store.shards import encode_shard

# Gathered nodes, layers and hidden size of a batch of an 8B model, and of a toy.
BATCH, TOY_BATCH = (1260, 34, 4096), (64, 6, 256)


def host_rates(out: Path) -> dict[str, Any]:
    """Values a second of casts and gathers, bytes a second of encoding a shard and of writing it to several places."""
    num_nodes, num_layers, hidden = BATCH if CUDA else TOY_BATCH
    states = torch.randn(num_nodes, num_layers, hidden).bfloat16()
    wide = states.float().numpy()
    narrow = wide.astype(np.float16)
    rows = np.random.default_rng(0).permutation(num_nodes)
    target = np.empty_like(narrow)

    def gather(values: np.ndarray) -> None:
        target[...] = values[rows]

    rates: dict[str, Any] = {
        "bfloat16_to_float32_values": wide.size / median_seconds(states.float),
        "gather_and_cast_values": wide.size / median_seconds(lambda: gather(wide)),
        "gather_float16_values": wide.size / median_seconds(lambda: gather(narrow)),
    }
    layers = tuple(range(num_layers))
    shape = choose_shape(4096, layers, [str(k) for k in layers], hidden, "float16")
    shard = narrow[np.arange(shape.shard) % num_nodes]
    rates["encode_bytes"] = shard.nbytes / median_seconds(lambda: [None for _ in encode_shard(shard, shape)])
    pieces = list(encode_shard(shard, shape))
    for folder in (out, Path("/dev/shm"), Path("/tmp")):
        path = folder / "drillcore-host-rates"
        try:
            seconds = median_seconds(lambda path=path: write_flushed(path, pieces))
            rates[f"write {folder}"] = sum(map(len, pieces)) / seconds
            path.unlink()
        except OSError as error:
            rates[f"write {folder}"] = str(error)
    return rates
