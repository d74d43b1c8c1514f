"""Loads a model through `transformers`: weights, device, dtype, and the parts that the hooks need."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from drillcore.backends.device import choose_device, choose_dtype, narrowing_note
from drillcore.backends.source import ModelSource
from drillcore.backends.transformers.ending import Ending, find_ending
from drillcore.backends.transformers.fit import Fit, examine, first_line
from drillcore.backends.transformers.hooks import find_decoder_layers
from drillcore.backends.transformers.surroundings import pinned
from drillcore.errors import ModelError
from drillcore.job.fields import Extract
from drillcore.system.quiet import quiet_transformers


@dataclass(frozen=True)
class Loaded:
    """A model ready to run.

    causal: the whole model. decoder: without LM head, cut after the deepest wanted layer. decoder_layers: those that
    are left. ending: what followed the last one before the cut. cut: how many decoder layers are left. has_head:
    whether what follows the decoder was in the files. notes: what the user should know of the files.
    """

    causal: Any
    decoder: Any
    decoder_layers: nn.ModuleList
    ending: Ending
    cut: int
    device: torch.device
    dtype: torch.dtype
    has_head: bool = True
    notes: tuple[str, ...] = ()

    @property
    def final_norm(self) -> Callable[[Tensor], Tensor] | None:
        """What follows layer L, which changes nothing where nothing does; None where it was not found."""
        return self.ending.final_norm


@pinned()
def load_model(source: ModelSource, extract: Extract, deepest: int, attention: str | None = None) -> Loaded:
    """Read a model and cut off the decoder layers after `deepest`.

    attention: one of transformers' attention functions, None for the model's default. Raises JobError for a device
    that is not there, ModelError where the weights cannot be read or the decoder layers are not found.
    """
    device = choose_device(extract)
    dtype = choose_dtype(source, extract, device)
    fit = examine(source)
    with quiet_transformers():
        causal = _random(source, dtype) if source.model.random_weights else _read(source, fit, dtype, device)
    if attention is not None:
        causal.set_attn_implementation(attention)
    causal.eval().requires_grad_(False)
    if source.model.device_map is None:
        causal.to(device)
    decoder = causal.get_decoder()
    num_layers = source.facts.num_layers
    owner, name, decoder_layers = find_decoder_layers(decoder, num_layers)
    ending = find_ending(causal, decoder, decoder_layers, source.facts.vocab_size)
    cut = num_layers if deepest > num_layers else max(deepest, 1)
    if cut < num_layers:
        decoder_layers = decoder_layers[:cut]
        setattr(owner, name, decoder_layers)
        # Some decoders count their layers by the configuration, others by the list.
        decoder.config.get_text_config(decoder=True).num_hidden_layers = cut
    notes = (*fit.notes, *narrowing_note(source, extract, dtype, fit.stored))
    return Loaded(causal, decoder, decoder_layers, ending, cut, device, dtype, fit.has_head, notes)


def _read(source: ModelSource, fit: Fit, dtype: torch.dtype, device: torch.device) -> Any:
    from safetensors import SafetensorError

    where = source.model.device_map or (device if device.type == "cuda" else None)
    try:
        causal, report = fit.loader.from_pretrained(
            source.location,
            dtype=dtype,
            device_map=where,
            use_safetensors=True,
            output_loading_info=True,
            # Else an error that does not name them.
            ignore_mismatched_sizes=True,
            **_capped(source),
            **source.arguments(),
        )
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"model {source.model.id} does not fit into the memory of {device}",
            hint="Set device_map: auto for it, or another dtype.",
        ) from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"model {source.model.id} could not be loaded: {first_line(error)}",
            hint="Only safetensors weights are read; check that the files are complete.",
        ) from error
    fit.check(source.model.id, report)
    return causal


def _random(source: ModelSource, dtype: torch.dtype) -> Any:
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    try:
        return source.auto_class().from_config(source.config, dtype=dtype, **source.build_arguments())
    finally:
        torch.random.set_rng_state(state)


def _capped(source: ModelSource) -> dict[str, Any]:
    """The configuration of a model that caps its attention scores, with the attention that keeps the cap.

    As an argument of its own the attention would give way to one that config.json names.
    """
    if not source.attention():
        return {}
    config = copy.deepcopy(source.config)
    config._attn_implementation = source.attention()["attn_implementation"]
    return {"config": config}
