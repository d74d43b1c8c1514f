"""Quantisation of a model while it is loaded: its names, its methods, and the settings that each takes. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drillcore.job.choices import did_you_mean, shortened

Setting = str | bool | int | float | list[str]

# Short names, and the mapping that each stands for.
NAMES: dict[str, dict[str, Setting]] = {
    "bitsandbytes-8bit": {"method": "bitsandbytes", "load_in_8bit": True},
    "bitsandbytes-4bit": {"method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "torchao-int8": {"method": "torchao", "quant_type": "Int8WeightOnlyConfig"},
    "torchao-int8-dynamic": {"method": "torchao", "quant_type": "Int8DynamicActivationInt8WeightConfig"},
    "torchao-int4": {"method": "torchao", "quant_type": "Int4WeightOnlyConfig"},
    "torchao-float8": {"method": "torchao", "quant_type": "Float8WeightOnlyConfig"},
    "quanto-int8": {"method": "quanto", "weights": "int8"},
    "quanto-int4": {"method": "quanto", "weights": "int4"},
    "hqq-8bit": {"method": "hqq", "nbits": 8},
    "hqq-4bit": {"method": "hqq", "nbits": 4},
    "fp8": {"method": "fp8"},
    "fp8-dequantized": {"method": "fp8", "dequantize": True},
}
# Settings of each method's configuration in transformers; of torchao, `quant_type` names a class of its own and
# `group_size` is an argument of that.
METHODS: dict[str, tuple[str, ...]] = {
    "bitsandbytes": (
        *("load_in_8bit", "load_in_4bit", "llm_int8_threshold", "llm_int8_skip_modules", "bnb_4bit_compute_dtype"),
        *("bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "bnb_4bit_quant_storage"),
    ),
    "torchao": ("quant_type", "group_size", "modules_to_not_convert"),
    "quanto": ("weights", "modules_to_not_convert"),
    "hqq": ("nbits", "group_size", "axis", "skip_modules"),
    "fp8": ("weight_block_size", "activation_scheme", "modules_to_not_convert", "dequantize"),
}
# Methods that need data or a program of their own: their checkpoints are read as they are stored.
STORED = ("awq", "gptq", "compressed-tensors", "aqlm", "vptq", "spqr", "quark", "auto-round", "mxfp4", "bitnet", "gguf")


def settings_of(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """The mapping that a job's `quantization` stands for; raises ValueError for one that is not right.

    >>> settings_of("torchao-int8")
    {'method': 'torchao', 'quant_type': 'Int8WeightOnlyConfig'}
    """
    if isinstance(given, str):
        if given in NAMES:
            return dict(NAMES[given])
        _refuse_stored(given)
        raise ValueError(f"{shortened(given)} is not one of {', '.join(NAMES)}{did_you_mean(given, list(NAMES))}")
    method = given.get("method")
    if not isinstance(method, str) or method not in METHODS:
        _refuse_stored(method)
        what = "has no `method`" if method is None else f"has the method {shortened(method)}"
        raise ValueError(f"{what}, which must be one of {', '.join(METHODS)}{did_you_mean(method, list(METHODS))}")
    for name in given:
        if name != "method" and name not in METHODS[method]:
            known = METHODS[method]
            raise ValueError(
                f"{method} has no setting {shortened(name)}: it takes {', '.join(known)}{did_you_mean(name, known)}"
            )
    if method == "bitsandbytes" and bool(given.get("load_in_8bit")) == bool(given.get("load_in_4bit")):
        raise ValueError("bitsandbytes needs one of load_in_8bit: true and load_in_4bit: true")
    if method == "torchao" and not isinstance(given.get("quant_type"), str):
        raise ValueError("torchao needs quant_type, the name of a class such as Int8WeightOnlyConfig")
    if "dequantize" in given and (given["dequantize"] is not True or len(given) > 2):
        raise ValueError("fp8 takes dequantize: true alone: the files say how their weights are quantised")
    return dict(given)


def _refuse_stored(method: object) -> None:
    if method in STORED:
        raise ValueError(
            f"{method} does not quantise while a model is loaded: name the folder or id of a checkpoint that is stored "
            "so, and leave quantization out"
        )


def name_of_quantization(given: str | Mapping[str, Any]) -> str:
    """What it adds to the name of a model's group: its short name, or the method.

    >>> name_of_quantization("hqq-4bit"), name_of_quantization({"method": "hqq", "nbits": 2})
    ('hqq-4bit', 'hqq')
    """
    if dequantizes(given):
        return "fp8-dequantized"
    return given if isinstance(given, str) else str(given["method"])


def dequantizes(given: str | Mapping[str, Any]) -> bool:
    """Whether it reads weights that are stored quantised, and makes plain numbers of them.

    >>> dequantizes("fp8-dequantized"), dequantizes({"method": "fp8"})
    (True, False)
    """
    return "dequantize" in (NAMES.get(given, {}) if isinstance(given, str) else given)
