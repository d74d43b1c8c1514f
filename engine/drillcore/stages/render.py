"""The render stage: grids of panels from the projections of the store.

Shape legend: N sentences, L layers.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from drillcore.cache import digest, write_atomic
from drillcore.errors import RunError
from drillcore.job import Render
from drillcore.pictures.grid import write_grid
from drillcore.pictures.panels import Grid, Panel, Row
from drillcore.stages.context import Context
from drillcore.store.layout import array_of, attributes_of
from drillcore.store.reader import column
from drillcore.store.writer import GroupWriter


def render(context: Context) -> None:
    """Draw every grid whose inputs changed since it was last drawn."""
    started = time.perf_counter()
    job = context.inputs.loaded.job
    folder = context.out / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    notes = _read_notes(folder)
    plans = list(_plans(context))
    context.report.start("render", len(plans), "pictures")
    drawn = 0
    for name, title, members in plans:
        made_from = digest(
            [[_inputs(w, job.project.method) for _, w in members], job.render.model_dump(mode="json"), title]
        )
        if notes.get(name) != made_from or not any(folder.glob(f"{name}*.png")):
            write_grid(_grid(context, title, members), folder / f"{name}.png")
            notes[name] = made_from
            write_atomic(folder / "made_from.json", json.dumps(notes, indent=2, sort_keys=True).encode())
            drawn += 1
        context.report.advance(1)
    context.manifest.record("stages", "render", wall_seconds=round(time.perf_counter() - started, 3))
    context.report.finish(f"{drawn} pictures drawn, {len(plans) - drawn} were there already, in {folder}")


def _plans(context: Context) -> list[tuple[str, str, list[tuple[str, GroupWriter]]]]:
    """File name, title and rows of each grid: a model's datasets apart and together, a dataset of all models."""
    models = [m.group for m in context.inputs.loaded.job.models]
    datasets = [d.name for d in context.inputs.loaded.job.datasets]
    plans: list[tuple[str, str, list[tuple[str, GroupWriter]]]] = []
    for model in models:
        called = _call(context, model)
        plans += [(f"{model}--{d}", f"{called} · {d}", [("", context.store.dataset(model, d))]) for d in datasets]
        if len(datasets) > 1:
            rows = [(d, context.store.dataset(model, d)) for d in datasets]
            plans.append((f"{model}--all-datasets", called, rows))
    if len(models) > 1:
        for dataset in datasets:
            rows = [(_call(context, m), context.store.dataset(m, dataset)) for m in models]
            plans.append((f"all-models--{dataset}", dataset, rows))
    return plans


def _call(context: Context, model: str) -> str:
    """What a model is called in pictures: quantised and instruct models by what they are."""
    source = context.inputs.sources[model]
    note = Path(source.location) / "drillcore.json"
    if note.exists():
        facts = json.loads(note.read_text(encoding="utf-8"))
        return f"{source.model.id} ({facts['kind']}, {facts['quantisation'].split(' ')[0]} weights)"
    return f"{source.model.id} (random weights)" if source.model.random_weights else source.model.as_ or source.model.id


def _inputs(writer: GroupWriter, method: str) -> list[str]:
    return [
        writer.group.path,
        writer.result_made_from(method),
        str(attributes_of(writer.group).get("columns_made_from")),
    ]


def _grid(context: Context, title: str, members: list[tuple[str, GroupWriter]]) -> Grid:
    job = context.inputs.loaded.job
    labels_of = [_labels(w, job.render.color) for _, w in members]
    categories = tuple(sorted({str(v) for labels in labels_of for v in labels}))
    rows = tuple(
        Row(name, _panels(w, labels, categories, job.project.method, job.render))
        for (name, w), labels in zip(members, labels_of, strict=True)
    )
    facts = attributes_of(members[0][1].group)["results"][job.project.method]
    footer = (
        f"{facts['backend']}, seed {facts['seed']}, n_neighbors {facts['n_neighbors']}, {facts['metric']}. "
        "Distances between clusters and their sizes mean nothing."
    )
    return Grid(
        title=title,
        subtitle=f"last-token hidden states, {job.project.method.upper()} per layer; colour: {job.render.color}",
        rows=rows,
        categories=categories,
        panel_px=job.render.panel_px,
        footer=footer,
    )


def _labels(writer: GroupWriter, name: str) -> Any:
    found = column(writer.group, name)
    if found is None:
        return np.full(array_of(writer.group, "hidden_states").shape[0], "no label", dtype=object)
    return found


def _panels(
    writer: GroupWriter, labels: Any, categories: tuple[str, ...], method: str, settings: Render
) -> tuple[Panel, ...]:
    if method not in writer.group:
        raise RunError(f"{writer.group.path} has no projection to draw", hint="Run `drillcore project` first.")
    points_LN2 = np.asarray(array_of(writer.group, method)[...])
    names, numbers = column(writer.group, "layer_name"), column(writer.group, "layer")
    degenerate_L = np.asarray(array_of(writer.group, "degenerate")[:])
    values_N = np.array([categories.index(str(v)) for v in labels], np.int32)
    assert names is not None and numbers is not None
    return tuple(
        Panel(str(names[k]).replace("_", " "), points_LN2[k], values_N, bool(degenerate_L[k]))
        for k in _chosen(settings, numbers.tolist())
    )  # fmt: skip


def _chosen(settings: Render, numbers: list[int]) -> list[int]:
    """Positions of the layers to draw."""
    wanted = settings.layers
    if isinstance(wanted, tuple):
        return [k for k, n in enumerate(numbers) if n in wanted]
    if isinstance(wanted, int):
        return [k for k in range(len(numbers)) if k % wanted == 0 or k == len(numbers) - 1]
    return list(range(len(numbers)))


def _read_notes(folder: Path) -> dict[str, str]:
    try:
        found = json.loads((folder / "made_from.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
