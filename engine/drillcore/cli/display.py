"""Progress of a run, on standard error: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from drillcore.cli.loudness import loudness
from drillcore.cli.tables import OutputClosed, write_line
from drillcore.system.progress import Silent, counted
from drillcore.system.visible import visible

PLAIN_EVERY_SECONDS = 5.0


def make_display() -> Display:
    """Bars for a terminal, lines for a log, nothing where the user asked for quiet. Results are not for it."""
    if loudness().quiet:
        return Nothing()
    console = Unending(stderr=True)
    return Bars(console) if console.is_terminal else Lines(console)


class Unending(Console):
    """A console whose reader may leave: what is said then goes nowhere, and the run goes on."""

    def on_broken_pipe(self) -> None:
        """Say nothing more."""
        self.quiet = True
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stderr.fileno())
            os.close(nowhere)


class Nothing(Silent):
    """Shows nothing but warnings."""

    def warn(self, message: str) -> None:
        """Print a line, whatever was asked for."""
        with suppress(OutputClosed):  # nobody listens any more
            write_line(message, sys.stderr)

    def close(self) -> None:
        """Nothing to remove."""


class Lines:
    """Progress as a plain line every few seconds, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage, self._unit = "", ""
        self._total = self._done = 0
        self._started = self._printed = 0.0

    def start(self, stage: str, total: int, unit: str) -> None:
        """A stage begins."""
        self._stage, self._unit = stage, unit
        self._total, self._done = total, 0
        self._started = self._printed = time.monotonic()
        self.say(f"{stage}: {counted(total, unit)}")

    def advance(self, count: int) -> None:
        """Count, and print a line every few seconds."""
        self._done += count
        now = time.monotonic()
        if now - self._printed >= PLAIN_EVERY_SECONDS:
            self._printed = now
            rate = self._done / (now - self._started)
            left = (self._total - self._done) / rate if rate else 0.0
            self.say(
                f"{self._stage}: {self._done:,} of {self._total:,} {self._unit}, {rate:,.1f}/s, {_clock(left)} left"
            )

    def finish(self, summary: str) -> None:
        """The stage ended."""
        self.say(summary)

    def say(self, message: str) -> None:
        """Print a line as it is."""
        self._console.print(visible(message), markup=False, highlight=False, soft_wrap=True)

    def warn(self, message: str) -> None:
        """Print a line as it is."""
        self.say(message)

    def close(self) -> None:
        """Nothing to remove."""


class Bars:
    """Progress as a live bar with rate and remaining time."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Progress | None = None
        self._task: TaskID | None = None
        self._started, self._done = 0.0, 0

    def start(self, stage: str, total: int, unit: str) -> None:
        """A stage begins."""
        self.close()
        self._started, self._done = time.monotonic(), 0
        columns: list[Any] = [
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        ]
        self._live = Progress(*columns, console=self._console, transient=True)
        self._task = self._live.add_task(visible(stage), total=total, rate="")
        self._live.start()

    def advance(self, count: int) -> None:
        """Move the bar."""
        self._done += count
        if self._live is not None and self._task is not None:
            rate = self._done / max(1e-9, time.monotonic() - self._started)
            self._live.update(self._task, advance=count, rate=f"{rate:,.1f}/s")

    def finish(self, summary: str) -> None:
        """The stage ended."""
        self.close()
        self.say(summary)

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        self._console.print(visible(message), markup=False, highlight=False, soft_wrap=True)

    def warn(self, message: str) -> None:
        """Print a line above the bar."""
        self.say(message)

    def close(self) -> None:
        """Remove the bar."""
        if self._live is not None:
            self._live.stop()
            self._live = self._task = None


Display = Lines | Bars | Nothing


def _clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any.

    >>> _clock(75), _clock(3675)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
