"""The project stage: each layer to two dimensions, then turned onto the layer before it.

Shape legend: N sentences, L layers (as stored), H hidden size.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.job.fields import Job
from drillcore.job.groups import Group
from drillcore.job.stages import Project
from drillcore.projections import choose_projection, load_projection
from drillcore.projections.align import align
from drillcore.projections.base import Projected
from drillcore.runtime.context import Context
from drillcore.runtime.failures import Failures, check_whole
from drillcore.runtime.results import ProjectionFacts
from drillcore.runtime.stages.graphs import LayerGraphs, graphs_of, memory_needed
from drillcore.runtime.wanted import is_up_to_date, together, wanted_of
from drillcore.store.freshness import ResultInputs, inputs_of, old_digest
from drillcore.store.layout import array_of, read_array
from drillcore.store.reader import num_rows, open_dataset, read_layer
from drillcore.store.writer import GroupWriter
from drillcore.system.progress import counted

# Arrays of the last projection, whichever its method.
SHARED = ("axis", "degenerate", "trustworthiness")


@dataclass(frozen=True)
class Unit:
    """Datasets of one model that share a space: one of them, or all where the job says `fit: joint`."""

    model: str
    writers: list[GroupWriter]
    sizes: list[int]
    inputs: ResultInputs

    @property
    def num_layers(self) -> int:
        """Layers as stored; the same in every dataset."""
        return int(array_of(self.writers[0].group, "hidden_states").shape[1])


@dataclass(frozen=True)
class ProjectTask:
    """One layer of a unit, for an executor."""

    store: str
    groups: tuple[str, ...]
    slot: int
    projection: str
    settings: Project
    graphs: LayerGraphs | None


def project_layer(task: ProjectTask) -> Projected:
    """Read a layer and project it."""
    parts = [read_layer(open_dataset(task.store, group), task.slot) for group in task.groups]
    states_NH = parts[0] if len(parts) == 1 else np.concatenate(parts)
    graph = None if task.graphs is None else task.graphs.read(states_NH, task.slot)
    projected: Projected = load_projection(task.projection).fit(states_NH, task.settings, graph)
    return projected


def project(context: Context) -> None:
    """Project every dataset that changed since it was last projected.

    Raises PartFailed, once all others are projected, where some cannot be.
    """
    settings, failures = context.job.project, Failures("project")
    started = time.perf_counter()
    for model in context.job.models:
        for groups in _together(context.job, settings):
            writers = [context.store.dataset(model.group, g.name) for g in groups]
            with failures.of(_name(writers)):
                for writer in writers:
                    check_whole(writer)
                _project_if_changed(context, _unit(context.job, model.group, groups, writers), settings)
    failures.raise_if_any()
    context.manifest.record("stages", "project", wall_seconds=round(time.perf_counter() - started, 3))


def _is_up_to_date(unit: Unit, settings: Project) -> bool:
    """Whether a unit was projected from its present states with these settings.

    Another method may have been projected since, and written over the arrays that all methods share.
    """
    old = old_digest([w.group for w in unit.writers], settings)
    return all(is_up_to_date(w, _arrays_made(settings), unit.inputs, old) for w in unit.writers)


def _arrays_made(settings: Project) -> list[str]:
    return [*SHARED, *["umap_raw"] * (settings.method == "umap"), settings.method]


def _together(job: Job, settings: Project) -> list[list[Group]]:
    """What is projected together, for one model."""
    if settings.fit == "each":
        return [[group] for group in job.measured_groups]
    return [together(job, group) for group in job.measured_groups if group == together(job, group)[0]]


def _unit(job: Job, model: str, groups: Sequence[Group], writers: list[GroupWriter]) -> Unit:
    sizes = [num_rows(w.group) for w in writers]
    wanted = wanted_of(job, groups[0])["project"]
    return Unit(model, writers, sizes, inputs_of([w.group for w in writers], "project", (), wanted))


def _name(writers: Sequence[GroupWriter]) -> str:
    return " + ".join(w.group.path for w in writers)


def _project_if_changed(context: Context, unit: Unit, settings: Project) -> None:
    graphs = graphs_of(context.job, unit.writers[0])
    if _is_up_to_date(unit, settings):
        context.listener.say(f"{_name(unit.writers)}: projection is up to date")
    else:
        _project_unit(context, unit, settings, graphs)
    if graphs is not None:
        graphs.forget(unit.num_layers)


def _project_unit(context: Context, unit: Unit, settings: Project, graphs: LayerGraphs | None) -> None:
    chosen, reason = choose_projection(settings, sum(unit.sizes))
    num_layers, paths = unit.num_layers, tuple(w.group.path for w in unit.writers)
    address = context.store.location.address
    # cuML searches for neighbours on the GPU itself.
    shared = graphs if chosen == "umap-learn" else None
    tasks = [ProjectTask(address, paths, k, chosen, settings, shared) for k in range(num_layers)]
    context.listener.start(f"project {_name(unit.writers)} ({chosen}: {reason})", num_layers, "layers")
    started = time.perf_counter()
    layers: list[Projected | None] = [None] * num_layers
    hidden_size = int(array_of(unit.writers[0].group, "hidden_states").shape[2])
    needed = memory_needed(sum(unit.sizes), hidden_size)
    for position, projected in context.executor.map(project_layer, tasks, int(chosen == "cuml"), needed):
        layers[position] = projected
        context.listener.advance(1)
    facts = _record(context, unit, [p for p in layers if p is not None], reason)
    context.manifest.did("project", _name(unit.writers))
    seconds = time.perf_counter() - started
    context.listener.finish(
        f"{_name(unit.writers)}: {counted(num_layers, 'layers')} projected{_by(facts)} in {seconds:.1f} s"
    )


def _by(facts: ProjectionFacts) -> str:
    """Which library projected a unit, and how many layers have no variance, as a part of a line."""
    marked = f", {facts.degenerate} without variance" if facts.degenerate else ""
    return f" by {facts.backend}{marked}"


def _record(context: Context, unit: Unit, layers: list[Projected], reason: str) -> ProjectionFacts:
    """Align the layers of a unit and write them; returns what the manifest says of them."""
    settings = context.job.project
    raw_LN2 = np.stack([p.points_N2 for p in layers])
    degenerate_L = np.array([p.degenerate for p in layers])
    names = read_array(unit.writers[0].group, "layer_name")
    facts = ProjectionFacts(
        backend=layers[0].backend,
        reason=reason,
        seed=settings.seed,
        n_neighbors=min(settings.n_neighbors, max(1, sum(unit.sizes) - 1)),
        min_dist=settings.min_dist if settings.method == "umap" else None,
        metric=settings.metric,
        fit=settings.fit,
        aligned=settings.align,
        degenerate=int(degenerate_L.sum()),
        notes={str(name): p.note for name, p in zip(names, layers, strict=True) if p.note},
    )
    _write(unit, settings, raw_LN2, degenerate_L, np.array([p.trustworthiness for p in layers], np.float32), facts)
    context.manifest.record("models", unit.model, project=facts.record())
    return facts


def _write(
    unit: Unit,
    settings: Project,
    raw_LN2: NDArray[np.float32],
    degenerate_L: NDArray[np.bool_],
    trust_L: NDArray[np.float32],
    facts: ProjectionFacts,
) -> None:
    """Write the arrays of each dataset."""
    points_LN2 = align(raw_LN2, degenerate_L) if settings.align else raw_LN2
    start = 0
    for writer, size in zip(unit.writers, unit.sizes, strict=True):
        own = slice(start, start + size)
        start += size
        arrays = {"axis": np.array(["x", "y"]), "degenerate": degenerate_L, "trustworthiness": trust_L}
        arrays |= {"umap_raw": raw_LN2[:, own], settings.method: points_LN2[:, own]}
        arrays = {name: arrays[name] for name in _arrays_made(settings)}
        recorded: dict[str, dict[str, Any]] = {name: {"inputs": unit.inputs.record()} for name in arrays}
        recorded[settings.method] |= facts.record()
        writer.write_results(unit.inputs.digest, arrays, recorded)
