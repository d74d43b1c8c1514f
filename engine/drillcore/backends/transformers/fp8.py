"""transformers' quantiser of block-quantised 8-bit floats, put right where it dequantises weights as it reads them.

What is taken of `transformers` here is importable and not documented: this module alone uses it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import FineGrainedFP8Config
from transformers.core_model_loading import build_glob_alternation
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING, register_quantization_config, register_quantizer
from transformers.quantizers.quantizer_finegrained_fp8 import FineGrainedFP8HfQuantizer

if not hasattr(FineGrainedFP8HfQuantizer, "get_load_operations"):
    raise ImportError("its FineGrainedFP8HfQuantizer has no get_load_operations")
# The name that transformers knows this quantiser by.
METHOD = "fp8-dequantized-by-drillcore"
CODES = (torch.float8_e4m3fn, torch.float8_e5m2)


class Dequantize(Fp8Dequantize):
    """Blocks at an edge may be smaller than the others, and what is stored as plain numbers gets the model's dtype.

    transformers takes blocks of equal size wherever their number divides the weight's size, and refuses others; what
    is plain stays in the dtype of the files.
    """

    def convert(self, input_dict: dict[str, Any], *args: Any, **more: Any) -> dict[str, Any]:
        """Weights without codes; raises ValueError for codes that have no scales."""
        found, name = super().convert(input_dict, *args, **more), more.get("full_layer_name")
        dtype = self._get_target_dtype(more.get("model"), name)

        def plain(tensor: Tensor) -> Tensor:
            if tensor.dtype in CODES:
                raise ValueError(f"{name} has no scales")
            return tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)

        return {key: [plain(t) for t in v] if isinstance(v, list) else plain(v) for key, v in found.items()}

    def _dequantize_one(self, quantized: Tensor, scales: Tensor, output_dtype: torch.dtype | None = None) -> Tensor:
        shape, blocks = quantized.shape, self.hf_quantizer.quantization_config.weight_block_size
        if quantized.dtype in CODES and blocks and scales.ndim >= 2:
            counts = [-(-n // size) for n, size in zip(shape[-2:], blocks, strict=True)]
            whole = [*shape[:-2], *(n * size for n, size in zip(counts, blocks, strict=True))]
            if counts == list(scales.shape[-2:]) and whole != list(shape):
                padded = quantized.new_zeros(whole)
                padded[..., : shape[-2], : shape[-1]] = quantized
                dequantized: Tensor = super()._dequantize_one(padded, scales, output_dtype)
                return dequantized[..., : shape[-2], : shape[-1]].contiguous()
        dequantized = super()._dequantize_one(quantized, scales, output_dtype)
        return dequantized

    def _get_target_dtype(self, model: Any, full_layer_name: str | None) -> torch.dtype | None:
        """The dtype that transformers gives this weight where nothing is quantised."""
        dtype: torch.dtype | None = super()._get_target_dtype(model, full_layer_name)
        plan = {} if dtype is None or full_layer_name is None else model._get_dtype_plan(dtype)
        if plan:
            pattern, names, _ = build_glob_alternation(list(plan))
            match = pattern.search(full_layer_name)
            if match is not None:
                planned: torch.dtype = plan[names[str(match.lastgroup)]]
                return planned
        return dtype


class Quantizer(FineGrainedFP8HfQuantizer):
    """transformers' own, with that operation."""

    def get_load_operations(self) -> dict[str, Any]:
        """What reads stored tensors."""
        found: dict[str, Any] = super().get_load_operations()  # type: ignore[no-untyped-call]
        return {**found, "dequantize": Dequantize}


if METHOD not in AUTO_QUANTIZER_MAPPING:
    register_quantization_config(METHOD)(type("Fp8DequantizedConfig", (FineGrainedFP8Config,), {}))
    register_quantizer(METHOD)(Quantizer)


def dequantizing(stored: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's quantisation as its configuration holds it, for this quantiser and to be dequantised."""
    return {**stored, "quant_method": METHOD, "dequantize": True}


def quantizer(stored: dict[str, Any]) -> Quantizer:
    """This quantiser for a checkpoint, without any model."""
    return Quantizer(FineGrainedFP8Config(**dequantizing(stored)), pre_quantized=True)


def is_dequantized_here(stored: dict[str, Any]) -> bool:
    """Whether transformers dequantises such a checkpoint on this machine whatever is asked, for want of a GPU."""
    usual = FineGrainedFP8HfQuantizer(FineGrainedFP8Config(**stored), pre_quantized=True)
    usual.validate_environment(device_map={"": 0})
    return bool(usual.quantization_config.dequantize)
