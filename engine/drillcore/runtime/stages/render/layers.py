"""Which layers are drawn, and the titles of models in pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from drillcore.errors import RunError
from drillcore.job.fields import Model, Render, is_local
from drillcore.runtime.context import Context


def slots_of(settings: Render, numbers: Sequence[int]) -> list[int]:
    """Positions of the layers to draw in a group that holds layers of these numbers.

    >>> slots_of(Render(layers=2), [0, 1, 2, 3]), slots_of(Render(layers=[1, 3]), [0, 1, 2, 3])
    ([0, 2, 3], [1, 3])
    """
    wanted = settings.layers
    if isinstance(wanted, tuple):
        return [k for k, n in enumerate(numbers) if n in wanted]
    if isinstance(wanted, int):
        return [k for k in range(len(numbers)) if k % wanted == 0 or k == len(numbers) - 1]
    return list(range(len(numbers)))


def check_layers(context: Context) -> None:
    """Raise RunError where `render.layers` names a layer that no model has, or no layer of some model."""
    wanted = context.job.render.layers
    if not isinstance(wanted, tuple):
        return
    held = context.inputs.layers
    nowhere = [n for n in wanted if not any(n in layers for layers in held.values())]
    empty = [name for name, layers in held.items() if not set(wanted) & set(layers)]
    if nowhere or empty or not wanted:
        what = f"layer {nowhere[0]} is in no model's store" if nowhere else f"no layer of {', '.join(empty)} is chosen"
        ranges = "; ".join(f"{name}: {_ranges(layers)}" for name, layers in held.items())
        raise RunError(f"render.layers: {what}", hint=f"There are {ranges}.")


def check_projected(context: Context) -> None:
    """Raise RunError where a model and dataset has no projection to draw."""
    job = context.job
    for model in job.models:
        for dataset in job.datasets:
            writer = context.store.dataset(model.group, dataset.name)
            if not writer.result_made_from(job.project.method):
                stage = "project" if "hidden_states" in writer.group else "run"
                what = f"{model.group}/{dataset.name} has no {job.project.method} projection to draw"
                raise RunError(what, hint=f"Run `drillcore {stage}` first.")


def _ranges(layers: Sequence[int]) -> str:
    whole = list(layers) == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]} to {layers[-1]}" if whole else ", ".join(map(str, layers))


def model_title(context: Context, group: str) -> str:
    """The name of a model in pictures; for converted models with their kind and quantisation."""
    source = context.inputs.sources[group]
    model: Model = source.model
    if model.random_weights:
        return f"{(model.as_ or model.id) if is_local(model.id) else model.id} (random weights)"
    note = Path(source.location) / "drillcore.json"
    if note.exists():
        facts = json.loads(note.read_text(encoding="utf-8"))
        return f"{model.id} ({facts['kind']}, {facts['quantisation'].split(' ')[0]} weights)"
    return model.as_ or model.id
