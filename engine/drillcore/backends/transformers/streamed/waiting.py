"""Hidden states of passes that wait for a layer, in the host's memory meanwhile.

A pass that is parked holds its states in frames of an architecture's own code. Their storage is emptied where it lies
and filled again before the pass goes on, so that whoever holds the tensors finds them as they were.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class _Kept:
    """A storage, and its bytes in the host's memory. is_here: whether the device has them; copied: after that."""

    storage: torch.UntypedStorage
    host: Tensor
    is_here: bool = True
    copied: torch.cuda.Event | None = None


class Copies:
    """Copies between a device and the host, on CUDA beside what the device computes.

    >>> copies = Copies(torch.device("cpu"))
    >>> states = torch.arange(3.0)
    >>> kept = copies.out(states.untyped_storage(), None)
    >>> copies.free([kept]); states.untyped_storage().nbytes()
    0
    >>> copies.back([kept]); copies.wait([kept]); states
    tensor([0., 1., 2.])
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None

    def out(self, storage: torch.UntypedStorage, host: Tensor | None) -> _Kept:
        """Start to copy a storage to the host, into `host` where that has its size."""
        if host is None or host.numel() != storage.nbytes():
            host = torch.empty(storage.nbytes(), dtype=torch.uint8, pin_memory=self._side is not None)
        kept = _Kept(storage, host)
        self._copy(kept, host, _bytes_of(storage))
        return kept

    def free(self, kept: Iterable[_Kept]) -> None:
        """Give back the device's memory of what was copied."""
        for each in kept:
            self.wait([each])
            each.storage.resize_(0)
            each.is_here = False

    def back(self, kept: Iterable[_Kept]) -> None:
        """Start to fill storages again, whose memory is the device's from now on."""
        for each in kept:
            each.storage.resize_(each.host.numel())
            each.is_here = True
            self._copy(each, _bytes_of(each.storage), each.host)

    def wait(self, kept: Iterable[_Kept]) -> None:
        """What the device computes from now on comes after the copies of these."""
        for each in kept:
            if each.copied is not None:
                torch.cuda.current_stream(self.device).wait_event(each.copied)

    def _copy(self, kept: _Kept, to: Tensor, values: Tensor) -> None:
        if self._side is None:
            to.copy_(values)
            return
        # After what was computed so far, which makes the values, or used the memory before.
        self._side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._side):
            to.copy_(values, non_blocking=True)
        kept.copied = self._side.record_event()


class Waiting:
    """The large tensors that one pass hands to its layers: states, masks, and whatever an architecture adds.

    least_bytes: of a storage that is moved; smaller ones stay on the device. stays: storages [address] that are not the
    pass's own, such as a model's buffers.
    """

    def __init__(self, copies: Copies, least_bytes: int, stays: frozenset[int]) -> None:
        self._copies, self._least, self._stays = copies, least_bytes, stays
        # A layer's argument may be needed again: the embedding, by a layer further on.
        self._seen: list[weakref.ref[Tensor]] = []
        self._away: list[_Kept] = []
        self._is_parked = False

    def leave(self, arguments: Any) -> None:
        """Start to copy what a layer is about to take, and what earlier ones took that is still in use."""
        self._is_parked = True
        self._seen = [ref for ref in self._seen if ref() is not None]
        known = {id(ref()) for ref in self._seen}
        self._seen += [weakref.ref(t) for t in _tensors(arguments) if id(t) not in known]
        found: dict[int, torch.UntypedStorage] = {}
        for tensor in (ref() for ref in self._seen):
            if tensor is None or tensor.device.type != self._copies.device.type:
                continue
            storage = tensor.untyped_storage()
            if storage.nbytes() >= self._least and storage.data_ptr() not in self._stays:
                found[storage.data_ptr()] = storage
        spare = {kept.host.numel(): kept.host for kept in self._away}
        self._away = [self._copies.out(storage, spare.pop(storage.nbytes(), None)) for storage in found.values()]

    def go(self) -> None:
        """Give back the device's memory of what is copied, unless the pass has gone on."""
        if self._is_parked:
            self._copies.free(each for each in self._away if each.is_here)

    def come(self) -> None:
        """Start to fill it again."""
        self._copies.back(each for each in self._away if not each.is_here)

    def be_here(self) -> None:
        """Have all of it on the device, for what the pass computes next."""
        self.come()
        self._copies.wait(self._away)
        self._is_parked = False


def storages_of(module: torch.nn.Module) -> frozenset[int]:
    """Addresses of the storages of a model's parameters and buffers that are in memory."""
    tensors = [*module.parameters(), *module.buffers()]
    return frozenset(t.untyped_storage().data_ptr() for t in tensors if not t.is_meta)


def _tensors(found: Any) -> Iterator[Tensor]:
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, dict):
        yield from _tensors(list(found.values()))
    elif isinstance(found, (list, tuple)):
        for each in found:
            yield from _tensors(each)


def _bytes_of(storage: torch.UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
