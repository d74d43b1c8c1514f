"""What a store holds and how complete it is, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import zarr

from drillcore.cli.tables import align_columns, sparkline
from drillcore.store.arrays import HEADLINES
from drillcore.store.layout import array_of, attributes_of
from drillcore.store.places.location import Location
from drillcore.store.reader import open_root, read_array

WIDTH = 48


def describe(address: str) -> Iterator[str]:
    """A line for the store and one for each model and dataset; then how these run along the layers.

    Raises StoreError where there is no store, DamageError where it is damaged.
    """
    root = open_root(Location(address))
    yield f"store {address}: job {root.attrs['job']}, format {root.attrs['format']}"
    rows = [("model", "dataset", "sentences", "layers", "hidden", "complete", "results")]
    groups = [(m, d, leaf) for m, group in sorted(root.groups()) for d, leaf in sorted(group.groups())]
    rows += [(model, dataset, *_facts(leaf)) for model, dataset, leaf in groups]
    yield from align_columns(rows)
    yield from _curves(groups, "separation", "metric", "probe", "linear probe (primary; from chance to 1)")
    yield from _curves(groups, "prediction", "prediction_metric", "top1", "expected next token the likeliest (0 to 1)")


def _facts(group: zarr.Group) -> tuple[str, str, str, str, str]:
    if "hidden_states" not in group:
        return "0", "0", "0", "0%", "none"
    sentences, layers, hidden = array_of(group, "hidden_states").shape
    prints = np.asarray(array_of(group, "shard_fingerprint")[:])
    share = float(prints.any(axis=1).mean()) if len(prints) else 0.0
    results = attributes_of(group).get("results", {})
    named = ", ".join(name for name in HEADLINES if name in results) or "none"
    return f"{sentences:,}", str(layers), str(hidden), f"{share:.0%}", named


def _curves(
    groups: Sequence[tuple[str, str, zarr.Group]], array: str, coordinate: str, metric: str, title: str
) -> Iterator[str]:
    """A sparkline for each group that has the measure, with its largest value and where that is."""
    rows = []
    for model, dataset, group in groups:
        results = attributes_of(group).get("results", {})
        if array in results and array in group:
            labels = len(results[array].get("labels", ()))
            rows += [(model, dataset, *row) for row in _curve(group, array, coordinate, metric, labels)]
    if rows:
        yield ""
        yield from align_columns([("model", "dataset", title, "most", "layer"), *rows])


def _curve(
    group: zarr.Group, array: str, coordinate: str, metric: str, num_labels: int
) -> Iterator[tuple[str, str, str]]:
    """One row, or none where the measure is not there or was skipped."""
    metrics = [str(m) for m in read_array(group, coordinate)]
    if metric not in metrics:
        return
    value_L = read_array(group, array)[:, metrics.index(metric), 0]
    if np.isnan(value_L).all():
        return
    best = int(np.nanargmax(value_L))
    line = sparkline(value_L.tolist(), low=1 / num_labels if num_labels else 0.0, high=1.0, width=WIDTH)
    yield line, f"{value_L[best]:.2f}", str(read_array(group, "layer_name")[best])
