"""What a store holds and how complete it is, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import zarr

from drillcore.columns import align_columns
from drillcore.store.layout import array_of, attributes_of
from drillcore.store.location import Location
from drillcore.store.reader import open_root


def describe(address: str) -> Iterator[str]:
    """A line for the store and one for each model and dataset; raises StoreError where there is none."""
    root = open_root(Location(address))
    yield f"store {address}: job {root.attrs['job']}, format {root.attrs['format']}"
    header = ("model", "dataset", "sentences", "layers", "hidden", "complete", "results")
    rows = [header]
    for model, group in sorted(root.groups()):
        for dataset, leaf in sorted(group.groups()):
            rows.append((model, dataset, *_facts(leaf)))
    yield from align_columns(rows)


def _facts(group: zarr.Group) -> tuple[str, str, str, str, str]:
    sentences, layers, hidden = array_of(group, "hidden_states").shape
    prints = np.asarray(array_of(group, "shard_fingerprint")[:])
    share = float(prints.any(axis=1).mean()) if len(prints) else 0.0
    results = ", ".join(sorted(attributes_of(group).get("results", {}))) or "none"
    return f"{sentences:,}", str(layers), str(hidden), f"{share:.0%}", results
