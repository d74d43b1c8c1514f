"""Decoder layers of which one is in memory, and the forward passes that wait for it.

A pass runs in a coroutine of its own. Where it comes to a decoder layer it is parked, and goes on once that layer is
loaded: whatever an architecture hands on between its layers stays in the parked frame.
"""

from __future__ import annotations

import contextvars
import ctypes
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import nn

from drillcore.backends.transformers.cpu_linears import PreparedLinears
from drillcore.backends.transformers.precision import lowered, raised, tensors_of
from drillcore.backends.transformers.streamed.weights import LayerWeights
from drillcore.backends.transformers.surroundings import pinned

Result = TypeVar("Result")
Restore = Callable[[], None]


class StreamedLayers:
    """The decoder layers of a model, one of them in memory, and the next one on its way.

    keep: called before a pass is parked; what it returns is called before the pass goes on. num_layers: those in use,
    from the first one on.
    """

    def __init__(self, weights: LayerWeights, layers: Sequence[nn.Module], device: torch.device) -> None:
        self._weights, self._layers = weights, list(layers)
        self.num_layers = len(self._layers)
        self.keep: Callable[[], Restore] = lambda: _nothing
        self._here: int | None = None
        self._ahead: tuple[int, Future[Any]] | None = None
        # What followed a layer when passes last went through it.
        self._following: dict[int, int] = {}
        self._reader = ThreadPoolExecutor(1, "layers")
        # On CUDA a layer is copied while the one before computes.
        self._device, self._side = device, torch.cuda.Stream(device) if device.type == "cuda" else None
        self._rows: int | None = None
        self._dtype: torch.dtype | None = None
        self._undo: Callable[[], None] = _nothing
        self._hubs: dict[Any, Any] = {}
        # Seconds so far: of the thread that reads, and of passes through layers that were there.
        self.read_seconds = self.computed_seconds = 0.0
        self._shows_bars = False
        for number, layer in enumerate(self._layers):
            vars(layer)["forward"] = self._when_loaded(number, layer.forward)

    def together(self, passes: Sequence[Callable[[], Result]]) -> list[Result]:
        """Call these, which run the model, so that each layer is loaded once for all of them; their results.

        What one of them raises is raised, and the others end where they are.
        """
        import greenlet as library

        found: dict[int, Result] = {}
        parked: dict[int, list[int]] = {}
        every = [library.greenlet(call) for call in passes]

        def go_on(number: int) -> None:
            wanted = every[number].switch()
            if every[number].dead:
                found[number] = wanted
                del self._hubs[every[number]]
            else:
                parked.setdefault(wanted, []).append(number)

        hub, at = library.getcurrent(), 0
        # Settings that a pass finds and puts back are those of the whole sweep, wherever it was parked in between.
        with torch.inference_mode(), pinned():
            try:
                for number, each in enumerate(every):
                    each.gr_context = contextvars.copy_context()
                    self._hubs[each] = hub
                    go_on(number)
                while parked:
                    at = min((k for k in parked if k >= at), default=min(parked))
                    self.bring(at)
                    started = time.perf_counter()
                    for number in parked.pop(at):
                        go_on(number)
                    self.computed_seconds += time.perf_counter() - started
            finally:
                for each in every:
                    self._hubs.pop(each, None)
                    if each and not each.dead:
                        each.throw()
        return [found[number] for number in range(len(every))]

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

    def prepare_linears(self, num_rows: int | None) -> None:
        """Lay out the linear layers of each layer for batches of so many nodes; None: compute as PyTorch does."""
        self._change(num_rows, self._dtype)

    def check_files(self) -> None:
        """Raise RunError where the files of the weights are not those that were opened."""
        self._weights.files.check()

    def close(self) -> None:
        """Forget all layers, and close the files."""
        self._forget()
        self._reader.shutdown()
        self._weights.files.close()
        if self._shows_bars:
            from transformers.utils import logging

            logging.enable_progress_bar()
        for layer in self._layers:
            vars(layer).pop("forward", None)

    def _when_loaded(self, number: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        import greenlet as library

        @wraps(forward)
        def wait(*args: Any, **kwargs: Any) -> Any:
            hub = self._hubs.get(library.getcurrent())
            if hub is None:
                self.bring(number)
            else:
                restore = self.keep()
                hub.switch(number)
                restore()
            return forward(*args, **kwargs)

        return wait

    def bring(self, number: int) -> None:
        """Have a layer in memory in the place of the one before, and start to load what will follow."""
        if self._here == number:
            return
        before, self._here = self._here, None
        self._finish_computing()
        self._undo()
        self._undo = _nothing
        if before is not None:
            self._following[before] = number
            self._weights.drop(before)
        if self._ahead is None or self._ahead[0] != number:
            self._drop_ahead()
            give_back_freed_memory()
            self._ahead = (number, self._reader.submit(self._load, number))
        loading, self._ahead = self._ahead[1], None
        try:
            linears, self._undo = loading.result()
        except BaseException:
            self._weights.drop(number)
            raise
        self._here = number
        if linears is not None:
            linears.use()
        following = self._following.get(number, number + 1)
        if following < self.num_layers and following != number and not self._weights.shared:
            give_back_freed_memory()
            self._ahead = (following, self._reader.submit(self._load, following))

    def _load(self, number: int) -> tuple[PreparedLinears | None, Restore]:
        """Read a layer, and make it ready to compute as it is to; gives its prepared parts and how to undo that."""
        started = time.perf_counter()
        self._shows_bars |= _without_bars()
        before = []
        with nullcontext() if self._side is None else torch.cuda.stream(self._side):
            self._weights.load(number)
            if self._dtype is not None:
                raised(self._weights.parameters_of(number), self._dtype)
                before = raised(self._weights.buffers_of(number), self._dtype)
        if self._side is not None:
            self._side.synchronize()
        linears = None if self._rows is None else PreparedLinears(self._layers[number], self._rows)
        self.read_seconds += time.perf_counter() - started

        def undo() -> None:
            if linears is not None:
                linears.rest()
            lowered(before)

        return linears, undo

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
            self._weights.drop(self._here)
            self._here = None
        give_back_freed_memory()

    def _drop_ahead(self) -> None:
        if self._ahead is None:
            return
        (number, loading), self._ahead = self._ahead, None
        try:
            _, undo = loading.result()
            undo()
        except Exception:  # nobody waits for it; where it is wanted it is read again, and raises again
            pass
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
