"""Decoder layers that are read from the disk when forward passes come to them, and dropped after that.

Where there is memory for some of them these stay once they are read.
"""

from __future__ import annotations

import ctypes
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from functools import wraps
from typing import Any

import torch
from torch import nn

from drillcore.backends.transformers.cpu_linears import PreparedLinears
from drillcore.backends.transformers.precision import lowered, raised, tensors_of
from drillcore.backends.transformers.streamed.adapters import without_adapter
from drillcore.backends.transformers.streamed.parking import Parking, Restore, Result
from drillcore.backends.transformers.streamed.waiting import storages_of
from drillcore.backends.transformers.streamed.weights import LayerWeights


class StreamedLayers:
    """The decoder layers of a model, one of them in memory, and the next one on its way.

    keep: called before a pass is parked; what it returns is called before the pass goes on. num_layers: those in use,
    from the first one on. staying: how many of them stay in memory once they are read, spread over all.
    """

    def __init__(self, weights: LayerWeights, layers: Sequence[nn.Module], device: torch.device) -> None:
        self._weights, self._layers = weights, list(layers)
        self.num_layers, self.staying = len(self._layers), 0
        self.keep: Callable[[], Restore] = lambda: _nothing
        self._here: int | None = None
        self._held: set[int] = set()
        self._ahead: tuple[int, Future[Any]] | None = None
        # What followed a layer when passes last went through it.
        self._following: dict[int, int] = {}
        self._reader = ThreadPoolExecutor(1, "layers")
        # On CUDA a layer is copied while the one before computes.
        self._device, self._side = device, torch.cuda.Stream(device) if device.type == "cuda" else None
        self._rows: int | None = None
        self._dtype: torch.dtype | None = None
        self._undo: Callable[[], None] = _nothing
        self._parking = Parking(self.bring, device)
        # Seconds so far, of the thread that reads.
        self.read_seconds = 0.0
        self._shows_bars = False
        for number, layer in enumerate(self._layers):
            vars(layer)["forward"] = self._when_loaded(number, layer.forward)

    def together(self, passes: Sequence[Callable[[], Result]], in_host: Sequence[int] = ()) -> list[Result]:
        """Call these, which run the model, so that each layer is loaded once for all of them; their results.

        in_host: for each pass, bytes from which on a tensor that it hands to a layer waits in the host's memory.
        """
        return self._parking.together(passes, in_host, storages_of(self._weights.causal) if in_host else frozenset())

    @contextmanager
    def in_precision(self, dtype: torch.dtype) -> Iterator[None]:
        """A context in which layers are converted to a higher precision as they are loaded, and all else stays so."""
        self._forget()
        inside = {id(t) for number in range(len(self._layers)) for t in self._weights.own(number)}
        before = raised([t for t in tensors_of(self._weights.causal) if id(t) not in inside], dtype)
        self._change(self._rows, dtype)
        try:
            yield
        finally:
            self._change(self._rows, None)
            lowered(before)

    @property
    def base(self) -> Any:
        """The model without adapter, by the names of the files."""
        return self._weights.base

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """A context in which the model computes without its adapter, if it has one."""
        self._forget_all()
        try:
            with without_adapter(self._weights):
                yield
        finally:
            self._forget_all()

    @property
    def converted_bytes(self) -> int:
        """Bytes that weights of the layers take which are not in the files as they are in the model."""
        return self._weights.converted_bytes

    @property
    def bytes_to_come(self) -> int:
        """Bytes that layers which stay will take once they are read."""
        return self._weights.largest_bytes * max(0, self.staying - len(self._held))

    @property
    def computed_seconds(self) -> float:
        """Seconds so far, of passes through layers that were there."""
        return self._parking.computed_seconds

    def prepare_linears(self, num_rows: int | None) -> None:
        """Lay out the linear layers of each layer for batches of so many nodes; None: compute as PyTorch does."""
        self._change(num_rows, self._dtype)

    def check_files(self) -> None:
        """Raise RunError where the files of the weights are not those that were opened."""
        self._weights.files.check()

    def close(self) -> None:
        """Forget all layers, and close the files."""
        self._forget_all()
        self._reader.shutdown()
        self._weights.files.close()
        if self._shows_bars:
            from transformers.utils import logging

            logging.enable_progress_bar()
        for layer in self._layers:
            vars(layer).pop("forward", None)

    def _when_loaded(self, number: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(forward)
        def wait(*args: Any, **kwargs: Any) -> Any:
            self._parking.wait_for(number, self.keep, (args, kwargs))
            return forward(*args, **kwargs)

        return wait

    def bring(self, number: int) -> None:
        """Have a layer in memory in the place of the one before, and start to read what will follow."""
        if self._here == number:
            return
        before, self._here = self._here, None
        self._finish_computing()
        self._undo()
        self._undo = _nothing
        if before is not None:
            self._following[before] = number
            self._drop(before)
        linears = None
        if number not in self._held:
            if self._ahead is None or self._ahead[0] != number:
                self._drop_ahead()
                give_back_freed_memory()
                self._ahead = (number, self._reader.submit(self._load, number))
            loading, self._ahead = self._ahead[1], None
            try:
                linears = loading.result()
            except BaseException:
                self._weights.drop(number)
                raise
        self._here = number
        stays = self._is_staying(number)
        if stays:
            self._held.add(number)
        self._undo = self._make_ready(number, linears, stays=stays)
        following = self._next_to_read(number)
        # A layer in a higher precision takes the memory of the one that would be on its way.
        if self._ahead is None and following is not None and not self._weights.shared and self._dtype is None:
            give_back_freed_memory()
            self._ahead = (following, self._reader.submit(self._load, following))

    def _load(self, number: int) -> PreparedLinears | None:
        """Read a layer; gives its prepared parts, where it is to compute with them in its own dtype."""
        started = time.perf_counter()
        self._shows_bars |= _without_bars()
        with nullcontext() if self._side is None else torch.cuda.stream(self._side):
            self._weights.load(number)
        if self._side is not None:
            self._side.synchronize()
        linears = None
        if self._rows is not None and self._dtype is None:
            linears = PreparedLinears(self._layers[number], self._rows)
        self.read_seconds += time.perf_counter() - started
        return linears

    def _make_ready(self, number: int, linears: PreparedLinears | None, *, stays: bool) -> Restore:
        """Let a layer that is in memory compute as it is to; gives how to undo that."""
        before = [] if self._dtype is None else raised(self._weights.buffers_of(number), self._dtype)
        if self._dtype is not None:
            converted = raised(self._weights.parameters_of(number), self._dtype)
            before += converted if stays else []
        if linears is None and self._rows is not None:
            linears = PreparedLinears(self._layers[number], self._rows)
        if linears is not None:
            linears.use()

        def undo() -> None:
            if linears is not None:
                linears.rest()
            lowered(before)

        return undo

    def _is_staying(self, number: int) -> bool:
        """Whether a layer stays once it is read.

        >>> [n for n in range(8) if (n + 1) * 3 // 8 > n * 3 // 8]
        [2, 5, 7]
        """
        return (number + 1) * self.staying // self.num_layers > number * self.staying // self.num_layers

    def _next_to_read(self, number: int) -> int | None:
        """The layer after this one that is not in memory, as far as can be foreseen."""
        for _ in range(self.num_layers):
            number = self._following.get(number, number + 1)
            if number >= self.num_layers or number == self._here:
                return None
            if number not in self._held:
                return number
        return None

    def _change(self, rows: int | None, dtype: torch.dtype | None) -> None:
        if (rows, dtype) != (self._rows, self._dtype):
            self._forget()
            self._rows, self._dtype = rows, dtype

    def _finish_computing(self) -> None:
        """Wait until nothing on the device reads the layer that is about to be dropped."""
        if self._side is not None:
            torch.cuda.current_stream(self._device).synchronize()

    def _forget(self) -> None:
        """Drop what is in memory, and what is on its way."""
        self._drop_ahead()
        self._finish_computing()
        self._undo()
        self._undo = _nothing
        if self._here is not None:
            self._drop(self._here)
            self._here = None
        give_back_freed_memory()

    def _forget_all(self) -> None:
        """The same, and the layers that stay."""
        self._forget()
        for number in self._held:
            self._weights.drop(number)
        self._held.clear()

    def _drop(self, number: int) -> None:
        if number not in self._held:
            self._weights.drop(number)

    def _drop_ahead(self) -> None:
        if self._ahead is None:
            return
        (number, loading), self._ahead = self._ahead, None
        with suppress(Exception):  # nobody waits for it; where it is wanted it is read again, and raises again
            loading.result()
        self._weights.drop(number)


class StreamedLinears:
    """The linear layers of streamed layers, laid out for oneDNN as each of those is loaded."""

    def __init__(self, layers: StreamedLayers, num_rows: int) -> None:
        self._layers, self._num_rows = layers, num_rows

    def use(self) -> None:
        """Compute with oneDNN."""
        self._layers.prepare_linears(self._num_rows)

    def rest(self) -> None:
        """Compute as PyTorch does."""
        self._layers.prepare_linears(None)


def _without_bars() -> bool:
    """Show no progress bars of transformers, which has one for each layer that it converts; whether there were any.

    The setting is one for all threads, so that the one that reads cannot have its own.
    """
    from transformers.utils import logging

    shown = bool(logging.is_progress_bar_enabled())
    if shown:
        logging.disable_progress_bar()
    return shown


def give_back_freed_memory() -> None:
    """Return memory that nothing holds to the system: glibc keeps that of layers which were dropped."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _nothing() -> None:
    """Put back what nobody changed."""
