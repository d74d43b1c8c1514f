"""Checkpoints of block-quantised 8-bit floats (DeepSeek-V3's format) whose weights are dequantised as they are read.

The model then runs as one with those plain weights would: nothing of it is quantised.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from drillcore.backends.source import ModelSource
from drillcore.backends.transformers.quantised import quantisation, refuse_without_scales
from drillcore.backends.weight_files import StoredTensor, few
from drillcore.errors import MissingExtraError, ModelError
from drillcore.job.quantization import dequantizes
from drillcore.system.quiet import quiet_transformers

CODES, SCALE, ACTIVATIONS = "F8_E4M3", "_scale_inv", ".activation_scale"
# Dtypes of scales whose values are numbers as they stand.
SCALES = ("F32", "BF16", "F16")


def is_dequantised(source: ModelSource) -> bool:
    """Whether the job asks for it."""
    return source.model.quantization is not None and dequantizes(source.model.quantization)


def as_plain(source: ModelSource) -> ModelSource:
    """A model that the job has dequantised, as if its weights were plain numbers; another one as it is."""
    return replace(source, config=_unquantised(source.config)) if is_dequantised(source) else source


def plain_tensors(source: ModelSource, tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """What the files hold once it is dequantised; they themselves where the job does not ask for it.

    Raises ModelError for codes without scales, and for scales that do not fit the blocks that config.json names.
    """
    if not is_dequantised(source):
        return tensors
    try:
        from drillcore.backends.transformers import fp8  # noqa: F401
    except ImportError as error:
        raise _other_transformers(source, error) from error
    refuse_without_scales(source.model.id, tensors)
    if wrong := sorted(_wrong(stored_as(source), tensors)):
        raise ModelError(
            f"model {source.model.id}: its weights cannot be dequantised as its config.json says: {few(wrong)}",
            hint="Take the config.json that was saved with these weights, and complete the files.",
        )
    plain = {n: t for n, t in tensors.items() if not n.endswith((SCALE, ACTIVATIONS))}
    return {n: replace(t, dtype="BF16") if t.dtype == CODES else t for n, t in plain.items()}


def stored_as(source: ModelSource) -> dict[str, Any]:
    """How the files are quantised, as config.json says."""
    return quantisation(source.config) or {}


def config_argument(source: ModelSource) -> dict[str, Any]:
    """The configuration as an argument of from_pretrained, for weights of 8-bit floats that are to be dequantised.

    Where the machine cannot compute with them transformers does so unasked, and is put right too.
    """
    stored = stored_as(source)
    if stored.get("quant_method") != "fp8":
        return {}
    try:
        from drillcore.backends.transformers.fp8 import dequantizing, is_dequantized_here
    except ImportError:  # `plain_tensors` has refused a model for which the job asks
        return {}
    if not (is_dequantised(source) or is_dequantized_here(stored)):
        return {}
    config = _unquantised(source.config)
    config.quantization_config = dequantizing(stored)
    return {"config": config}


def note_of(source: ModelSource) -> Iterator[str]:
    """A note where weights are dequantised that the job does not have dequantised."""
    with quiet_transformers():
        if config_argument(source) and not is_dequantised(source):
            yield "its 8-bit floats are dequantised as they are read: this machine does not compute with them"


def quantiser_of(source: ModelSource) -> Any:
    """What transformers dequantises its weights by; None where the job does not ask for it."""
    if not is_dequantised(source):
        return None
    from drillcore.backends.transformers.fp8 import quantizer

    return quantizer(stored_as(source))


def _other_transformers(source: ModelSource, error: Exception) -> MissingExtraError:
    from transformers import __version__

    return MissingExtraError(
        f"model {source.model.id}: 8-bit floats cannot be dequantised with transformers {__version__}: {error}",
        hint="Install the transformers that constraints.txt names.",
    )


def _unquantised(config: Any) -> Any:
    found = copy.deepcopy(config)
    for each in (found, found.get_text_config(decoder=True)):
        vars(each).pop("quantization_config", None)
    return found


def _wrong(stored: dict[str, Any], tensors: dict[str, StoredTensor]) -> Iterator[str]:
    """What of the tensors is not as DeepSeek-V3 has it, each with its name."""
    blocks = stored.get("weight_block_size", (128, 128))
    if stored.get("modules_to_convert"):
        yield "embeddings are quantised (modules_to_convert)"
    for name, tensor in tensors.items():
        if tensor.dtype in ("F64", "F32", "F16", "BF16") or name.endswith((SCALE, ACTIVATIONS)):
            continue
        scale = tensors.get(f"{name}{SCALE}")
        if tensor.dtype != CODES:
            if name.endswith(".weight"):
                yield f"{name} is {tensor.dtype}, not {CODES}"
        elif scale is None:
            yield f"{name} has no scales"
        elif scale.dtype not in SCALES:
            yield f"the scales of {name} are {scale.dtype}"
        elif blocks is None and scale.num_values != 1:
            yield f"{name} has {scale.num_values} scales, and no blocks"
        elif blocks is not None:
            want = tuple(-(-n // size) for n, size in zip(tensor.shape[-2:], blocks, strict=True))
            if scale.shape[-2:] != want or scale.shape[:-2] != tensor.shape[:-2]:
                yield f"{name} has scales of the shape {scale.shape}, and {' x '.join(map(str, want))} blocks"
