"""Copies states from the device to the host while the next pass computes.

Shape legend: G gathered nodes, K layers, H hidden size.
"""

from __future__ import annotations

import ctypes
import platform
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from drillcore.backends.base import FloatStates, States
from drillcore.tokens.batches import Batch

# Numbers of glibc's mallopt(3), and the largest value that it accepts for the second.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD = 32 * 2**20
KEPT_BYTES = 512 * 2**20


class HostCopy:
    """The states [G, K, H] of one batch and their largest magnitudes [G, K], being copied.

    On CUDA the copy runs on a side stream into pinned memory; elsewhere the states are where they have to be.
    """

    def __init__(self, batch: Batch, states_GKH: Tensor, note: str, side: torch.cuda.Stream | None) -> None:
        self._batch, self._note = batch, note
        self._done: torch.cuda.Event | None = None
        absmax_GK = states_GKH.abs().amax(-1).float()
        if side is None:
            self._host = (states_GKH, absmax_GK)
            return
        side.wait_stream(torch.cuda.current_stream(states_GKH.device))
        with torch.cuda.stream(side):
            self._host = (_to_pinned(states_GKH, side), _to_pinned(absmax_GK, side))
            self._done = side.record_event()

    def take(self) -> States:
        """Wait for the copy; bfloat16, which numpy does not have, comes as float32."""
        if self._done is not None:
            self._done.synchronize()
        states_GKH, absmax_GK = self._host
        batch = self._batch
        padding = batch.token_ids_RW.size - batch.num_nodes
        return States(
            _as_numpy(states_GKH),
            absmax_GK.numpy(),
            batch.sentence_S,
            batch.row_S,
            batch.num_nodes,
            padding,
            self._note,
        )


def _to_pinned(values: Tensor, side: torch.cuda.Stream) -> Tensor:
    # Its memory on the device must not be reused by the next pass before it is copied.
    values.record_stream(side)
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)


def _as_numpy(states_GKH: Tensor) -> FloatStates:
    values: NDArray[Any] = (states_GKH.float() if states_GKH.dtype == torch.bfloat16 else states_GKH).numpy()
    return values


def keep_freed_memory() -> None:
    """Reuse freed memory of up to 32 MiB a piece at once; at most 512 MiB are kept from the system.

    By default glibc returns the memory of each layer's intermediate values to the system and asks for it again: every
    page is faulted in and zeroed again, which costs a small model a fifth of its time. No effect without glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    library.mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
    library.mallopt(TRIM_THRESHOLD, KEPT_BYTES)
