"""`drillcore show`: what a store holds, and how complete it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import zarr

from drillcore.cli.tables import align_columns, sparkline
from drillcore.measures import PRIMARY
from drillcore.runtime.results import Measured, read_prediction, read_separation
from drillcore.store.arrays import HEADLINES
from drillcore.store.attributes import GROUPS, attributes_of
from drillcore.store.audits import read_audit
from drillcore.store.committed import fingerprints_of
from drillcore.store.freshness import is_asked_for, stale_results
from drillcore.store.layout import array_of
from drillcore.store.places.location import Location
from drillcore.store.reader import num_rows, open_root

WIDTH = 48


def store_lines(address: str) -> Iterator[str]:
    """Yield a line for the store, one for each model and dataset, and a curve along the layers for each that has one.

    Raises StoreError where there is no store, DamageError where it is damaged.
    """
    root = open_root(Location(address))
    attributes = attributes_of(root)
    yield f"store {address}: job {attributes['job']}, format {attributes['format']}"
    rows = [("model", "dataset", "sentences", "layers", "hidden", "complete", "audit", "results")]
    groups = [(m, d, leaf) for m, group in sorted(root.groups()) for d, leaf in sorted(group.groups())]
    job: list[str] | None = attributes.get(GROUPS)
    left = [] if job is None else [leaf.path for _, _, leaf in groups if leaf.path not in job]
    stale = {leaf.path: stale_results(leaf) for _, _, leaf in groups}
    rows += [(m, d, *_facts(leaf, leaf.path in left, stale[leaf.path])) for m, d, leaf in groups]
    yield from align_columns(rows)
    leaves = {leaf.path: leaf for _, _, leaf in groups}
    for path, why in stale.items():
        for name in [n for n in why if n in HEADLINES or n in ("prediction", "candidate_logprob")]:
            asked = path not in left and is_asked_for(leaves[path], name)
            what = "`drillcore run` on the job makes it again" if asked else "the job does not ask for it any more"
            yield f"stale: {path}: {name}: {why[name]}; {what}"
    if left:
        yield f"left the job: {', '.join(left)}; `drillcore rm {address} GROUP` removes one"
    yield from _curves(groups, read_separation, PRIMARY, "linear probe (primary; from chance to 1)")
    yield from _curves(groups, read_prediction, "top1", "expected next token the likeliest (0 to 1)")


def _facts(group: zarr.Group, left: bool, stale: Mapping[str, str]) -> tuple[str, str, str, str, str, str]:
    """Cells: sentences, layers, hidden size, share of committed shards, what the audit found, names of results.

    left: whether the group is no longer one of the job.
    """
    if "hidden_states" not in group:
        return "0", "0", "0", "0%", "none", "none"
    sentences, (_, layers, hidden) = num_rows(group), array_of(group, "hidden_states").shape
    prints = fingerprints_of(group)
    share = sum(map(bool, prints)) / max(1, len(prints))
    results = attributes_of(group).get("results", {})
    names = ", ".join(f"{n} (stale)" if n in stale else n for n in HEADLINES if n in results) or "none"
    audit = _audit(group, prints)
    return f"{sentences:,}", str(layers), str(hidden), f"{share:.0%}" + (", left the job" if left else ""), audit, names


def _audit(group: zarr.Group, fingerprints: Sequence[str]) -> str:
    """How many sentences were read back and computed again, and the worst relative error."""
    record = read_audit(group)
    if record is None:
        return "none"
    if not record.is_of(fingerprints):
        return "not of these states" if record.of else "not ended"
    return f"{record.sentences} to {record.worst_relative_error:.0e}"


def _curves(
    groups: Sequence[tuple[str, str, zarr.Group]],
    read: Callable[[zarr.Group], Measured | None],
    metric: str,
    title: str,
) -> Iterator[str]:
    """A table with a sparkline for each group that has the measure, its largest value, and the layer of that."""
    rows = []
    for model, dataset, group in groups:
        measured = read(group)
        by_bound, best = (None, None) if measured is None else (measured.of(metric), measured.best(metric))
        if measured is not None and by_bound is not None and best is not None:
            low = 1 / measured.num_labels if measured.num_labels else 0.0
            line = sparkline(by_bound["value"].tolist(), low=low, high=1.0, width=WIDTH)
            rows.append((model, dataset, line, f"{best.value:.2f}", best.layer_name))
    if rows:
        yield ""
        yield from align_columns([("model", "dataset", title, "most", "layer"), *rows])
