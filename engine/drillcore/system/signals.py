"""SIGTERM ends a command as Ctrl-C does.

Only the command line takes signals. A program that calls drillcore as a library keeps its own handlers.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Seconds until an interrupt that was dropped comes again.
AGAIN_SECONDS = 0.05


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt while inside, in the main thread, which must be the one that enters.

    An interrupt that Python drops, since it came while a library's destructor or callback ran, comes again.
    """
    before, hook = signal.signal(signal.SIGTERM, _interrupt), sys.unraisablehook
    timers = list[threading.Timer]()

    def again(dropped: sys.UnraisableHookArgs) -> None:
        if not isinstance(dropped.exc_value, KeyboardInterrupt):
            hook(dropped)
            return
        # Not at once: it would be dropped here too.
        timers.append(threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGTERM)))
        timers[-1].daemon = True
        timers[-1].start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
