"""What a sweep may take of a device's memory and of the scratch disk: planned before it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from drillcore.backends.transformers.device_memory import free_bytes
from drillcore.backends.transformers.streamed.sweep import Room
from drillcore.system.files import cache_dir
from drillcore.system.machine import allowed_disk_bytes, allowed_memory_bytes

if TYPE_CHECKING:
    from drillcore.backends.transformers.loading import Loaded

# Tensors of the width of the hidden states that a parked pass keeps: the embedding, the states, and what an
# architecture hands on between its layers.
KEPT = 4
# Of what is free, the part that parked passes may take: layers on their way and a layer's own values take the rest.
SHARE, DISK_SHARE = 0.5, 0.8


def room_of(loaded: Loaded, size: tuple[int, int], dtype: torch.dtype) -> Room:
    """What there is now. size: wanted layers and values of each; dtype: that the model computes in."""
    device, in_host = loaded.device, allowed_memory_bytes()
    coming = 0 if loaded.streamed is None else loaded.streamed.bytes_to_come
    if device.type != "cuda":
        return room_in(max(0, in_host - coming), 0, size, dtype)
    return room_in(max(0, free_bytes(device) - coming), in_host, size, dtype)


def room_in(free: int, in_host: int, size: tuple[int, int], dtype: torch.dtype) -> Room:
    """The same, of so many bytes that are free beside a model's layers. in_host: free, where that is not the device."""
    folder = next(p for p in (cache_dir(), *cache_dir().parents) if p.exists())
    disk = int(DISK_SHARE * allowed_disk_bytes(folder))
    node_bytes = KEPT * size[1] * dtype.itemsize
    return Room(int(SHARE * free), disk, node_bytes, size, dtype, int(SHARE * in_host))
