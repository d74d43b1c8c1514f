"""Checkpoints of compressed-tensors, made of a tiny model: 8-bit weights, and activations quantised or not."""

from __future__ import annotations

from pathlib import Path

import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
    QuantizationStatus,
    apply_quantization_config,
)
from compressed_tensors.quantization.utils import calculate_qparams
from transformers import AutoModelForCausalLM, AutoTokenizer

WEIGHTS = QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="channel")


def write_compressed(base: Path, folder: Path, activations: str = "") -> Path:
    """The model with linear layers of 8 bits; its folder.

    activations: how far one of their scales reaches, `token` or `tensor`, taken from what passes; empty where they are
    not quantised.
    """
    dynamic = {"num_bits": 8, "type": "int", "symmetric": True, "dynamic": True, "strategy": activations}
    scheme = QuantizationScheme(
        targets=["Linear"],
        weights=WEIGHTS,
        input_activations=QuantizationArgs(**dynamic) if activations else None,
    )
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    kind = "int-quantized" if activations else "pack-quantized"
    apply_quantization_config(
        model,
        QuantizationConfig(
            config_groups={"linear": scheme}, ignore=["lm_head"], format=kind, quantization_status="frozen"
        ),
    )
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            low, high = module.weight.aminmax(dim=1, keepdim=True)
            scale, _ = calculate_qparams(low, high, WEIGHTS)
            module.weight_scale.data.copy_(scale)
            module.quantization_status = QuantizationStatus.FROZEN
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder
