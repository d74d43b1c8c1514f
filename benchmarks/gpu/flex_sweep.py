"""FlexAttention's own options at the shapes of attention of the benchmark's models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention.flex_attention import flex_attention

from benchmarks.gpu.ceilings import CUDA, DEVICE, DTYPE, median_seconds
from benchmarks.gpu.models import TEXTS
from drillcore.backends.transformers import flex_attention as flex
from drillcore.tokens.batches import Batch, batches
from drillcore.tokens.packs import build_packs
from drillcore.tokens.widths import PackRule

# A batch is one row.
WIDTH = 32_768 if CUDA else 1024
# Heads, heads of keys and values, head size.
SHAPES = ((9, 3, 64), (32, 8, 64), (32, 8, 128)) if CUDA else ((4, 2, 32),)
SAFE = {"ROWS_GUARANTEED_SAFE": True}
# Name, width of a tile of the mask, options of the kernel. Each node sees itself, so every row has something to see.
OPTIONS: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("default", 128, {}),
    ("safe rows", 128, SAFE),
    ("tma", 128, {**SAFE, "USE_TMA": True}),
    ("64x64", 64, {**SAFE, "BLOCK_M": 64, "BLOCK_N": 64, "num_warps": 4, "num_stages": 3}),
    ("128x64", 128, {**SAFE, "BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 3}),
)


def flex_sweep() -> dict[str, dict[str, Any]]:
    """Milliseconds of attention by shape and options, and the largest difference from the default's output."""
    tokens = TEXTS["free text"](4000, 49_152)
    batch = next(iter(batches(build_packs(tokens, PackRule(WIDTH)), WIDTH)))
    rows = {}
    for shape in SHAPES:
        default: list[torch.Tensor] = []
        for name, tile, options in OPTIONS if CUDA else OPTIONS[:2]:
            key = f"{shape[0]}/{shape[1]}x{shape[2]} {name}"
            try:
                rows[key] = _measure(_attention(batch, shape, tile, options), default)
            except Exception as error:  # an option that this version does not take is a result
                rows[key] = {"error": f"{type(error).__name__}: {error}"[:300]}
            print(key, rows[key], flush=True)
    return rows


def _attention(
    batch: Batch, shape: tuple[int, int, int], tile: int, options: dict[str, Any]
) -> Callable[[], torch.Tensor]:
    """A call of compiled attention on a batch's mask."""
    heads, kv_heads, size = shape
    num_rows = len(batch.token_ids_RW)
    ends, depths = (torch.tensor(a[:num_rows], device=DEVICE) for a in (batch.subtree_end_RW, batch.position_ids_RW))
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(num_rows, WIDTH, n, size, device=DEVICE, dtype=DTYPE).transpose(1, 2)
        for n in (heads, kv_heads, kv_heads)
    )
    before = flex.TILE
    flex.TILE = tile
    try:
        mask = flex.PackMask(num_rows, WIDTH, None, torch.device(DEVICE)).fill(ends, depths)
    finally:
        flex.TILE = before
    call = torch.compile(flex_attention, dynamic=False)
    settings = {"block_mask": mask, "enable_gqa": heads != kv_heads, "kernel_options": options or None}
    return lambda: call(query, key, value, **settings)


def _measure(call: Callable[[], torch.Tensor], default: list[torch.Tensor]) -> dict[str, float]:
    with torch.inference_mode():
        output = call()
        default[:] = default or [output]
        milliseconds = median_seconds(call, 20, 3) * 1e3
    return {"milliseconds": milliseconds, "difference": float((output - default[0]).float().abs().max())}
