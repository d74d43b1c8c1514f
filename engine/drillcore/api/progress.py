"""Who hears the progress of what Python code starts: nobody, standard error, a page in a notebook, or a listener."""

from __future__ import annotations

import html
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from drillcore.runtime.log import LOGGER
from drillcore.system.progress import ProgressListener, Silent, counted
from drillcore.system.visible import visible

# Seconds between two lines on progress, and between two changes of a notebook's page.
LINES_EVERY, PAGES_EVERY = 5.0, 0.2
# What a listener has.
METHODS = ("start", "advance", "finish", "say", "warn")
# Messages that a notebook's page keeps.
MOST_MESSAGES = 200


def listener(progress: bool | ProgressListener | None, *, logged: bool = True) -> ProgressListener:
    """The listener that a value of `progress` stands for.

    logged: whether every message goes to the logger `drillcore` as well; a run does that by itself.

    progress: None or False shows nothing. True shows bars in a Jupyter notebook, and lines on standard error elsewhere.
    Anything else is a listener itself, see `drillcore.system.progress.ProgressListener`. Raises TypeError for what has
    none of its methods.

    >>> heard = listener(None)
    >>> heard.start("extract", 3, "sentences"), heard.advance(3), heard.finish("extract: done")
    (None, None, None)
    """
    if progress is None or progress is False:
        return _maybe_logged(Silent(), logged)
    if progress is True:
        show = notebook_display()
        return _maybe_logged(Lines(_to_standard_error) if show is None else Page(show), logged)
    missing = [name for name in METHODS if not callable(getattr(progress, name, None))]
    if missing:
        raise TypeError(
            f"progress is True, None or a listener, and {type(progress).__name__} has no method {', '.join(missing)}"
        )
    return _maybe_logged(progress, logged)


def _maybe_logged(shown: ProgressListener, logged: bool) -> ProgressListener:
    return Logged(shown) if logged else shown


class Logged:
    """Passes everything on to another listener, and messages to the logger too. shown: the other one."""

    def __init__(self, shown: ProgressListener) -> None:
        self.shown = shown

    def start(self, stage: str, total: int, unit: str) -> None:
        """A stage begins."""
        LOGGER.info("%s: %s", visible(stage), counted(total, unit))
        self.shown.start(stage, total, unit)

    def advance(self, count: int) -> None:
        """`count` more units are done."""
        self.shown.advance(count)

    def finish(self, summary: str) -> None:
        """The stage ended."""
        LOGGER.info("%s", visible(summary))
        self.shown.finish(summary)

    def say(self, message: str) -> None:
        """Show the user a message."""
        LOGGER.info("%s", visible(message))
        self.shown.say(message)

    def warn(self, message: str) -> None:
        """Show the user a warning."""
        LOGGER.warning("%s", visible(message))
        self.shown.warn(message)


class Lines:
    """Progress as lines. write: takes one of them."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._bar, self._written = Bar(), 0.0

    def start(self, stage: str, total: int, unit: str) -> None:
        """A stage begins."""
        self._bar = Bar(stage, total, unit)
        self._written = time.monotonic()
        self.say(f"{stage}: {counted(total, unit)}")

    def advance(self, count: int) -> None:
        """Count, and write a line every few seconds."""
        self._bar.done += count
        now = time.monotonic()
        if now - self._written >= LINES_EVERY:
            self._written = now
            self.say(str(self._bar))

    def finish(self, summary: str) -> None:
        """The stage ended."""
        self.say(summary)

    def say(self, message: str) -> None:
        """Write a line."""
        self._write(visible(message))

    def warn(self, message: str) -> None:
        """Write a line."""
        self.say(message)


class Page:
    """Progress as one output of a notebook, which changes: messages, and a bar below them.

    show: displays HTML with a text for front ends that have none, and replaces what it displayed before.
    """

    def __init__(self, show: Callable[[str, str], None]) -> None:
        self._show = show
        self._messages: deque[str] = deque(maxlen=MOST_MESSAGES)
        self._bar: Bar | None = None
        self._shown = 0.0

    def start(self, stage: str, total: int, unit: str) -> None:
        """A stage begins."""
        self._bar = Bar(stage, total, unit)
        self._draw()

    def advance(self, count: int) -> None:
        """Move the bar, a few times a second."""
        if self._bar is not None:
            self._bar.done += count
            if time.monotonic() - self._shown >= PAGES_EVERY:
                self._draw()

    def finish(self, summary: str) -> None:
        """The stage ended: its line takes the place of the bar."""
        self._bar = None
        self.say(summary)

    def say(self, message: str) -> None:
        """Add a message."""
        self._messages.append(visible(message))
        self._draw()

    def warn(self, message: str) -> None:
        """Add a message."""
        self.say(message)

    def _draw(self) -> None:
        self._shown = time.monotonic()
        lines = [*self._messages, *([] if self._bar is None else [str(self._bar)])]
        bar = "" if self._bar is None else self._bar.as_html()
        said = "".join(f"<div>{html.escape(line)}</div>" for line in self._messages)
        self._show(f"<div>{said}{bar}</div>", "\n".join(lines))


class Bar:
    """How far a stage is. done: units of work."""

    def __init__(self, stage: str = "", total: int = 0, unit: str = "") -> None:
        self.stage, self.total, self.unit = visible(stage), total, unit
        self.done, self._started = 0, time.monotonic()

    def __str__(self) -> str:
        rate = self.done / max(1e-9, time.monotonic() - self._started)
        return f"{self.stage}: {self.done:,} of {self.total:,} {self.unit}, {rate:,.1f}/s"

    def as_html(self) -> str:
        """A bar with these words beside it."""
        share = min(max(self.done, 0), max(self.total, 1))
        return f'<div><progress max="{max(self.total, 1)}" value="{share}"></progress> {html.escape(str(self))}</div>'


def notebook_display() -> Callable[[str, str], None] | None:
    """What shows HTML in the notebook that this code runs in, each time in place of what was shown; None elsewhere."""
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython
    from IPython.display import display

    if getattr(get_ipython(), "kernel", None) is None:
        return None
    handles: list[Any] = []

    def show(page: str, text: str) -> None:
        data = {"text/html": page, "text/plain": text}
        if handles:
            handles[0].update(data, raw=True)
        else:
            handles.append(display(data, raw=True, display_id=True))  # type: ignore[no-untyped-call]

    return show


def _to_standard_error(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
