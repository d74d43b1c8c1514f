"""`drillcore show`: what a store holds, and how complete it is, as lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from drillcore.api.show import Curve, Group, Shown, show
from drillcore.cli.tables import sparkline
from drillcore.measures import CONTROLS, OF_NUMBERS
from drillcore.system.columns import align_columns

WIDTH = 48


def store_lines(address: str) -> Iterator[str]:
    """Yield a line for the store, one for each model and dataset, and a curve along the layers for each that has one.

    Raises StoreError where there is no store, DamageError where it is damaged.
    """
    yield from lines_of(show(address))


def lines_of(shown: Shown) -> Iterator[str]:
    """The lines of what a store holds."""
    yield f"store {shown.store}: job {shown.job}, format {shown.format}"
    rows = [("model", "dataset", "sentences", "layers", "hidden", "complete", "audit", "results")]
    rows += [(group.model, group.dataset, *_facts(group)) for group in shown.groups]
    yield from align_columns(rows)
    for group in shown.groups:
        for each in group.stale:
            what = "`drillcore run` on the job makes it again" if each.asked else "the job does not ask for it any more"
            yield f"stale: {group.path}: {each.name}: {each.why}; {what}"
    left = [group.path for group in shown.groups if not group.in_job]
    if left:
        yield f"left the job: {', '.join(left)}; `drillcore rm {shown.store} GROUP` removes one"
    yield from _skipped(shown.groups)
    # By label, where a group has several.
    measured = [
        (group, label, curve)
        for group in shown.groups
        for label, curve in (group.by_label or {"": group.separation}).items()
        if curve is not None
    ]
    classes, numbers = ([each for each in measured if (each[2].metric == OF_NUMBERS) is own] for own in (False, True))
    yield from _curves(classes, "linear probe (primary; from chance to 1)")
    yield from _curves(numbers, "R² of the linear probe (primary; 0 to 1)")
    predicted = [(group, "", group.prediction) for group in shown.groups]
    yield from _curves(predicted, "expected next token the likeliest (0 to 1)")


def _skipped(groups: Sequence[Group]) -> Iterator[str]:
    """Why measures were not taken: a line for each group and reason."""
    for group in groups:
        names: dict[str, list[str]] = {}
        for name, why in group.skipped.items():
            names.setdefault(why, []).append(name)
        yield from (f"not measured: {group.path}: {', '.join(each)}: {why}" for why, each in names.items())


def _facts(group: Group) -> tuple[str, str, str, str, str, str]:
    """Cells: sentences, layers, hidden size, share of committed shards, what the audit found, names of results."""
    counts = (group.said_of_size, str(group.layers), str(group.hidden_size))
    return (*counts, group.said_of_states, group.said_of_audit, group.said_of_results)


def _curves(curves: Sequence[tuple[Group, str, Curve | None]], title: str) -> Iterator[str]:
    """A table with a sparkline for each group that has the measure, its largest value, and the layer of that.

    The label of each is named where a group has several.
    """
    named = any(label for _, label, _ in curves)
    rows = [
        (
            *(group.model, group.dataset, *([label] if named else [])),
            sparkline(curve.values, low=curve.low, high=1.0, width=WIDTH),
            *(f"{curve.best:.2f}", curve.best_layer),
            ", ".join(f"{CONTROLS.get(name, name)} {value:.2f}" for name, value in curve.controls.items()),
        )
        for group, label, curve in curves
        if curve is not None
    ]
    if rows:
        yield ""
        of = ("model", "dataset", *(["label"] if named else []))
        header = (*of, title, "best", "layer", "without the model" if any(r[-1] for r in rows) else "")
        yield from align_columns([header, *rows])
