"""Quantised models: what their configuration asks for, and whether this environment has it."""

from __future__ import annotations

from typing import Any

from drillcore.backends.source import ModelSource
from drillcore.errors import MissingExtraError, ModelError
from drillcore.system.quiet import quiet_transformers


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
