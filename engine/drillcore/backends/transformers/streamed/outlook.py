"""What streaming a model over a job's nodes will take: memory, scratch disk, and time from what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from drillcore.backends.device import choose_device, choose_dtype
from drillcore.backends.source import ModelSource
from drillcore.backends.transformers.streamed.choice import Need, choose, need_of
from drillcore.backends.transformers.streamed.room import room_in
from drillcore.backends.transformers.streamed.sweep import LEFT, Room
from drillcore.job.extract import Extract
from drillcore.system.machine import allowed_memory_bytes


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
    choice = choose(source, extract)
    if not choice.is_streamed:
        return None
    need, device = need_of(source, extract), choose_device(extract)
    dtype, on_cuda = choose_dtype(source, extract, device), device.type == "cuda"
    staying = choice.staying * need.layer
    in_host = max(0, allowed_memory_bytes() - 2 * need.layer) if on_cuda else 0
    free = max(0, need.free - need.streamed - staying)
    room = room_in(free, in_host, (len(layers), source.facts.hidden_size), dtype)
    row_bytes = len(layers) * source.facts.hidden_size * dtype.itemsize * rows / max(1, nodes)
    return _peaks(need, staying, room, nodes, row_bytes, on_cuda=on_cuda)


def _peaks(need: Need, staying: int, room: Room, nodes: int, row_bytes: float, *, on_cuda: bool) -> Peaks:
    """The same of what is free. staying: bytes of layers that stay. row_bytes: on the disk, for a node."""
    most = max(1, min(room.nodes, int(room.disk_bytes / max(1e-9, row_bytes))))
    at_a_time = min(nodes, most)
    waiting = at_a_time * room.node_total
    leaves = waiting > room.memory_bytes
    # The self-check computes in float32, one layer at a time.
    raised = max(room.dtype.itemsize, 4) // room.dtype.itemsize
    here = need.rest + (1 + raised) * need.layer + staying + need.batch
    return Peaks(
        device=here + int(LEFT * waiting if leaves else waiting),
        host=2 * need.layer + (waiting if leaves else 0) if on_cuda else 0,
        scratch=int(at_a_time * row_bytes),
        sweeps=max(1, math.ceil(nodes / most)),
        nodes_per_sweep=most,
    )
