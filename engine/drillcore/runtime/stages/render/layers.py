"""Which layers are drawn, and the titles of models in pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from drillcore.job.inputs import Dataset
from drillcore.job.model import Model, is_local
from drillcore.job.quantization import name_of_quantization
from drillcore.job.stages import Render
from drillcore.runtime.context import Context
from drillcore.runtime.results import result_facts
from drillcore.system.bounds import read_object

# The coordinate of the main label, which colours points unless the job names another one.
MAIN = "label"


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


def unprojected(context: Context) -> dict[tuple[str, str], str]:
    """Why a model and dataset cannot be drawn, for each that has no projection."""
    job, why = context.job, dict[tuple[str, str], str]()
    for model in job.models:
        for dataset in job.measured_groups:
            writer = context.store.dataset(model.group, dataset.name)
            if result_facts(writer.group, job.project.method) is None:
                stage = "project" if "hidden_states" in writer.group else "run"
                what = f"there is no {job.project.method} projection to draw; run `drillcore {stage}` first"
                why[model.group, dataset.name] = what
    return why


def drawn_models(context: Context, dataset: str) -> list[str]:
    """Groups of the models for which a dataset is projected."""
    missing = unprojected(context)
    return [m.group for m in context.job.models if (m.group, dataset) not in missing]


def panels_name(context: Context, dataset: Dataset, label: str) -> str:
    """What a dataset's panels, coloured by one of its labels, are called; label: a further one, "" is the main one."""
    named = named_label(context, [dataset], label)
    return f"{dataset.name} · {named}" if named else dataset.name


def named_label(context: Context, datasets: Sequence[Dataset], label: str) -> str:
    """The field of a label that colours points of some datasets; "" where there is no other, or the colours are none.

    label: a further label; "" is the main one of each.
    """
    return label_fields(datasets, label) if context.job.render.color == MAIN else ""


def label_fields(datasets: Sequence[Dataset], label: str) -> str:
    """The field of a label of some datasets; "" where none of them has several, so that none need be named."""
    if label or not any(d.more_labels for d in datasets):
        return label
    return ", ".join(dict.fromkeys(d.label_field for d in datasets if d.label_field is not None))


def model_title(context: Context, group: str) -> str:
    """The name of a model in pictures; for converted models with their kind and quantisation."""
    source = context.inputs.sources[group]
    model: Model = source.model
    if model.adapter is not None or model.gguf_file is not None or model.quantization is not None:
        merged = ", merged" if model.merge_adapter else ""
        file = f" ({model.gguf_file})" if model.gguf_file else ""
        file += f" ({name_of_quantization(model.quantization)})" if model.quantization else ""
        return model.as_ or model.id + file + (f" + {model.adapter}{merged}" if model.adapter else "")
    if model.random_weights:
        return f"{(model.as_ or model.id) if is_local(model.id) else model.id} (random weights)"
    facts = read_object(Path(source.location) / "drillcore.json")
    if {"kind", "quantisation"} <= facts.keys():
        return f"{model.id} ({facts['kind']}, {str(facts['quantisation']).split(' ')[0]} weights)"
    return model.as_ or model.id
