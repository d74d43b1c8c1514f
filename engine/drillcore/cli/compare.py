"""`drillcore compare`: two groups of a store side by side, as a table and a CSV file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from drillcore.api.measure import Comparison, compare
from drillcore.errors import InputError
from drillcore.measures.comparison import Difference
from drillcore.system.bounds import problem_with_output
from drillcore.system.columns import align_columns

HEADER = ("layer", "measure", "A", "B", "A - B", "95 %", "all layers at once", "verdict")


def comparison(
    address: str, a: str, b: str, metrics: Sequence[str] = (), csv: Path | None = None, label: str | None = None
) -> Comparison:
    """Compare two groups, each `model/dataset`; csv: a file to write the same rows to.

    Raises InputError where a group is missing or has not been measured, StoreError where there is no store, CommitError
    where the file cannot be written.
    """
    problem = "" if csv is None else problem_with_output(csv)
    if problem:
        raise InputError(f"--csv {csv} {problem}", hint="Name another file.")
    compared = compare(address, a, b, metrics, label=label)
    if csv is not None:
        compared.to_csv(csv)
    return compared


def lines_of(compared: Comparison) -> Iterator[str]:
    """The lines of a table that compares two groups."""
    yield f"A = {compared.a}, B = {compared.b}" + (f", label {compared.label}" if compared.label else "")
    if compared.note:
        yield compared.note
    yield from align_columns([HEADER, *(_cells(row) for row in compared.rows)])


def _cells(row: Difference) -> tuple[str, ...]:
    return (
        row.layer_name,
        row.metric,
        *(_number(value) for value in (row.a, row.b)),
        _number(row.difference, "+"),
        *(_interval(row.low, row.high), _interval(row.all_low, row.all_high)),
        row.verdict or "not known",
    )


def _number(value: float, sign: str = "") -> str:
    """A cell; empty where the measure was skipped."""
    return "" if math.isnan(value) else f"{value:{sign}.3f}"


def _interval(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"{low:+.3f} to {high:+.3f}"
