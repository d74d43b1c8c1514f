"""What streaming a model over a job's nodes will take: memory, scratch disk, and time from what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from drillcore.backends.device import choose_device, choose_dtype
from drillcore.backends.source import ModelSource
from drillcore.backends.transformers.streamed.choice import is_streamed, need_of
from drillcore.backends.transformers.streamed.room import room_in
from drillcore.backends.transformers.streamed.sweep import MASK_WIDTH
from drillcore.job.extract import Extract


@dataclass(frozen=True)
class Peaks:
    """Most that a job takes at a time, in bytes, and its sweeps.

    device: where the model computes, which on a CPU is the host's memory. host: beside the device. scratch: of the
    disk. sweeps: how often all layers are read. nodes_per_sweep: at most.
    """

    device: int
    host: int
    scratch: int
    sweeps: int
    nodes_per_sweep: int


def peaks_of(source: ModelSource, extract: Extract, layers: Sequence[int], nodes: int, rows: int) -> Peaks | None:
    """What streaming takes for so many nodes, of which `rows` are gathered; None where weights are not streamed.

    layers: numbers of the layer contract that are wanted.
    """
    if not is_streamed(source, extract)[0]:
        return None
    need, device = need_of(source, extract), choose_device(extract)
    dtype = choose_dtype(source, extract, device)
    room = room_in(max(0, need.free - need.streamed), (len(layers), source.facts.hidden_size), dtype)
    each = room.node_bytes + MASK_WIDTH * dtype.itemsize
    row_bytes = len(layers) * source.facts.hidden_size * dtype.itemsize * rows / max(1, nodes)
    most = max(1, min(room.memory_bytes // each, int(room.disk_bytes / max(1e-9, row_bytes))))
    at_a_time = min(nodes, most)
    # The self-check computes in float32.
    raised = max(dtype.itemsize, 4) // dtype.itemsize
    return Peaks(
        device=need.rest + 2 * raised * need.layer + need.batch + at_a_time * each,
        host=2 * need.layer if device.type == "cuda" else 0,
        scratch=int(at_a_time * row_bytes),
        sweeps=max(1, math.ceil(nodes / most)),
        nodes_per_sweep=most,
    )
