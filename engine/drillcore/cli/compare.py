"""`drillcore compare`: two groups of a store side by side, as a table and a CSV file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import zarr

from drillcore.cli.tables import align_columns
from drillcore.errors import CommitError, InputError
from drillcore.measures.comparison import DISPERSIONS, Difference, Side, as_csv, compare
from drillcore.runtime.results import read_separation
from drillcore.store.freshness import stale
from drillcore.store.places.location import Location
from drillcore.store.reader import open_root
from drillcore.system.bounds import problem_with_output
from drillcore.system.files import write_atomic

HEADER = ("layer", "measure", "A", "B", "A - B", "95 %", "all layers at once", "verdict")


def comparison_lines(
    address: str, a: str, b: str, metrics: Sequence[str] = (), csv: Path | None = None
) -> Iterator[str]:
    """Yield the lines of a table that compares two groups, each `model/dataset`; by default by the two dispersions.

    csv: a file to write the same rows to. Raises InputError where a group is missing or has not been measured,
    StoreError where there is no store, CommitError where the file cannot be written.
    """
    problem = "" if csv is None else problem_with_output(csv)
    if problem:
        raise InputError(f"--csv {csv} {problem}", hint="Name another file.")
    root = open_root(Location(address))
    sides = [_side(root, path) for path in (a, b)]
    rows = compare(sides[0], sides[1], metrics or DISPERSIONS)
    if csv is not None:
        _write(csv, as_csv(rows))
    yield f"A = {a}, B = {b}"
    yield from align_columns([HEADER, *(_cells(row) for row in rows)])


def _write(path: Path, text: str) -> None:
    try:
        write_atomic(path, text.encode())
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise CommitError(f"{path} could not be written: {why}", hint="Name another --csv.") from None


def _side(root: zarr.Group, path: str) -> Side:
    names = sorted(f"{m}/{d}" for m, g in root.groups() for d in g.group_keys())
    group = root[path.strip("/")] if path.strip("/") in names else None
    if not isinstance(group, zarr.Group) or "hidden_states" not in group:
        raise InputError(f"the store has no {path}", hint=f"It has {', '.join(names)}." if names else "It is empty.")
    why = stale(group, "separation")
    if why:
        raise InputError(f"{path}: its measures are stale: {why}", hint="Run `drillcore measure` on its job first.")
    measured = read_separation(group)
    if measured is None:
        raise InputError(f"{path} has not been measured", hint="Run `drillcore measure` on its job first.")
    numbers = tuple(measured.layers_L.tolist())
    return Side(path, numbers, measured.layer_names, measured.metrics, measured.values_LMB)


def _cells(row: Difference) -> tuple[str, ...]:
    return (
        row.layer_name,
        row.metric,
        f"{row.a:.3f}",
        f"{row.b:.3f}",
        f"{row.difference:+.3f}",
        f"{row.low:+.3f} to {row.high:+.3f}",
        f"{row.all_low:+.3f} to {row.all_high:+.3f}",
        row.verdict or "not known",
    )
