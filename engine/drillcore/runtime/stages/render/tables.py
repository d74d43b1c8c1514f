"""The report's overview: job, models, datasets, figures and versions, as tables of words."""

from __future__ import annotations

import numpy as np
import zarr

from drillcore.measures import PRIMARY
from drillcore.pictures.data import Table
from drillcore.runtime.context import Context
from drillcore.runtime.results import (
    columns_of_labels,
    p_in_words,
    read_prediction,
    read_separation,
    result_facts,
)
from drillcore.runtime.stages.render.colors import coloring
from drillcore.runtime.stages.render.layers import model_title, unprojected
from drillcore.store.attributes import attributes_of
from drillcore.store.audits import read_audit
from drillcore.store.layout import read_array

LISTED = 8
NONE = "–"


def overview(context: Context) -> tuple[Table, ...]:
    """All tables. They contain no times and no facts of the machine: the same store gives the same page."""
    return (_job(context), _datasets(context), _models(context), _figures(context), _versions(context))


def _job(context: Context) -> Table:
    job = context.job
    store = context.store.location.address.rsplit("/", 1)[-1]
    projection = f"{job.project.method}, fit: {job.project.fit}, {'' if job.project.align else 'not '}aligned"
    row = (job.name, store, str(job.extract.layers), projection, job.measure.standardise)
    return Table("Job", ("job", "store", "layers", "projection", "states before probe and neighbours"), (row,))


def _versions(context: Context) -> Table:
    facts = context.manifest.facts
    commit = facts.get("git_commit")
    versions = {**facts["versions"], **({"source commit": commit[:12] + commit[40:]} if commit else {})}
    return Table("Versions", (), tuple(sorted(versions.items())))


def _datasets(context: Context) -> Table:
    job = context.job
    rows = []
    missing = unprojected(context)
    files = {
        d.name: d.hub.address if d.hub else ", ".join(path.rsplit("/", 1)[-1] for path in d.paths[:3])
        for d in job.measured_groups
    }
    for dataset in job.measured_groups:
        model = next((m.group for m in job.models if (m.group, dataset.name) not in missing), None)
        if model is None:
            rows.append((dataset.name, files[dataset.name], NONE, NONE, NONE))
            continue
        group = context.store.dataset(model, dataset.name).group
        lengths_N = read_array(group, "n_tokens")
        tokens = f"{lengths_N.min()} to {lengths_N.max()}, median {np.median(lengths_N):g}"
        rows.append((dataset.name, files[dataset.name], f"{len(lengths_N):,}", _labels(group), tokens))
    return Table("Datasets", ("dataset", "file", "sentences", "labels", "tokens a sentence"), tuple(rows))


def _labels(group: zarr.Group) -> str:
    named = columns_of_labels(group)
    return "; ".join(f"{field}: {_counts(group, name)}" for field, name in named.items()) or _counts(group, "label")


def _counts(group: zarr.Group, column: str) -> str:
    """How many sentences have each label of a column."""
    colors = coloring([group], column)
    if colors.value_range is not None:
        return "{:.4g} to {:.4g}".format(*colors.value_range)
    if not colors.categories:
        return NONE
    codes_N = colors.values[0]
    counts = np.bincount(codes_N[codes_N >= 0], minlength=len(colors.categories))
    named = [f"{name} {count:,}" for name, count in zip(colors.categories, counts, strict=True)]
    more = [f"and {len(named) - LISTED} more"] if len(named) > LISTED else []
    more += [f"none {count:,}" for count in colors.unlabelled if count]
    return ", ".join([*named[:LISTED], *more])


def _models(context: Context) -> Table:
    rows = []
    for model in context.job.models:
        source = context.inputs.sources[model.group]
        numerics = attributes_of(context.store.model(model.group)).get("numerics", {})
        check = context.manifest.facts["models"].get(model.group, {}).get("self_check", {})
        error = check.get("worst_relative_error")
        rows.append(
            (
                model_title(context, model.group),
                str(source.facts.num_layers),
                str(source.facts.hidden_size),
                str(numerics.get("dtype", NONE)),
                str(numerics.get("layout", NONE)),
                NONE if error is None else f"{error:.1e}",
                _audited(context, model.group),
            )
        )
    header = ("model", "blocks", "hidden size", "dtype", "batches", "worst relative error of the self-check")
    if all(row[-1] == NONE for row in rows):
        # As in stores of versions that had no audit.
        return Table("Models", header, tuple(row[:-1] for row in rows))
    return Table("Models", (*header, "stored sentences computed again, and their worst error"), tuple(rows))


def _audited(context: Context, model: str) -> str:
    """Sentences of all datasets that were read back and computed again, and the largest of their errors."""
    records = []
    for dataset in context.job.groups:
        writer = context.store.dataset(model, dataset.name)
        record = read_audit(writer.group)
        if record is not None and record.is_of(writer.fingerprints()):
            records.append(record)
    if not records:
        return NONE
    worst = max(records, key=lambda r: r.worst_relative_error)
    return f"{sum(r.sentences for r in records)}, {worst.worst_relative_error:.1e}"


def _figures(context: Context) -> Table:
    job, rows = context.job, []
    several = any(dataset.more_labels for dataset in job.measured_groups)
    for model in job.models:
        for dataset in job.measured_groups:
            group = context.store.dataset(model.group, dataset.name).group
            title = model_title(context, model.group)
            for label in ("", *dataset.more_labels):
                # What no label decides stands beside the main one.
                others = (_top1(group), _trustworthiness(group)) if not label else (NONE, NONE)
                named = ((label or str(dataset.label_field)) if dataset.more_labels else NONE,) if several else ()
                rows.append((title, dataset.name, *named, *_best_probe(group, label), *others))
    header = (
        "model",
        "dataset",
        *(("label",) if several else ()),
        "best linear probe (95 % interval)",
        "at layer",
        "null, upper end",
        "p",
        "expected next token the likeliest, last layer",
        "trustworthiness of the projection",
    )
    return Table("Figures", header, tuple(rows))


def _best_probe(group: zarr.Group, label: str) -> tuple[str, str, str, str]:
    """The primary measure at its best layer, the name of that layer, the upper end of the null, and p."""
    measured = read_separation(group, label)
    best = None if measured is None else measured.best(measured.primary)
    if measured is None or best is None:
        return (NONE,) * 4
    p = p_in_words(best.p).removeprefix("= ") if np.isfinite(best.p) else NONE
    name = "" if measured.primary == PRIMARY else "R² "
    interval = f"{name}{best.value:.2f} ({best.low:.2f} to {best.high:.2f})"
    return (interval, best.layer_name, _number(best.null_high, ".2f"), p)


def _top1(group: zarr.Group) -> str:
    """Share of sentences whose expected next token is the likeliest at the last layer."""
    measured = read_prediction(group)
    by_bound = None if measured is None else measured.of("top1")
    return NONE if by_bound is None else _number(float(by_bound["value"][-1]), ".0%")


def _trustworthiness(group: zarr.Group) -> str:
    """Trustworthiness of the projection: of the worst layer and of the best."""
    projected = result_facts(group, "trustworthiness") is not None
    trust_L = read_array(group, "trustworthiness") if projected else np.empty(0)
    known = trust_L[np.isfinite(trust_L)] if trust_L.dtype.kind == "f" else trust_L
    return f"{known.min():.2f} to {known.max():.2f}" if len(known) else NONE


def _number(value: float, form: str) -> str:
    return format(value, form) if np.isfinite(value) else NONE
