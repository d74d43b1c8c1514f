"""Runs a backend's batches through streamed layers: what of a pass is put back when it goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from drillcore.backends.transformers.cpu_linears import PreparedLinears
from drillcore.backends.transformers.feed import Feeder
from drillcore.backends.transformers.hooks import Gatherer, Store
from drillcore.backends.transformers.streamed.layers import StreamedLinears
from drillcore.backends.transformers.streamed.room import room_of
from drillcore.backends.transformers.streamed.sweep import Room, Sweeps
from drillcore.backends.transformers.trace import first_tensor
from drillcore.errors import ModelError
from drillcore.tokens.batches import Batch
from drillcore.tokens.places import Gathering

if TYPE_CHECKING:
    from drillcore.backends.transformers.loading import Loaded

Linears = PreparedLinears | StreamedLinears
Halve = Callable[[Batch, Exception], tuple[Sequence[Batch], str]]


def prepared_linears(loaded: Loaded, num_rows: int) -> Linears:
    """The linear layers of a model, laid out for batches of so many nodes: now, or as each layer is loaded."""
    if loaded.streamed is not None:
        return StreamedLinears(loaded.streamed, num_rows)
    return PreparedLinears(loaded.decoder_layers, num_rows)


def refuse_made_over(loaded: Loaded, stored: dict[str, Any] | None) -> None:
    """Raise ModelError where a store was begun with layers that streamed ones cannot be made into."""
    for name, way in (("compile", "compiled"), ("merged", "merged")):
        if stored and stored.get(name) is not None and loaded.streamed is not None:
            raise ModelError(
                f"model {loaded.model}: the store's states were computed with {way} layers, which streamed weights do "
                "not go with",
                hint="Set extract.weights: resident, or compute the model again: rename it with `as`.",
            )


def sweeps_of(loaded: Loaded, gatherer: Gatherer, feeder: Callable[[], Feeder | None], halve: Halve) -> Sweeps | None:
    """What runs batches together where layers are streamed; the arguments are those of `StreamedPasses`."""
    return None if loaded.streamed is None else StreamedPasses(loaded, gatherer, feeder, halve).sweeps


class StreamedPasses:
    """The passes of a model whose layers are streamed.

    feeder: gives the one in use; None before batches are fed. halve: as `Sweeps` takes it.
    """

    def __init__(self, loaded: Loaded, gatherer: Gatherer, feeder: Callable[[], Feeder | None], halve: Halve) -> None:
        assert loaded.streamed is not None
        self._loaded, self._gatherer, self._feeder = loaded, gatherer, feeder
        loaded.streamed.keep = self._keep
        self.sweeps = Sweeps(loaded.streamed, self._gather_into, self.room, halve)

    def room(self) -> Room:
        """What a sweep may take now."""
        return room_of(self._loaded, self._gatherer.size, self._fed().dtype)

    def _gather_into(self, batch: Batch, wanted: Gathering, store: Store) -> None:
        """Run a batch; its rows go into the store, layer by layer."""
        feeder = self._fed()
        arguments = feeder.feed(batch)
        self._gatherer.begin_places(wanted, feeder.to_device, feeder.dtype, store)
        try:
            self._gatherer.end(first_tensor(self._loaded.decoder(use_cache=False, **arguments)))
        finally:
            self._gatherer.cancel()

    def _keep(self) -> Callable[[], None]:
        """What belongs to the pass that runs now; puts it back when called."""
        gathered, feeder = self._gatherer.current, self._feeder()
        refill = None if feeder is None else feeder.kept()

        def restore() -> None:
            self._gatherer.current = gathered
            if refill is not None:
                refill()

        return restore

    def _fed(self) -> Feeder:
        feeder = self._feeder()
        assert feeder is not None
        return feeder
