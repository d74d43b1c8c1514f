"""`drillcore plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from drillcore.cli.arguments import JobFile, Limit, Set


def plan(
    job: JobFile,
    set_: Set = None,
    limit: Limit = None,
    calibrate: Annotated[bool, typer.Option(help="Load each model and time it for a few seconds.")] = True,
) -> None:
    """Show a sentence of each dataset as it is encoded, and estimate what the job will cost. Writes nothing."""
    from drillcore.cli.display import make_display
    from drillcore.cli.plan import estimate, faster_in_bfloat16
    from drillcore.cli.tables import align_columns
    from drillcore.job.file import load_job

    display = make_display()
    estimates = []
    rows = [("model", "dataset", "rows", "tokens", "nodes", "shared", "padding", "raw", "on disk", "time")]
    for e in estimate(load_job(job, set_ or (), None, limit), display, calibrate=calibrate):
        shared = f"{1 - e.num_nodes / max(1, e.num_tokens):.0%}"
        padding = f"{e.num_padding / max(1, e.num_nodes + e.num_padding):.1%}"
        spent = "not timed" if e.seconds is None else f"{e.seconds:,.0f} s"
        counts = (f"{e.num_rows:,}", f"{e.num_tokens:,}", f"{e.num_nodes:,}", shared, padding)
        if e.within:
            counts, spent = (counts[0], "", "", "", ""), f"with {e.within}"
        rows.append((e.model, e.dataset, *counts, _size(e.raw_bytes), _size(e.disk_bytes), spent))
        for line in e.example:
            display.say(line)
        estimates.append(e)
    for line in [*align_columns(rows), *faster_in_bfloat16(estimates)]:
        display.say(line)


def _size(num_bytes: int) -> str:
    """A number of bytes in its natural unit: three digits, B to TB.

    >>> _size(1234), _size(5 * 10**12)
    ('1.23 kB', '5.0 TB')
    """
    value = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"
