"""Checkpoints in DeepSeek-V3's format: 8-bit floats with a scale for each block."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from support.checkpoints import configure, rewrite

# What DeepSeek-V3 quantises: the projections, of experts too.
QUANTISED = ("_proj.weight", "_proj_with_mqa.weight")


def to_eight_bits(values_OI: Tensor, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, the scale of each block, and the values that these stand for; blocks at an edge may be smaller."""
    codes_OI = torch.empty(values_OI.shape, dtype=torch.float8_e4m3fn)
    meant_OI = torch.empty(values_OI.shape)
    counts = [-(-n // block) for n in values_OI.shape]
    scales = torch.empty(counts)
    for i in range(counts[0]):
        for j in range(counts[1]):
            here = (slice(i * block, (i + 1) * block), slice(j * block, (j + 1) * block))
            scales[i, j] = values_OI[here].float().abs().max() / 448
            codes_OI[here] = (values_OI[here].float() / scales[i, j]).to(torch.float8_e4m3fn)
            meant_OI[here] = codes_OI[here].float() * scales[i, j]
    return codes_OI, scales, meant_OI


def write_eight_bits(folder: Path, block: int = 16, plain: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Quantise a model's weights where they lie; the values that its tensors stand for, in float32.

    plain: dtype of what is not quantised.
    """
    meant: dict[str, Tensor] = {}

    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        out = {}
        for name, values in tensors.items():
            if name.endswith(QUANTISED):
                out[name], out[f"{name}_scale_inv"], meant[name] = to_eight_bits(values, block)
            else:
                out[name] = values.to(plain)
                meant[name] = out[name].float()
        return out

    rewrite(folder, change)
    settings = {"quant_method": "fp8", "weight_block_size": [block, block], "activation_scheme": "dynamic"}
    configure(folder, quantization_config=settings)
    return meant
