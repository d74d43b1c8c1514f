"""What drillcore adds to vLLM's workers: hooks that gather the wanted rows, and a pooler that returns them.

vLLM loads `Extension` by its name and mixes it into its worker class; the backend calls it over vLLM's own RPC. Only
tensor-parallel rank 0 gathers: after a decoder layer every rank holds the same residual stream.

Shape legend: T tokens of a step, Q requests of a step, K layers, H hidden size.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import parent_process
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from drillcore.backends.vllm.shared_rows import RowsFile, SharedRows
from drillcore.errors import ModelError


@dataclass(frozen=True)
class Orders:
    """What a worker must gather. layers: numbers of the layer contract. num_layers: L. rows: where the states go."""

    layers: tuple[int, ...]
    num_layers: int
    rows: RowsFile


def find_decoder_layers(decoder: nn.Module, num_layers: int) -> tuple[nn.Module, nn.ModuleList]:
    """The list of decoder layers, after the module that owns it.

    Raises ModelError where no list of that length, or more than one, can be the decoder layers.
    """
    lists = [
        (owner, child)
        for owner in decoder.modules()
        for child in owner.children()
        if isinstance(child, nn.ModuleList) and len(child) == num_layers
    ]
    # Lists inside a decoder layer (experts, say) come later in the order of modules().
    if not lists or (len(lists) > 1 and lists[0][0] is not decoder and num_layers > 1):
        raise ModelError(
            f"the {num_layers} decoder layers of {type(decoder).__name__} could not be found",
            hint="Its layout is not supported yet.",
        )
    return lists[0]


def last_rows() -> Tensor | None:
    """Which token of this step is each request's last, [Q]; None if the attention backend does not tell."""
    from vllm.forward_context import get_forward_context

    metadata = get_forward_context().attn_metadata
    for one in metadata.values() if isinstance(metadata, dict) else ():
        starts = getattr(one, "query_start_loc", None)
        if starts is not None:
            rows: Tensor = starts[1:] - 1
            return rows
    return None


class Recorder:
    """Hooks on the decoder layers that keep each request's last token of every wanted layer, inside the forward pass.

    sums: decoder layers return the residual stream in two parts that must be added (later norms write into them, so
    they are added at once); otherwise the first part is the whole.
    """

    def __init__(self, decoder_layers: nn.ModuleList, layers: tuple[int, ...], num_layers: int) -> None:
        self.sums = True
        self._layers, self._final = layers, num_layers + 1
        self._hidden: dict[int, Tensor] = {}
        self._whole = False
        self._rows_Q: Tensor | None = None
        for k in layers:
            if 1 <= k <= num_layers:
                decoder_layers[k - 1].register_forward_hook(self._after(k))
        decoder_layers[0].register_forward_pre_hook(self._before, with_kwargs=True)

    def take(self, final_TH: Tensor, last_Q: Tensor) -> Tensor:
        """States [Q, K, H] of the step that just ran. `final_TH`: the model's output; `last_Q`: the pooler's rows."""
        if self._final in self._layers:
            self._hidden[self._final] = final_TH if self._whole else final_TH.index_select(0, last_Q)
        missing = [k for k in self._layers if k not in self._hidden]
        if missing:
            raise RuntimeError(f"the hooks of layers {missing} did not fire")
        if self._rows_Q is not None and not torch.equal(self._rows_Q[: len(last_Q)], last_Q.to(self._rows_Q.dtype)):
            raise RuntimeError("attention and pooler name different rows for the last tokens")
        hidden = [self._hidden[k].index_select(0, last_Q) if self._whole else self._hidden[k] for k in self._layers]
        states_QKH = torch.stack([values[: len(last_Q)] for values in hidden], 1)
        self._hidden.clear()
        self._rows_Q = None
        return states_QKH

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Runs first in every step, whether or not the embedding is wanted."""
        self._hidden.clear()
        self._rows_Q = last_rows()
        self._whole = self._rows_Q is None
        if 0 in self._layers:
            self._keep(0, hidden_argument(args, kwargs), None)

    def _after(self, layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            parts = output if isinstance(output, tuple) else (output,)
            second = parts[1] if len(parts) > 1 and self.sums else None
            self._keep(layer, parts[0], second if isinstance(second, Tensor) else None)

        return hook

    def _keep(self, layer: int, hidden_TH: Tensor, residual_TH: Tensor | None) -> None:
        parts = [p.reshape(-1, p.shape[-1]) for p in (hidden_TH, residual_TH) if p is not None]
        if self._rows_Q is not None:
            rows = self._rows_Q
            parts = [p.index_select(0, rows) for p in parts]
        self._hidden[layer] = parts[0] + parts[1] if len(parts) == 2 else parts[0].clone()


def stop_after(owner: Any, deepest: int, num_layers: int) -> None:
    """Leave out the decoder layers after the deepest wanted one, if the model's loop has an end that can be set."""
    if deepest < num_layers and hasattr(owner, "end_layer"):
        owner.end_layer = deepest


def hidden_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The hidden states among a decoder layer's arguments: by name, else the first floating-point one."""
    values = [kwargs.get("hidden_states"), *args, *kwargs.values()]
    hidden: Tensor = next(v for v in values if isinstance(v, Tensor) and v.is_floating_point())
    return hidden


class RowPooler(nn.Module):
    """Writes the rows of finished requests and returns their numbers; offers the tasks of the model's own pooler."""

    def __init__(self, original: Any, recorder: Recorder | None, rows: SharedRows | None) -> None:
        super().__init__()
        self._original = original
        self._recorder, self._rows = recorder, rows
        self._next = 0

    def get_supported_tasks(self) -> Any:
        """The tasks of the model's own pooler."""
        return self._original.get_supported_tasks()

    def get_pooling_updates(self, task: Any) -> Any:
        """What the model's own pooler requires of a request."""
        return self._original.get_pooling_updates(task)

    def forward(self, hidden_states: Tensor, pooling_metadata: Any) -> list[Tensor]:
        """One number for each request of the step: its row, or -1 if its prompt continues in a later step."""
        cursor = pooling_metadata.pooling_cursor
        finished_Q = cursor.is_finished().cpu()
        number_Q = torch.full((len(finished_Q),), -1)
        if self._recorder is not None and self._rows is not None:
            states_QKH = self._recorder.take(hidden_states, cursor.last_token_indices_gpu)
            number_Q[finished_Q] = torch.as_tensor(self._write(states_QKH[finished_Q.to(states_QKH.device)]))
        return list(number_Q[:, None])

    def _write(self, states_QKH: Tensor) -> Any:
        assert self._rows is not None
        slots = (self._next + np.arange(len(states_QKH))) % self._rows.file.num_rows
        self._next += len(slots)
        absmax_QK = states_QKH.abs().amax(-1).float() if len(slots) else states_QKH.float()[..., 0]
        self._rows.absmax_CK[slots] = absmax_QK.cpu().numpy()
        values = states_QKH if self._rows.file.dtype == "float16" else states_QKH.float()
        self._rows.values_CKH[slots] = values.cpu().numpy()
        return slots


class Extension:
    """Methods that are added to vLLM's workers; the prefix drillcore_ keeps them from overwriting others."""

    model_runner: Any
    vllm_config: Any
    rank: int
    _drillcore_recorder: Recorder | None

    def drillcore_install(self, orders: Orders) -> dict[str, Any]:
        """Install hooks and pooler; returns facts of this worker, or {"refused": why}."""
        config = self.vllm_config
        if config.parallel_config.pipeline_parallel_size > 1:
            return {"refused": "pipeline parallelism spreads the decoder layers over processes; use tensor_parallel"}
        if not config.model_config.enforce_eager:
            return {"refused": "hooks do not fire in a compiled engine"}
        # Ctrl-C reaches every process of the terminal; a worker's own one ends with the backend.
        if parent_process() is not None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        model = self.model_runner.get_model()
        self._drillcore_recorder, rows = None, None
        if self.rank == 0:
            try:
                owner, decoder_layers = find_decoder_layers(model, orders.num_layers)
            except ModelError as error:
                return {"refused": f"{error}"}
            stop_after(owner, max(1, *orders.layers), orders.num_layers)
            self._drillcore_recorder = Recorder(decoder_layers, orders.layers, orders.num_layers)
            rows = SharedRows(orders.rows)
        model.pooler = RowPooler(model.pooler, self._drillcore_recorder, rows)
        return {"threads": torch.get_num_threads(), "attention": _attention(config), "device": _device(model)}

    def drillcore_sums(self, sums: bool) -> None:
        """Set whether decoder layers return two parts that must be added."""
        if self._drillcore_recorder is not None:
            self._drillcore_recorder.sums = sums


def _attention(config: Any) -> str:
    layers = config.compilation_config.static_forward_context.values()
    return ", ".join(sorted({type(one.impl).__name__ for one in layers if hasattr(one, "impl")}))


def _device(model: nn.Module) -> str:
    device = next(model.parameters()).device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
