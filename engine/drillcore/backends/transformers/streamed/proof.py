"""Proves how weights are streamed by another way to the same end: one sentence with the layers that `accelerate` reads.

Shape legend: T tokens of the sentence, H hidden size.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import nn

from drillcore.backends.alone import OWN_DTYPE_BOUNDS, relative_errors
from drillcore.backends.device import dtype_name
from drillcore.backends.source import ModelSource
from drillcore.backends.transformers.adapted import LEFT_TO_US
from drillcore.backends.transformers.dequantised import config_argument
from drillcore.backends.transformers.fit import examine
from drillcore.backends.transformers.loading import Loaded
from drillcore.backends.transformers.parts import Parts, find_parts
from drillcore.backends.transformers.streamed.layers import give_back_freed_memory
from drillcore.backends.transformers.surroundings import pinned
from drillcore.backends.transformers.trace import first_tensor
from drillcore.backends.weight_files import few, first_line
from drillcore.errors import DrillcoreError, RunError, SelfCheckError
from drillcore.system.columns import size_words
from drillcore.system.files import cache_dir
from drillcore.system.machine import allowed_disk_bytes
from drillcore.system.quiet import quiet_transformers

NUM_TOKENS = 32
# In the RuntimeError of PyTorch where the host has no memory for a tensor.
CPU_IS_FULL = "DefaultCPUAllocator"


class NotRunError(Exception):
    """What an architecture, or a hook of accelerate, raises where accelerate brings its layers."""


class _OwnError(BaseException):
    """Carries what our hook raises through the code that calls it, as its cause."""


def proved(source: ModelSource, loaded: Loaded) -> Loaded:
    """The model with a note where there is one; raises SelfCheckError where a layer is not the one in the files.

    Where accelerate gives other states of a layer its weights decide, which are then compared value by value. Neither
    model has its adapter for that. Raises RunError where the scratch disk cannot be used, or memory is short.
    """
    assert loaded.streamed is not None
    with loaded.streamed.without_adapter():
        return _proved(source, loaded)


@pinned()
def _proved(source: ModelSource, loaded: Loaded) -> Loaded:
    assert loaded.streamed is not None
    if short := _short_of_disk(loaded, loaded.streamed.converted_bytes):
        return replace(loaded, notes=(*loaded.notes, short))
    ids_T = torch.from_numpy(np.random.default_rng(0).integers(0, source.facts.vocab_size, NUM_TOKENS))
    ids_T = ids_T.to(loaded.device)
    ours = layer_states(loaded.decoder, loaded.decoder_layers, ids_T)
    try:
        with tempfile.TemporaryDirectory(dir=_scratch()) as folder:
            parts = _offloaded(source, loaded, Path(folder))
            theirs = layer_states(parts.decoder, parts.layers, ids_T, run_by_accelerate)
            worst, layer = max((_error(states_TH, theirs[k]), k) for k, states_TH in ours.items())
            same = worst <= OWN_DTYPE_BOUNDS[dtype_name(loaded.dtype)]
            others = [] if same else _other_weights(loaded, parts.layers)
    except NotRunError as error:
        note = f"layers as streamed are not compared with accelerate's, which does not run them: {first_line(error)}"
        return replace(loaded, notes=(*loaded.notes, note))
    except (OSError, SafetensorError, MemoryError, torch.OutOfMemoryError) as error:
        raise _refused(loaded, error) from error
    give_back_freed_memory()
    if others:
        raise SelfCheckError(
            f"model {loaded.model}: decoder layer {layer}, as it is streamed, gives other states than the layer that "
            f"accelerate reads ({worst:.2g} off), and has other weights: {few(others)}",
            hint="Set extract.weights: resident; please report the architecture.",
        )
    note = f"accelerate computes other states of decoder layer {layer} ({worst:.1g} off) with the same weights"
    return loaded if same else replace(loaded, notes=(*loaded.notes, note))


@contextmanager
def run_by_accelerate() -> Iterator[None]:
    """What a model raises in it becomes a NotRunError; errors of ours, of the disk and of memory stay what they are."""
    try:
        yield
    except (DrillcoreError, OSError, SafetensorError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever an architecture's own code raises under accelerate's hooks
        if CPU_IS_FULL in str(error):
            raise MemoryError(first_line(error)) from error
        raise NotRunError(first_line(error)) from error


def _short_of_disk(loaded: Loaded, wanted: int) -> str:
    """A note where transformers would write more converted weights than there is room for; empty where it fits."""
    try:
        free = allowed_disk_bytes(_scratch())
    except OSError as error:
        raise _refused(loaded, error) from error
    if wanted <= free:
        return ""
    return (
        "layers as streamed are not compared with accelerate's, for which transformers writes converted weights: "
        f"{size_words(wanted)} of scratch disk, of which {size_words(free)} are free"
    )


def _refused(loaded: Loaded, error: Exception) -> RunError:
    """What is said where the disk or the memory does not do for the comparison."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        hint = f"There is too little memory of {loaded.device} for two layers and one sentence: free some of it."
    else:
        hint = (
            f"Weights that transformers merges are written to {cache_dir() / 'scratch'} for that: free some of that "
            "disk, or set XDG_CACHE_HOME to a folder on another one."
        )
    why = getattr(error, "strerror", None) or first_line(error)
    what = f"model {loaded.model}: its layers cannot be compared with those that accelerate reads: {why}"
    return RunError(what, hint=hint)


def _error(got_TH: NDArray[np.float32], want_TH: NDArray[np.float32]) -> float:
    return float(np.nan_to_num(relative_errors(got_TH, want_TH), nan=np.inf).max())


def _other_weights(loaded: Loaded, layers: nn.ModuleList) -> list[str]:
    """Names of the weights of streamed layers that differ from those of the layers that accelerate reads."""
    assert loaded.streamed is not None
    found = []
    base = find_parts(loaded.streamed.base).layers
    for number, (_, ours, theirs) in enumerate(zip(loaded.decoder_layers, base, layers, strict=False)):
        loaded.streamed.bring(number)
        for name, parameter in ours.named_parameters():
            path, _, last = name.rpartition(".")
            module = theirs.get_submodule(path)
            kept = getattr(getattr(module, "_hf_hook", None), "weights_map", None)
            value = module._parameters[last] if kept is None else kept[last]
            if value is None or not torch.equal(parameter, value.to(parameter.device, parameter.dtype)):
                found.append(f"{number + 1}: {name}")
    return found


def layer_states(
    decoder: Any,
    layers: nn.ModuleList,
    ids_T: torch.Tensor,
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> dict[int, NDArray[np.float32]]:
    """States [T, H] after each decoder layer that runs, by its number. around: the context that the model runs in."""
    found: dict[int, NDArray[np.float32]] = {}

    def keep(layer: int, output: Any) -> None:
        try:
            states = first_tensor(output)
            if states is not None:
                found[layer] = states.float().reshape(len(ids_T), -1).cpu().numpy().copy()
        except Exception as error:
            raise _OwnError from error

    handles = [m.register_forward_hook(lambda _, __, out, k=k: keep(k, out)) for k, m in enumerate(layers, 1)]
    try:
        with torch.inference_mode(), around():
            decoder(input_ids=ids_T[None], use_cache=False)
    except _OwnError as own:
        assert own.__cause__ is not None
        raise own.__cause__ from None
    finally:
        for handle in handles:
            handle.remove()
    return found


def _offloaded(source: ModelSource, loaded: Loaded, folder: Path) -> Parts:
    """The model by transformers' own loading, with its layers on the disk; accelerate brings each when it runs."""
    assert loaded.streamed is not None
    base = loaded.streamed.base
    parts = _map(base, find_parts(base).layers, loaded.device)
    with quiet_transformers(), run_by_accelerate():
        causal = examine(source).loader.from_pretrained(
            source.location,
            dtype=loaded.dtype,
            device_map=parts,
            offload_folder=folder,
            use_safetensors=True,
            **LEFT_TO_US,
            **source.attention(),
            **config_argument(source),
            **source.arguments(),
        )
    return find_parts(causal.eval().requires_grad_(False))


def _map(causal: Any, layers: nn.ModuleList, device: torch.device) -> dict[str, Any]:
    """Each part of a model to the device, and its decoder layers to the disk."""
    path = next(name for name, module in causal.named_modules() if module is layers)
    found: dict[str, Any] = {}

    def add(module: nn.Module, prefix: str) -> None:
        own = [*module._parameters, *module._buffers]
        found.update({f"{prefix}{name}": str(device) for name in own})
        for name, child in module.named_children():
            here = f"{prefix}{name}"
            if here == path:
                found.update({f"{here}.{number}": "disk" for number in range(len(layers))})
            elif path.startswith(f"{here}."):
                add(child, f"{here}.")
            else:
                found[here] = str(device)

    add(causal, "")
    return found


def _scratch() -> Path:
    folder = cache_dir() / "scratch"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
