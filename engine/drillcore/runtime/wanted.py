"""What a job asks of each stage after extraction; a store records it, so that its readers tell stale results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drillcore.job.fields import Job
from drillcore.job.groups import Group
from drillcore.job.inputs import Dataset
from drillcore.runtime.preflight import Inputs
from drillcore.store.arrays import spec_of
from drillcore.store.attributes import attributes_of, read_attributes
from drillcore.store.freshness import LABELS, WANTED, ResultInputs
from drillcore.store.group import GroupWriter
from drillcore.store.writer import StoreWriter


def wanted_of(job: Job, dataset: Group) -> dict[str, Any]:
    """Settings of each stage for one dataset, JSON-ready, without those that have their default."""
    project = job.project.model_dump(mode="json", exclude_defaults=True)
    if job.project.fit == "joint":
        project["datasets"] = [g.name for g in together(job, dataset)]
    measure = job.measure.model_dump(mode="json", exclude_defaults=True)
    if dataset.split is not None:
        measure["split"] = dataset.split_field or {"test": dataset.tested_on}
    drawn = {name: value for name, value in measure.items() if name in ("seed", "folds")}
    if dataset.cannot_follow != Dataset.model_fields["cannot_follow"].default:
        drawn["cannot_follow"] = dataset.cannot_follow
    candidates = {"candidates": list(dataset.candidates), **drawn}
    wanted: dict[str, Any] = {"measure": measure, "project": project, "predict": drawn, "candidates": candidates}
    return {**wanted, LABELS: list(dataset.labels)} if dataset.more_labels else wanted


def together(job: Job, group: Group) -> list[Group]:
    """The groups of a model that are projected with this one where the fit is joint: all datasets at its position."""
    return [g for g in job.measured_groups if (g.position, g.branch) == (group.position, group.branch)]


def record_wanted(store: StoreWriter, inputs: Inputs) -> None:
    """Write into the store which groups the job has, and into each that is there what is asked of it."""
    job = inputs.loaded.job
    store.set_groups([p.path for p in inputs.pairs])
    for pair in inputs.pairs:
        if read_attributes(store.root.store, pair.path):
            store.dataset(pair.model.group, pair.dataset.name).describe(**{WANTED: wanted_of(job, pair.dataset)})


def is_up_to_date(writer: GroupWriter, names: Sequence[str], inputs: ResultInputs, old: str) -> bool:
    """Whether results were all made from these inputs, also by an older version, whose digest of them is `old`.

    Of coordinates, which several stages write, it is enough that they are there.
    """
    results = attributes_of(writer.group).get("results", {})
    if not all(name in results and name in writer.group for name in names):
        return False
    specs = {name: spec_of(name) for name in names}
    for facts in (results[name] for name, spec in specs.items() if spec is not None and not spec.is_coordinate):
        same = facts["inputs"] == inputs.record() if "inputs" in facts else facts.get("made_from") == old
        if not same:
            return False
    writer.adopt_results(old, inputs.record())
    return True
