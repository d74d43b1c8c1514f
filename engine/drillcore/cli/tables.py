"""Lines for the terminal: free of control characters, or drawn as sparklines."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from drillcore.system.visible import visible

BARS = "▁▂▃▄▅▆▇█"
GAP = "·"


class OutputClosed(Exception):
    """Standard output or error takes no more. by_reader: whether who read it has left, as `head` does."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the output cannot be written: {error.strerror or error}")
        self.by_reader = isinstance(error, BrokenPipeError)


def write_line(text: str, file: TextIO | None = None) -> None:
    """Print what `visible` makes of a text, by default to standard output. Raises OutputClosed where that fails."""
    try:
        print(visible(text), file=file)
    except OSError as error:
        raise OutputClosed(error) from None


def say_aside(line: str) -> None:
    """Print a line beside what the command prints."""
    write_line(line, sys.stderr)


def flush_output() -> None:
    """Hand all lines to whoever reads standard output. Raises OutputClosed where that fails."""
    try:
        sys.stdout.flush()
    except OSError as error:
        raise OutputClosed(error) from None


def write_json(value: dict[str, Any]) -> None:
    """Print one JSON document to standard output, in ASCII, with null for numbers that are not finite.

    Raises OutputClosed where that fails.
    """
    from drillcore.system.files import without_nan

    write_line(json.dumps(without_nan(value), indent=2, allow_nan=False))


def sparkline(values: Sequence[float], *, low: float | None = None, high: float | None = None, width: int = 0) -> str:
    """One character for each value: ▁ at `low`, █ at `high` (by default the smallest and largest value).

    Values beyond them are clipped, values that are not finite are dots, and equal values stand at half height. With
    `width`, more values than that are averaged down to it.

    >>> sparkline([0.0, 0.25, 0.5, 1.0, float("nan")])
    '▁▃▅█·'
    >>> sparkline([1.0, 3.0, 5.0, 7.0], width=2)
    '▁█'
    """
    shown = [float(v) for v in values]
    if 0 < width < len(shown):
        shown = [_mean(shown[len(shown) * i // width : len(shown) * (i + 1) // width]) for i in range(width)]
    finite = [v for v in shown if math.isfinite(v)]
    if not finite:
        return GAP * len(shown)
    bottom, top = min(finite) if low is None else low, max(finite) if high is None else high
    return "".join(_bar(v, bottom, top) for v in shown)


def _mean(values: Sequence[float]) -> float:
    finite = [v for v in values if math.isfinite(v)]
    return sum(finite) / len(finite) if finite else math.nan


def _bar(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return GAP
    if high <= low:
        return BARS[len(BARS) // 2 - 1]
    share = min(max((value - low) / (high - low), 0.0), 1.0)
    return BARS[min(int(share * len(BARS)), len(BARS) - 1)]
