"""Quantised models: what their configuration or the job asks for, and whether this environment has it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from drillcore.backends.source import ModelSource
from drillcore.backends.weight_files import few, first_line
from drillcore.errors import MissingExtraError, ModelError
from drillcore.job.quantization import dequantizes, name_of_quantization, settings_of
from drillcore.system.quiet import quiet_transformers
from drillcore.system.versions import installed_versions

NUMBER = re.compile(r"\.\d+(?=\.)")
PLAIN = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# Distributions that a method needs, and what pip installs them by. A module has its distribution's name, or this one.
OURS = "'drillcore[quantized]'"
NEEDS: dict[str, tuple[tuple[str, ...], str]] = {
    "bitsandbytes": (("bitsandbytes",), OURS),
    "torchao": (("torchao",), OURS),
    "compressed-tensors": (("compressed-tensors",), OURS),
    "quanto": (("optimum-quanto",), "optimum-quanto"),
    "hqq": (("hqq",), "hqq"),
    "gptq": (("optimum", "gptqmodel"), "optimum gptqmodel"),
    "awq": (("gptqmodel",), "gptqmodel"),
}


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


def refuse_unless_quantisable(source: ModelSource) -> None:
    """Refuse quantisation, stored or while loading, that this environment cannot do.

    Raises MissingExtraError where a package is missing, ModelError where the method is not known, needs another device,
    or is asked for where the files are quantised already.
    """
    stored, asked = quantisation(source.config), source.model.quantization
    if asked is not None and dequantizes(asked):
        method = None if stored is None else stored.get("quant_method")
        if method != "fp8":
            raise ModelError(
                f"model {source.model.id}: quantization is {name_of_quantization(asked)}, but its files are "
                f"{f'quantised with {method}' if stored else 'not quantised'}",
                hint="Leave quantization out: only checkpoints of block-quantised 8-bit floats (fp8) are dequantised.",
            )
    elif stored is not None and asked is not None:
        raise ModelError(
            f"model {source.model.id}: quantization is {name_of_quantization(asked)}, but its files are quantised "
            f"already, with {stored.get('quant_method') or 'a method that they do not name'}",
            hint="Leave quantization out, or name the model that they were made from.",
        )
    if stored is not None:
        _validate(source, f"is quantised with {stored.get('quant_method') or 'a method that it does not name'}", stored)
    elif asked is not None:
        _validate(source, f"cannot be quantised with {name_of_quantization(asked)}", None)


def _validate(source: ModelSource, what: str, stored: dict[str, Any] | None) -> None:
    """Let transformers say whether it can quantise, or read quantised weights, here."""
    from transformers.quantizers.auto import AutoHfQuantizer

    about, method = f"model {source.model.id} {what}", _method(source, stored)
    if method == "bitsandbytes":
        # It says in every product of a pass that it casts the inputs.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    packages, by = NEEDS.get(method, ((), ""))
    if lacking := [name for name in packages if name not in installed_versions(packages)]:
        raise MissingExtraError(
            f"{about}, which needs {' and '.join(lacking)}, which is not installed",
            hint=f"pip install {by}; or take the model unquantised.",
        )
    try:
        with quiet_transformers():
            # transformers reads weights of an unknown method as if they were plain ones.
            known = stored is None or AutoHfQuantizer.supports_quant_method(stored)
            if known:
                settings = quantization_config(source) if stored is None else dict(stored)
                quantiser = AutoHfQuantizer.from_config(settings, pre_quantized=stored is not None)
                quantiser.validate_environment(device_map=source.model.device_map, weights_only=True)
    except ImportError as error:
        raise MissingExtraError(
            f"{about}: {first_line(error)}",
            hint="Install that package into the environment of drillcore, or take the model unquantised.",
        ) from error
    except Exception as error:  # each method stumbles in its own way
        raise ModelError(
            f"{about}{', which cannot be read here' if stored is not None else ''}: {first_line(error)}",
            hint="Take the model unquantised, or run it where that method works.",
        ) from error
    if not known:
        raise ModelError(
            f"{about}, which transformers does not know",
            hint="Take the model unquantised: its weights would be read as if they were plain numbers.",
        )


def _method(source: ModelSource, stored: dict[str, Any] | None) -> str:
    if stored is not None:
        return str(stored.get("quant_method"))
    return str(settings_of(source.model.quantization or {}).get("method"))


def quantization_config(source: ModelSource) -> Any:
    """transformers' configuration of the quantisation that the job asks for; None where it asks for none.

    Raises ImportError where its package is missing, and what transformers raises for settings that it does not take.
    """
    import transformers

    if source.model.quantization is None or dequantizes(source.model.quantization):
        return None
    settings = settings_of(source.model.quantization)
    method = settings.pop("method")
    if method == "torchao":
        import torchao.quantization as torchao

        kind = getattr(torchao, settings.pop("quant_type"), None)
        if not isinstance(kind, type):
            raise ValueError(f"torchao.quantization has no {settings_of(source.model.quantization)['quant_type']}")
        size = {"group_size": settings.pop("group_size")} if "group_size" in settings else {}
        return transformers.TorchAoConfig(kind(**size), **settings)
    kinds = {
        "bitsandbytes": transformers.BitsAndBytesConfig,
        "quanto": transformers.QuantoConfig,
        "hqq": transformers.HqqConfig,
        "fp8": transformers.FineGrainedFP8Config,
    }
    return kinds[method](**settings)


def unpack(causal: Any) -> None:
    """Let a method that unpacks its codes before the first pass of a whole model do it: only the decoder runs here."""
    if causal._forward_pre_hooks:
        ids = torch.zeros((1, 1), dtype=torch.long, device=causal.get_input_embeddings().weight.device)
        with quiet_transformers(), torch.no_grad():
            causal(input_ids=ids, use_cache=False)


def quantised_linears(decoder_layers: nn.Module) -> tuple[int, int]:
    """How many linear layers have weights that are not plain numbers, and how many there are.

    >>> quantised_linears(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)))
    (0, 2)
    """
    # Quantised layers are nn.Linear with weights of a class of their own, or classes named after it.
    linears = [m for m in decoder_layers.modules() if "linear" in type(m).__name__.lower() and not list(m.children())]
    return sum(not _is_plain(m) for m in linears), len(linears)


def _is_plain(linear: nn.Module) -> bool:
    tensors = [*linear.parameters(recurse=False), *linear.buffers(recurse=False)]
    return type(linear) is nn.Linear and all(type(t) in (nn.Parameter, Tensor) and t.dtype in PLAIN for t in tensors)


def check_quantised(source: ModelSource, decoder_layers: nn.Module) -> tuple[str, ...]:
    """A note where some linear layers stayed as they were; raises ModelError where all did, unsaid by the library."""
    if source.model.quantization is None or dequantizes(source.model.quantization):
        return ()
    done, count = quantised_linears(decoder_layers)
    if not done:
        raise ModelError(
            f"model {source.model.id}: quantization is {name_of_quantization(source.model.quantization)}, and none of "
            f"its {count} linear layers was quantised",
            hint="A group size may not divide their widths, or a package for it may be missing; choose another method.",
        )
    return (f"{done} of {count} linear layers are quantised",) if done < count else ()
