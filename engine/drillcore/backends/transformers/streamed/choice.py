"""Whether a model's weights are streamed, and what that takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from drillcore.backends.device import choose_device, choose_dtype, dtype_name
from drillcore.backends.source import ModelSource
from drillcore.backends.transformers.device_memory import FEWEST_NODES, free_bytes, node_bytes
from drillcore.backends.transformers.fit import build_on_meta
from drillcore.backends.transformers.parts import find_parts
from drillcore.backends.transformers.streamed.refusals import reasons
from drillcore.job.extract import Extract
from drillcore.system.machine import allowed_memory_bytes
from drillcore.system.progress import counted

# Beside the weights: what is read of a layer before it is converted, fragments, the program itself.
BESIDE = 1.1
# Of what streaming leaves free, the part that layers may take which stay; passes that wait take of the rest.
STAYING = 0.5


@dataclass(frozen=True)
class Need:
    """What a model takes of its device's memory, in bytes.

    weights: all of them. layer: the largest decoder layer. rest: weights that are in no decoder layer. batch: what is
    computed of the smallest batch. free: of the device.
    """

    weights: int
    layer: int
    rest: int
    batch: int
    free: int

    @property
    def fits(self) -> bool:
        """Whether all weights and a batch fit at a time."""
        return BESIDE * self.weights + self.batch <= self.free

    @property
    def streamed(self) -> int:
        """What it takes with one layer in memory and another on its way."""
        return self.rest + 2 * self.layer + self.batch

    @property
    def staying(self) -> int:
        """Layers that may stay in memory beside that.

        >>> Need(weights=100, layer=10, rest=5, batch=5, free=90).staying
        3
        """
        return max(0, int(STAYING * (self.free - self.streamed)) // max(1, self.layer))


@dataclass(frozen=True)
class Choice:
    """Whether weights are streamed, how many of the layers stay in memory, and a note where the job leaves it open."""

    is_streamed: bool
    staying: int = 0
    notes: tuple[str, ...] = ()


def need_of(source: ModelSource, extract: Extract) -> Need:
    """What a model takes, from its configuration. Raises what building it raises, JobError for a wrong device."""
    device = choose_device(extract)
    dtype = choose_dtype(source, extract, device)
    causal = build_on_meta(source)
    layers = [sum(p.numel() for p in layer.parameters()) * dtype.itemsize for layer in find_parts(causal).layers]
    weights = sum(p.numel() for p in causal.parameters()) * dtype.itemsize
    batch = FEWEST_NODES * node_bytes(source.config, source.facts.hidden_size, len(layers) + 2, dtype.itemsize).total
    return Need(weights, max(layers), weights - sum(layers), batch, _free(device))


def choose(source: ModelSource, extract: Extract) -> Choice:
    """Whether the decoder layers of a model are read one at a time: as the job says, or where they do not fit."""
    if extract.weights != "auto" or next(reasons(source), None) is not None:
        return Choice(extract.weights == "streamed")
    need = need_of(source, extract)
    if need.fits:
        return Choice(False)
    dtype = dtype_name(choose_dtype(source, extract, choose_device(extract)))
    why = (
        f"its weights take {_gib(need.weights)} in {dtype} and a batch {_gib(need.batch)}, of {_gib(need.free)} that "
        f"are free: its layers are streamed, of which the largest takes {_gib(need.layer)}"
    )
    if need.staying:
        why += f"; {counted(need.staying, 'layers')} stay once read"
    return Choice(True, need.staying, (why,))


def _free(device: torch.device) -> int:
    return free_bytes(device) if device.type == "cuda" else allowed_memory_bytes()


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:,.1f} GiB"
