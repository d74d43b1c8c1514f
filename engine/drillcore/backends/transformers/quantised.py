"""Quantised models: what their configuration asks for, and whether this environment has it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from drillcore.backends.source import ModelSource
from drillcore.backends.weight_files import few
from drillcore.errors import MissingExtraError, ModelError
from drillcore.system.quiet import quiet_transformers

NUMBER = re.compile(r"\.\d+(?=\.)")


def quantisation(config: Any) -> dict[str, Any] | None:
    """The quantisation that a configuration, or that of its language model, names."""
    found = getattr(config, "quantization_config", None)
    found = found or getattr(config.get_text_config(decoder=True), "quantization_config", None)
    if not found:
        return None
    as_dict: dict[str, Any] = found if isinstance(found, dict) else found.to_dict()
    return as_dict


def is_quantised(config: Any) -> bool:
    """Whether a configuration says that the weights are quantised."""
    return quantisation(config) is not None


def refuse_without_scales(model: str, names: Iterable[str]) -> None:
    """Raise ModelError where some weights come with a scale of their own and others of the same name do not.

    >>> refuse_without_scales("m", ["a.0.up.weight", "a.0.up.weight_scale", "a.1.up.weight", "a.1.up.weight_scale"])
    """
    present = set(names)
    for suffix in ("_scale_inv", "_scale"):
        scaled = {NUMBER.sub(".#", name) for name in present if f"{name}{suffix}" in present}
        lacking = sorted(n for n in present if NUMBER.sub(".#", n) in scaled and f"{n}{suffix}" not in present)
        if lacking:
            raise ModelError(
                f"model {model}: its files hold no scale for {few(lacking)}, unlike for other weights of that name",
                hint="Complete the files: download or save the model again.",
            )


def refuse_unless_installed(source: ModelSource) -> None:
    """Raise MissingExtraError where a quantised model needs a package or a device, ModelError for an unknown method."""
    from transformers.quantizers.auto import AutoHfQuantizer

    settings = quantisation(source.config)
    if settings is None:
        return
    model, method = source.model.id, settings.get("quant_method") or "a method that it does not name"
    try:
        with quiet_transformers():
            # transformers reads weights of an unknown method as if they were plain ones.
            known = AutoHfQuantizer.supports_quant_method(settings)
            if known:
                quantiser = AutoHfQuantizer.from_config(dict(settings), pre_quantized=True)
                quantiser.validate_environment(device_map=source.model.device_map, weights_only=True)
    except ImportError as error:
        raise MissingExtraError(
            f"model {model} is quantised with {method}: {error}".splitlines()[0],
            hint="Install that package into the environment of drillcore, or take the model unquantised.",
        ) from error
    except (ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"model {model} is quantised with {method}, which cannot be read here: {str(error).splitlines()[0]}",
            hint="Take the model unquantised, or run it where that method works.",
        ) from error
    if not known:
        raise ModelError(
            f"model {model} is quantised with {method}, which transformers does not know",
            hint="Take the model unquantised: its weights would be read as if they were plain numbers.",
        )
