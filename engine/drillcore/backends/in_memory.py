"""Models that the calling program has loaded: held while drillcore uses them, and never changed.

What runs is a copy of the modules that shares their tensors: mode, hooks, gradients and configuration of the program's
own model stay as they are, while hooks that it registered act in the copy too.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from drillcore.backends.adapters import refuse_kind
from drillcore.errors import JobError, ModelError

if TYPE_CHECKING:
    import torch

HINT = "Pass a causal language model of transformers, such as AutoModelForCausalLM.from_pretrained(...)."


@dataclass(frozen=True)
class HeldModel:
    """A model of the calling program.

    name: by which a job's `id` names it while it is held. causal: the program's own model with its head. folder: where
    its tokenizer was saved. has_head: whether it can predict tokens. device, dtype: of its weights.
    """

    name: str
    causal: Any
    folder: str
    has_head: bool
    device: torch.device
    dtype: torch.dtype

    @property
    def hooked(self) -> list[str]:
        """Paths of the modules that have hooks of the calling program."""
        return [
            path or type(module).__name__
            for path, module in self.causal.named_modules()
            if any(not _is_capture(h) for h in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()))
        ]

    def sharing_copy(self) -> Any:
        """The model with modules of its own and the program's tensors, in evaluation mode; raises ModelError."""
        import torch

        shared: dict[int, Any] = {}
        for parameter in self.causal.parameters():
            # Of other classes are quantised weights, which carry more than their values.
            plain = type(parameter) is torch.nn.Parameter
            own = torch.nn.Parameter(parameter.detach(), requires_grad=False) if plain else parameter
            shared[id(parameter)] = own
        shared |= {id(buffer): buffer.detach() for buffer in self.causal.buffers()}
        try:
            causal = copy.deepcopy(self.causal, shared)
        except Exception as error:  # modules may hold anything
            raise ModelError(
                f"model {self.name} holds something that cannot be copied: {type(error).__name__}: {error}",
                hint="Remove what was added to its modules, or save the model and name its folder.",
            ) from error
        _forget_captures(causal)
        return causal.eval()


def _is_capture(hook: Any) -> bool:
    """Whether a hook is one with which transformers captures hidden states."""
    return getattr(hook, "__module__", "") == "transformers.utils.output_capturing"


def _forget_captures(causal: Any) -> None:
    """Let transformers install its hooks that capture hidden states anew, after those of the calling program.

    It installs them once, when states are first asked for: hooks that were registered later would not be seen.
    """
    for module in causal.modules():
        for number, hook in list(module._forward_hooks.items()):
            if _is_capture(hook):
                del module._forward_hooks[number]
        vars(module).pop("_output_capturing_hooks_installed", None)


_held: dict[str, HeldModel] = {}
_numbers = itertools.count(1)


def held_model(name: str) -> HeldModel | None:
    """The model that is held under a name; None for every id of a folder or of the hub."""
    return _held.get(name)


@contextmanager
def holding(model: Any, folder: str) -> Iterator[HeldModel]:
    """Hold a model of the calling program; gives what a job needs to name it.

    folder: where its tokenizer was saved. Raises ModelError for what is not a causal decoder of transformers with
    weights on one CPU or CUDA device.
    """
    causal, has_head = _causal(_unwrapped(model))
    device, dtype = _place(causal)
    name = f"{type(causal).__name__} in memory {next(_numbers)}"
    _held[name] = held = HeldModel(name, causal, folder, has_head, device, dtype)
    try:
        yield held
    finally:
        del _held[name]


def is_model(value: object) -> bool:
    """Whether a value is a module of PyTorch, and not a name or a path."""
    return hasattr(value, "state_dict") and hasattr(value, "named_modules")


def _unwrapped(model: Any) -> Any:
    """The model inside what PyTorch's compiler, data parallelism or peft put around it."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and type(model).__name__ in ("DataParallel", "DistributedDataParallel"):
            inner = model.module
        if inner is None and hasattr(model, "get_base_model"):
            for name in getattr(model, "active_adapters", ()):
                refuse_kind(f"the adapter {name} of the model", model.peft_config[name].to_dict())
            inner = model.get_base_model()
        if inner is None:
            return model
        model = inner


def _causal(model: Any) -> tuple[Any, bool]:
    """The model with a head, and whether that head is the model's own; raises ModelError."""
    import torch
    from transformers import PreTrainedModel

    from drillcore.backends.source import known_class

    if not isinstance(model, PreTrainedModel):
        raise ModelError(f"the model is of type {type(model).__name__}, not a model of transformers", hint=HINT)
    if model.get_output_embeddings() is not None:
        return model, True
    chosen = known_class(model.config)
    prefix = getattr(type(model), "base_model_prefix", "")
    if chosen is None or not hasattr(chosen, "from_config"):
        return model, False
    with torch.device("meta"):
        whole = chosen.from_config(copy.deepcopy(model.config))
    if not isinstance(getattr(whole, prefix, None), type(model)):
        return model, False
    setattr(whole, prefix, model)
    tied = model.config.get_text_config(decoder=True).tie_word_embeddings
    head = whole.get_output_embeddings()
    if tied:
        head.weight = model.get_input_embeddings().weight
    else:
        like = next(model.parameters())
        whole.set_output_embeddings(head.to_empty(device=like.device).to(like.dtype))
    return whole, bool(tied)


def _place(causal: Any) -> tuple[torch.device, torch.dtype]:
    """Device and dtype of the weights; raises ModelError where they are on several devices, or on none."""
    named = sorted({str(p.device) for p in causal.parameters()})
    if "meta" in named:
        raise ModelError(
            "some weights of the model are not in memory (they are on the meta device)",
            hint="Load it without offloading, or name its folder or hub id.",
        )
    if len(named) != 1 or named[0].partition(":")[0] not in ("cpu", "cuda"):
        raise ModelError(
            f"the weights of the model are on {', '.join(named) or 'no device'}",
            hint="Move the model to cpu or to one CUDA device, or name its folder or hub id.",
        )
    return next(causal.parameters()).device, causal.dtype


def dtype_of(held: HeldModel, asked: str) -> str:
    """The dtype of a held model; raises JobError where another one is asked for."""
    return _agreed("dtype", asked, str(held.dtype).removeprefix("torch."), "Convert the model, or leave dtype out.")


def device_of(held: HeldModel, asked: str) -> str:
    """The device of a held model; raises JobError where another one is asked for."""
    same = asked == "cuda" and held.device.type == "cuda"
    return _agreed("device", "auto" if same else asked, str(held.device), "Move the model, or leave device out.")


def _agreed(field: str, asked: str, given: str, hint: str) -> str:
    if asked not in ("auto", given):
        raise JobError(f"{field} is {asked}, but the model is loaded already, as {given}", hint=hint)
    return given
