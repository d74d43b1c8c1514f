"""Forward passes that are parked where they come to a decoder layer, and go on together once it is in memory."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from drillcore.backends.transformers.streamed.waiting import Copies, Waiting
from drillcore.backends.transformers.surroundings import pinned

Result = TypeVar("Result")
Restore = Callable[[], None]


class Parking:
    """Passes, each in a coroutine of its own: what an architecture hands on between its layers stays in its frames.

    bring: has a layer in memory. computed_seconds: so far, of passes through layers that were there.
    """

    def __init__(self, bring: Callable[[int], None], device: torch.device) -> None:
        self._bring, self._copies = bring, Copies(device)
        self.computed_seconds = 0.0
        # Of each coroutine: the one that called it, and its tensors that wait in the host's memory.
        self._hubs: dict[Any, Any] = {}
        self._waiting: dict[Any, Waiting] = {}

    def together(
        self,
        passes: Sequence[Callable[[], Result]],
        in_host: Sequence[int] = (),
        stays: frozenset[int] = frozenset(),
    ) -> list[Result]:
        """Call these, which run the model, so that each layer is brought once for all of them; their results.

        in_host: for each pass, bytes from which on a tensor that it hands to a layer waits in the host's memory; all
        stay on the device where it is empty. stays: storages [address] that never move. What one of the passes raises
        is raised, and the others end where they are.
        """
        import greenlet as library

        found: dict[int, Result] = {}
        parked: dict[int, list[int]] = {}
        every = [library.greenlet(call) for call in passes]

        def go_on(number: int) -> None:
            wanted = every[number].switch()
            if every[number].dead:
                found[number] = wanted
                self._hubs.pop(every[number])
                self._waiting.pop(every[number], None)
            else:
                parked.setdefault(wanted, []).append(number)

        hub, at = library.getcurrent(), 0
        # Settings that a pass finds and puts back are those of the whole sweep, wherever it was parked in between.
        with torch.inference_mode(), pinned():
            try:
                for each in every:
                    each.gr_context = contextvars.copy_context()
                    self._hubs[each] = hub
                self._waiting |= {every[n]: Waiting(self._copies, least, stays) for n, least in enumerate(in_host)}
                self._in_turn(every, range(len(every)), go_on)
                while parked:
                    at = min((k for k in parked if k >= at), default=min(parked))
                    self._bring(at)
                    started = time.perf_counter()
                    self._in_turn(every, parked.pop(at), go_on)
                    self.computed_seconds += time.perf_counter() - started
            finally:
                for each in every:
                    self._hubs.pop(each, None)
                    self._waiting.pop(each, None)
                    if each and not each.dead:
                        each.throw()
        return [found[number] for number in range(len(every))]

    def wait_for(self, number: int, keep: Callable[[], Restore], arguments: Any) -> None:
        """Park the pass that runs now until a layer is in memory, which outside `together` is brought at once.

        keep: called before the pass is parked; what it returns is called before it goes on. arguments: of the layer.
        """
        import greenlet as library

        mine = library.getcurrent()
        hub, waiting = self._hubs.get(mine), self._waiting.get(mine)
        if hub is None:
            self._bring(number)
            return
        restore = keep()
        if waiting is not None:
            waiting.leave(arguments)
        hub.switch(number)
        if waiting is not None:
            waiting.be_here()
        restore()

    def _in_turn(self, every: Sequence[Any], numbers: Sequence[int], go_on: Callable[[int], None]) -> None:
        """Let passes go on; while one computes, tensors of the next one come, and those of the one before leave."""
        waiting = [self._waiting.get(every[number]) for number in numbers]
        for place, number in enumerate(numbers):
            if (after := waiting[place + 1] if place + 1 < len(waiting) else None) is not None:
                after.come()
            go_on(number)
            if (before := waiting[place - 1] if place else None) is not None:
                before.go()
        if waiting and (last := waiting[-1]) is not None:
            last.go()
