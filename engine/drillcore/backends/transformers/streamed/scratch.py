"""Rows that a sweep gathers, kept on the disk until it has gone through all layers.

Layers come one after the other, each with rows of every batch; a store takes whole shards, of all layers. The file has
no name, so that the system frees it whenever the process ends.

Shape legend: G gathered nodes, K layers, H hidden size, S rows of a group that are means.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from drillcore.errors import RunError
from drillcore.system.files import cache_dir

# Rows that are on their way from a GPU to the file at a time.
ON_THEIR_WAY = 8


class Scratch:
    """One file for the rows of a sweep; it ends when nothing refers to it any more.

    >>> scratch = Scratch()
    >>> part = scratch.part([2], (1, 3), torch.float32)
    >>> part.put(0, torch.arange(6.0).reshape(2, 3), [])
    >>> part.take()[0].tolist()
    [[[0.0, 1.0, 2.0]], [[3.0, 4.0, 5.0]]]
    """

    def __init__(self) -> None:
        folder = cache_dir() / "scratch"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # On Linux it is never in the folder at all.
            with tempfile.TemporaryFile(dir=folder) as file:
                self._descriptor = os.dup(file.fileno())
        except OSError as error:
            raise _refused(error) from error
        weakref.finalize(self, os.close, self._descriptor)
        self._size = 0
        self._writer = ThreadPoolExecutor(1, "scratch")
        self._writing: deque[Future[None]] = deque()

    def part(self, counts: Sequence[int], size: tuple[int, int], dtype: torch.dtype) -> Part:
        """Room for the rows of one batch. counts: rows that are nodes, then the means of each group. size: K and H."""
        arrays = []
        for number, count in enumerate(counts):
            kind = torch.float32 if number else dtype
            arrays.append((self._size, (size[0], count, size[1]), kind))
            self._size += size[0] * count * size[1] * kind.itemsize
        return Part(self, arrays)

    def write(self, values: Tensor, offset: int) -> None:
        """Write values at a place; raises RunError where there is no room for them."""
        _whole(lambda view, at: os.pwrite(self._descriptor, view, at), values, offset)

    def write_when(self, is_there: Callable[[], object], values: Tensor, offset: int) -> None:
        """Write values once they have come, which `is_there` waits for, while the device computes on."""

        def write() -> None:
            is_there()
            self.write(values, offset)

        if len(self._writing) == ON_THEIR_WAY:
            self._writing.popleft().result()
        self._writing.append(self._writer.submit(write))

    def settle(self) -> None:
        """Have all values in the file; raises RunError where there is no room for some."""
        while self._writing:
            self._writing.popleft().result()

    def read(self, values: Tensor, offset: int) -> None:
        """Fill a tensor with what was written at a place."""
        _whole(lambda view, at: os.preadv(self._descriptor, [view], at), values, offset)


class Part:
    """The rows of one batch: [K, G, H] in the model's dtype, then [K, S, H] of each of the means in float32."""

    def __init__(self, scratch: Scratch, arrays: Sequence[tuple[int, tuple[int, int, int], torch.dtype]]) -> None:
        self._scratch, self._arrays = scratch, arrays

    def put(self, slot: int, rows_GH: Tensor, means: Sequence[Tensor]) -> None:
        """Write one layer's rows."""
        for (offset, (_, count, width), dtype), rows in zip(self._arrays, (rows_GH, *means), strict=True):
            values, place = rows.to(dtype), offset + slot * count * width * dtype.itemsize
            if not values.is_cuda:
                self._scratch.write(values, place)
                continue
            host = torch.empty(values.shape, dtype=dtype, pin_memory=True)
            host.copy_(values, non_blocking=True)
            self._scratch.write_when(torch.cuda.current_stream(values.device).record_event().synchronize, host, place)

    def take(self) -> list[Tensor]:
        """States [G, K, H], and those of the means."""
        self._scratch.settle()
        found = []
        for offset, shape, dtype in self._arrays:
            values = torch.empty(shape, dtype=dtype)
            self._scratch.read(values, offset)
            found.append(values.transpose(0, 1).contiguous())
        return found


def _whole(move: Callable[[memoryview, int], int], values: Tensor, offset: int) -> None:
    """Write or read all bytes of a tensor; the system may take fewer at a time."""
    view = values.contiguous().reshape(-1).view(torch.uint8).numpy().data
    done = 0
    try:
        while done < len(view):
            count = move(view[done:], offset + done)
            if not count:
                raise OSError("it is shorter than what was written to it")
            done += count
    except OSError as error:
        raise _refused(error) from error


def _refused(error: OSError) -> RunError:
    return RunError(
        f"the scratch file of a sweep, in {cache_dir() / 'scratch'}, cannot be used: {error.strerror or error}",
        hint="Free some of that disk, or set XDG_CACHE_HOME to a folder on another one.",
    )
