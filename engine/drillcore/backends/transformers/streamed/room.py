"""What a sweep may take of a device's memory and of the scratch disk: planned before it is used."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import torch

from drillcore.backends.transformers.device_memory import free_bytes
from drillcore.backends.transformers.streamed.sweep import Room
from drillcore.system.files import cache_dir
from drillcore.system.machine import allowed_memory_bytes

if TYPE_CHECKING:
    from drillcore.backends.transformers.loading import Loaded

# Tensors of the width of the hidden states that a parked pass keeps: the embedding, the states, and what an
# architecture hands on between its layers.
KEPT = 4
# Of what is free, the part that parked passes may take: layers on their way and a layer's own values take the rest.
SHARE, DISK_SHARE = 0.5, 0.8


def room_of(loaded: Loaded, size: tuple[int, int], dtype: torch.dtype) -> Room:
    """What there is now. size: wanted layers and values of each; dtype: that the model computes in."""
    device = loaded.device
    return room_in(free_bytes(device) if device.type == "cuda" else allowed_memory_bytes(), size, dtype)


def room_in(free: int, size: tuple[int, int], dtype: torch.dtype) -> Room:
    """The same, of so many bytes that are free beside a model's layers."""
    folder = next(p for p in (cache_dir(), *cache_dir().parents) if p.exists())
    disk = int(DISK_SHARE * shutil.disk_usage(folder).free)
    node_bytes = KEPT * size[1] * dtype.itemsize
    return Room(int(SHARE * free), disk, node_bytes, size, dtype)
