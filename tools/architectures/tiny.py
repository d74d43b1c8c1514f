"""Tiny random models of every architecture that transformers registers for text, or for images and text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from tools.architectures.settings import (
    DEFAULTS,
    NUM_LAYERS,
    NUM_LAYERS_NAMES,
    OTHER_VOCABULARIES,
    SETTINGS,
    SIZES,
    VOCAB,
    Whole,
)

_SIZES = {name: size for size, names in SIZES.items() for name in names.split()}
_NUM_LAYERS = NUM_LAYERS_NAMES.split()
# Special tokens beyond the tiny vocabulary get ids from here on.
FIRST_SPECIAL = 331
# Parameters whose initial values keep a recurrence stable.
_KEPT = re.compile(r"A_log|dt_bias|dt_proj|time_|\.D$|slstm|gate_preact|decay")
_TABLES = re.compile("embed|wte|wpe|word_emb|shared")


def architectures(with_images: bool) -> list[str]:
    """Model types that transformers registers for causal language models, or for images and text."""
    from transformers.models.auto import modeling_auto as auto

    names = auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES if with_images else auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return sorted(names)


def tiny_config(kind: str, **changes: Any) -> Any:
    """The configuration of a model type, shrunken to four layers of width 64. changes: settings on top."""
    from transformers import AutoConfig

    default = AutoConfig.for_model(kind, **DEFAULTS.get(kind, {}))
    settings = _Shrinking().of(default.to_dict())
    _merge(settings, SETTINGS.get(kind, {}))
    _merge(settings, changes)
    settings.pop("dtype", None)
    return type(default).from_dict(settings)


def random_model(kind: str, *, with_images: bool, seed: int = 0, **changes: Any) -> Any:
    """A tiny model in float32 with random weights: norms and biases too, which would hide it if they were left out."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    torch.manual_seed(seed)
    loader = AutoModelForImageTextToText if with_images else AutoModelForCausalLM
    model = loader.from_config(tiny_config(kind, **changes), dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.is_floating_point() or _KEPT.search(name):
                continue
            noise = torch.randn(parameter.shape)
            if parameter.ndim < 2:
                parameter.add_(0.1 * noise)
            elif _TABLES.search(name):
                parameter.copy_(0.3 * noise)
            else:
                parameter.copy_(0.7 / math.sqrt(parameter.shape[-1]) * noise)
    return model


class _Shrinking:
    """Shrinks one configuration; counts the special tokens that it gives new ids."""

    def __init__(self) -> None:
        self._next_special = FIRST_SPECIAL

    def of(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a tiny model, those inside them too."""
        depth = next((settings[n] for n in _NUM_LAYERS if isinstance(settings.get(n), int)), None)
        skipped = ("transformers_version", "_name_or_path", "architectures", "id2label", "label2id")
        return {k: self._value(str(k), v, depth) for k, v in settings.items() if k not in skipped}

    def _value(self, name: str, value: Any, depth: int | None) -> Any:
        if isinstance(value, dict):
            return value if "rope" in name or not all(isinstance(k, str) for k in value) else self.of(value)
        if isinstance(value, list):
            return self._list(name, value, depth)
        if isinstance(value, bool) or not isinstance(value, int):
            return value
        if name in _NUM_LAYERS:
            return NUM_LAYERS
        if name in _SIZES:
            return _SIZES[name]
        if "vocab" in name and name not in OTHER_VOCABULARIES and value > 100:
            return VOCAB
        if re.search(r"(token_id|token_index|_id|_token|patch_id|_ids)$", name) and value >= VOCAB:
            self._next_special += 1
            return self._next_special - 1
        return value

    def _list(self, name: str, values: list[Any], depth: int | None) -> list[Any]:
        """A list with an entry for each layer gets four, each kind among them; ids of tokens stay in the vocabulary."""
        if re.search(r"token_ids?$", name):
            return [min(v, VOCAB - 1) for v in values if isinstance(v, int)]
        if depth is None or len(values) != depth:
            return values
        if all(isinstance(v, str) for v in values):
            kinds = list(dict.fromkeys(values))
            return [kinds[k % len(kinds)] for k in range(NUM_LAYERS)]
        return values[:NUM_LAYERS]


def _merge(settings: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        inner = settings.get(name)
        if isinstance(value, dict) and not isinstance(value, Whole) and isinstance(inner, dict):
            _merge(inner, value)
        else:
            settings[name] = value
