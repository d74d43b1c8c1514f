"""Loads a model through `transformers`: weights, device, dtype, and the parts that the hooks need."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from drillcore.backends.base import ModelFacts
from drillcore.backends.device import choose_device, choose_dtype, narrowing_note
from drillcore.backends.source import ModelSource
from drillcore.backends.transformers.adapted import LEFT_TO_US, apply_adapter
from drillcore.backends.transformers.dequantised import config_argument
from drillcore.backends.transformers.ending import Ending, find_ending, narrowing_of, near
from drillcore.backends.transformers.fit import Fit, examine
from drillcore.backends.transformers.parts import Parts, find_parts
from drillcore.backends.transformers.precision import can_be_raised, computing_in, experts_in
from drillcore.backends.transformers.quantised import check_quantised, is_quantised, quantization_config, unpack
from drillcore.backends.transformers.shards import Shards, plan_argument, unwrap
from drillcore.backends.transformers.spreading import refuse_offload, refuse_offloaded
from drillcore.backends.transformers.streamed.building import build_streamed
from drillcore.backends.transformers.streamed.choice import choose
from drillcore.backends.transformers.streamed.layers import StreamedLayers
from drillcore.backends.transformers.surroundings import pinned
from drillcore.backends.transformers.trace import first_tensor
from drillcore.backends.weight_files import first_line
from drillcore.errors import ModelError
from drillcore.job.extract import Extract
from drillcore.system.quiet import quiet_transformers

Result = TypeVar("Result")


@dataclass(frozen=True)
class Loaded:
    """A model ready to run.

    model: its id. causal: the whole model. decoder: without LM head, cut after the deepest wanted layer.
    decoder_layers: those that are left. ending: what followed the last one before the cut. cut: how many decoder layers
    are left. has_head: whether what follows the decoder was in the files. notes: what the user should know of the
    files. shards: the other processes that hold parts of the model; None where this one holds it whole. streamed:
    the decoder layers, where they are in memory one at a time; None where all are.
    """

    model: str
    causal: Any
    decoder: Any
    decoder_layers: nn.ModuleList
    ending: Ending
    cut: int
    device: torch.device
    dtype: torch.dtype
    has_head: bool = True
    notes: tuple[str, ...] = ()
    shards: Shards | None = None
    streamed: StreamedLayers | None = None

    @property
    def is_quantised(self) -> bool:
        """Whether its weights are codes: a batch may then change a sentence's states by more than rounding."""
        return getattr(self.causal, "hf_quantizer", None) is not None

    @property
    def can_be_raised(self) -> bool:
        """Whether it can compute in float32, and that is more exact than its own dtype."""
        if self.streamed is not None:
            return self.dtype != torch.float32
        return can_be_raised(self.causal, self.dtype)

    def together(self, passes: Sequence[Callable[[], Result]]) -> list[Result]:
        """Call these, which run the model, and give their results; layers that are streamed are read once for all."""
        return [run() for run in passes] if self.streamed is None else self.streamed.together(passes)

    @contextlib.contextmanager
    def in_precision(self, dtype: torch.dtype) -> Iterator[None]:
        """A context in which it computes in a higher precision."""
        with ExitStack() as stack:
            stack.enter_context(experts_in(self.causal, dtype))
            if self.streamed is not None:
                stack.enter_context(self.streamed.in_precision(dtype))
            else:
                stack.enter_context(computing_in(self.causal, self.decoder_layers, dtype))
            if self.shards is not None:
                stack.enter_context(self.shards.in_precision(dtype))
            yield

    def in_float64(self, compute: Callable[[], Result]) -> Result | None:
        """What this gives in float64; None where the architecture does not compute in it (XGLM's masks overflow)."""
        try:
            with self.in_precision(torch.float64):
                return compute()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            return None

    @property
    def final_norm(self) -> Callable[[Tensor], Tensor] | None:
        """What follows layer L, which changes nothing where nothing does; None where it was not found."""
        return self.ending.final_norm

    def close(self) -> None:
        """End the other processes that hold parts of it, and forget layers that are streamed."""
        if self.shards is not None:
            self.shards.close()
        if self.streamed is not None:
            self.streamed.close()


@pinned()
def load_model(source: ModelSource, extract: Extract, deepest: int, shards: Shards | None = None) -> Loaded:
    """Read a model and cut off the decoder layers after `deepest`.

    shards: read this process's part only, and let the others run what it runs; all layers then stay. Raises JobError
    for a device that is not there, ModelError where the weights cannot be read or the decoder layers are not found.
    """
    device = choose_device(extract)
    dtype = choose_dtype(source, extract, device)
    fit = examine(source)
    refuse_offload(source, dtype)
    streamed, choice = None, choose(source, extract)
    with quiet_transformers():
        if choice.is_streamed:
            causal, streamed = build_streamed(source, fit, dtype, device)
        else:
            causal = _values(source, fit, dtype, device, shards.ranks if shards else 1)
    refuse_offloaded(source, getattr(causal, "hf_device_map", {}))
    causal.eval().requires_grad_(False)
    if streamed is None and source.model.device_map is None and getattr(causal, "hf_quantizer", None) is None:
        # Codes were put there as they were read, and some kinds refuse to be moved.
        causal.to(device)
    cut = source.facts.num_layers if deepest > source.facts.num_layers else max(deepest, 1)
    try:
        parts = find_parts(causal)
        if shards is not None:
            shards.wait_until_ready()
            shards.share(parts.decoder)
        ending = _ending(causal, parts, source.facts, cut)
    except ModelError as error:
        raise ModelError(f"model {source.model.id}: {error}", hint=error.hint) from error
    layers = parts.layers if shards else _cut(parts, cut, ending)
    if streamed is not None:
        streamed.num_layers = len(layers)
        streamed.staying = min(choice.staying, len(layers) - 1)
    notes = (
        *fit.notes,
        *choice.notes,
        *check_quantised(source, layers),
        *narrowing_note(source, extract, dtype, fit.stored),
    )
    return Loaded(
        source.model.id,
        causal,
        parts.decoder,
        layers,
        ending,
        len(layers),
        device,
        dtype,
        fit.has_head,
        notes,
        shards,
        streamed,
    )


@pinned()
def load_shard(source: ModelSource, extract: Extract) -> tuple[Any, Any, nn.ModuleList]:
    """This process's part of a model that others share: the whole model, its decoder and the decoder's layers."""
    device = choose_device(extract)
    with quiet_transformers():
        causal = _values(
            source, examine(source), choose_dtype(source, extract, device), device, extract.tensor_parallel
        )
    causal.eval().requires_grad_(False).to(device)
    parts = find_parts(causal)
    return causal, parts.decoder, parts.layers


def _ending(causal: Any, parts: Parts, facts: ModelFacts, cut: int) -> Ending:
    ending = find_ending(causal, parts.decoder, parts.layers, facts, cut)
    narrowing = narrowing_of(ending, facts.hidden_size)
    if narrowing is None:
        return ending
    _give_to_head(narrowing, causal, parts.decoder)
    return find_ending(causal, parts.decoder, parts.layers, facts, cut)


def _cut(parts: Parts, cut: int, ending: Ending) -> nn.ModuleList:
    """The decoder's layers up to `cut`; all of them where it does not run, or not alike, without the others."""
    decoder, text = parts.decoder, parts.decoder.config.get_text_config(decoder=True)
    if cut == len(parts.layers):
        return parts.layers
    counted = text.num_hidden_layers
    setattr(parts.owner, parts.name, parts.layers[:cut])
    # Some decoders count their layers by the configuration, others by the list.
    text.num_hidden_layers = cut
    layers: nn.ModuleList = getattr(parts.owner, parts.name)
    if _same_without_others(decoder, layers, ending):
        return layers
    setattr(parts.owner, parts.name, parts.layers)
    text.num_hidden_layers = counted
    return parts.layers


def _give_to_head(narrowing: nn.Module, causal: Any, decoder: Any) -> None:
    """Let the head narrow the states that it gets, not the decoder: layer L + 1 is then as wide as the others."""
    path = next(name for name, module in decoder.named_modules() if module is narrowing)
    decoder.set_submodule(path, nn.Identity())
    causal.get_output_embeddings().register_forward_pre_hook(lambda module, args: (narrowing(args[0]), *args[1:]))


def _same_without_others(decoder: Any, layers: nn.ModuleList, ending: Ending) -> bool:
    kept: list[Tensor | None] = []
    handle = layers[-1].register_forward_hook(lambda module, args, output: kept.append(first_tensor(output)))
    try:
        with torch.inference_mode():
            decoder(input_ids=ending.ids_T[None], use_cache=False)
    except Exception:  # some decoders index lists of another length by the number of their layers
        return False
    finally:
        handle.remove()
    return len(kept) == 1 and kept[0] is not None and near(kept[0], ending.deepest_TH)


def _values(source: ModelSource, fit: Fit, dtype: torch.dtype, device: torch.device, ranks: int) -> Any:
    if source.held is not None:
        return source.held.sharing_copy()
    return _random(source, dtype) if source.model.random_weights else _read(source, fit, dtype, device, ranks)


def _read(source: ModelSource, fit: Fit, dtype: torch.dtype, device: torch.device, ranks: int) -> Any:
    from safetensors import SafetensorError

    quantised = source.model.quantization is not None or is_quantised(source.config)
    # Without a place of their own some kinds of codes would go to a GPU that the job did not name.
    where = source.model.device_map or ({"": device} if quantised else device if device.type == "cuda" else None)
    try:
        # No setting turns off the progress bars of a GGUF file's dequantisation.
        with contextlib.redirect_stderr(io.StringIO()) if source.model.gguf_file else contextlib.nullcontext():
            causal, report = _loaded(source, fit, dtype, where, ranks)
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
    if ranks > 1:
        unwrap(causal)
    if is_quantised(source.config):
        unpack(causal)
    if source.model.gguf_file is not None:
        # Dequantised weights are plain numbers, which the quantiser would deny.
        causal.hf_quantizer = None
    return apply_adapter(source, causal, device)


def _loaded(source: ModelSource, fit: Fit, dtype: torch.dtype, where: Any, ranks: int) -> tuple[Any, dict[str, Any]]:
    """The model and transformers' loading report."""
    found: tuple[Any, dict[str, Any]] = fit.loader.from_pretrained(
        source.location,
        dtype=dtype,
        **({"device_map": where} if ranks == 1 else plan_argument(source, ranks)),
        use_safetensors=True,
        output_loading_info=True,
        # Else an error that does not name them.
        ignore_mismatched_sizes=True,
        **LEFT_TO_US,
        **source.gguf_argument(),
        **_quantising(source),
        **_configured(source),
        **source.arguments(),
    )
    return found


def _quantising(source: ModelSource) -> dict[str, Any]:
    """The quantisation that the job asks for, as an argument."""
    config = quantization_config(source)
    return {} if config is None else {"quantization_config": config}


def _random(source: ModelSource, dtype: torch.dtype) -> Any:
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    try:
        return source.new_model(dtype=dtype)
    finally:
        torch.random.set_rng_state(state)


def _configured(source: ModelSource) -> dict[str, Any]:
    """The configuration of a model that is not loaded as config.json says, as an argument.

    One that caps its attention scores gets the attention that keeps the cap, which as an argument of its own would give
    way to one that config.json names; of another, weights are to be dequantised.
    """
    found = config_argument(source)
    if not source.attention():
        return found
    config = found.get("config") or copy.deepcopy(source.config)
    config._attn_implementation = source.attention()["attn_implementation"]
    return {"config": config}
