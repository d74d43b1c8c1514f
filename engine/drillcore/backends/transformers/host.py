"""Copies states from the device to the host while the next pass computes.

Shape legend: G gathered nodes, K layers, H hidden size.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drillcore.backends.base import FloatStates, States
from drillcore.tokens.batches import Batch
from drillcore.tokens.places import Gathering, Taken

# Numbers of glibc's mallopt(3), and the largest value that it accepts for the second.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD = 32 * 2**20
KEPT_BYTES = 512 * 2**20
# States that are looked at in one go on a CPU.
CACHED_BYTES = 2**20


class HostCopy:
    """States [G, K, H] of one batch and their largest magnitudes [G, K], being copied.

    rows: which of them are rows of which group; groups share the copy.

    On CUDA the copy runs on a side stream into pinned memory, which PyTorch keeps for the next batch; elsewhere the
    states are where they have to be. store_dtype: of the store they are meant for; those of a float16 store are rounded
    on the device.
    """

    def __init__(
        self, rows: Sequence[Taken], states_GKH: Tensor, side: torch.cuda.Stream | None, store_dtype: str = ""
    ) -> None:
        self._rows = rows
        self._done: torch.cuda.Event | None = None
        states_GKH, absmax_GK = _leaving(states_GKH, store_dtype)
        if side is None:
            self._host = (states_GKH, absmax_GK)
            return
        side.wait_stream(torch.cuda.current_stream(states_GKH.device))
        with torch.cuda.stream(side):
            self._host = (_to_pinned(states_GKH, side), _to_pinned(absmax_GK, side))
            self._done = side.record_event()

    def take(self) -> list[States]:
        """Wait for the copy; the states of each group, without the batch's numbers of nodes."""
        if self._done is not None:
            self._done.synchronize()
        states_GKH, absmax_GK = self._host
        values, absmax = _as_numpy(states_GKH), absmax_GK.numpy()
        return [States(values, absmax, r.rows_T, r.row_T, 0, 0, group=r.group) for r in self._rows]


class BatchCopy:
    """All that one batch gives: copies under way, and what it cost."""

    def __init__(
        self,
        batch: Batch,
        wanted: Gathering,
        states: Sequence[Tensor],
        note: str,
        side: torch.cuda.Stream | None,
        store_dtype: str = "",
    ) -> None:
        """Begin to copy. states: [G, K, H] of what was gathered, then [S, K, H] of each of the means."""
        self._batch, self._note = batch, note
        rows = [wanted.taken, *([Taken(m.group, m.rows_S, np.arange(len(m.rows_S)))] for m in wanted.means)]
        self._copies = [HostCopy(r, s, side, store_dtype) for r, s in zip(rows, states, strict=True) if r]

    def take(self) -> list[States]:
        """Wait for the copies; the first states tell what the batch cost."""
        first, *others = (states for copy in self._copies for states in copy.take())
        batch = self._batch
        padding = batch.token_ids_RW.size - batch.num_nodes
        return [replace(first, num_nodes=batch.num_nodes, num_padding=padding, note=self._note), *others]


def _to_pinned(values: Tensor, side: torch.cuda.Stream) -> Tensor:
    # Its memory on the device must not be reused by the next pass before it is copied.
    values.record_stream(side)
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)


def _as_numpy(states_GKH: Tensor) -> FloatStates:
    if states_GKH.dtype != torch.bfloat16:
        return states_GKH.numpy()
    values: NDArray[Any] = states_GKH.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return values


def _leaving(states_GKH: Tensor, store_dtype: str) -> tuple[Tensor, Tensor]:
    """The states as they leave the device, and their largest magnitudes before that; the tensor given is used up."""
    is_rounded = store_dtype == "float16" and states_GKH.dtype != torch.float16
    if states_GKH.device.type != "cpu":
        absmax_GK = largest_magnitudes(states_GKH)
        return (states_GKH.to(torch.float16) if is_rounded else states_GKH), absmax_GK
    # On a CPU a few nodes at a time, in its caches and in place: fresh memory costs more than the arithmetic.
    narrow_GKH = states_GKH.view(torch.float16) if states_GKH.element_size() == 2 else None
    if is_rounded and narrow_GKH is None:
        narrow_GKH = torch.empty(states_GKH.shape, dtype=torch.float16)
    absmax_GK = torch.empty(states_GKH.shape[:2])
    step = max(1, CACHED_BYTES // max(1, states_GKH[:1].nbytes))
    for low in range(0, len(states_GKH), step):
        part = states_GKH[low : low + step]
        absmax_GK[low : low + step] = largest_magnitudes(part)
        if is_rounded and narrow_GKH is not None:
            narrow_GKH[low : low + step] = part.to(torch.float16)
    return (narrow_GKH if is_rounded and narrow_GKH is not None else states_GKH), absmax_GK


def largest_magnitudes(values: Tensor) -> Tensor:
    """The largest magnitude along the last axis, float32; not finite where a value is not.

    Without its sign, a number is the larger the larger its bits are as an integer: three times as fast on a CPU.

    >>> largest_magnitudes(torch.tensor([[-3.0, 2.0], [float("nan"), 1.0], [-float("inf"), 0.0]])).tolist()
    [3.0, nan, inf]
    """
    whole = torch.int16 if values.element_size() == 2 else torch.int32
    if values.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return values.abs().amax(-1).float()
    return (values.view(whole) & torch.iinfo(whole).max).amax(-1).view(values.dtype).float()


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
