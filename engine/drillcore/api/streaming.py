"""What `drillcore plan` says of models whose weights are streamed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from drillcore.api.estimates import Estimate
from drillcore.backends.device import num_gpus
from drillcore.job.fields import Job
from drillcore.runtime.preflight import Inputs
from drillcore.system.columns import size_words
from drillcore.system.machine import num_cores, share_machine
from drillcore.system.progress import counted


def streaming_notes(inputs: Inputs, groups: Sequence[Estimate]) -> Iterator[str]:
    """A line for each model whose weights are streamed, on what that takes at its most.

    On Ray each actor streams its own copy: figures are those of an actor that shares a machine like this one with as
    many others as it has room for. Raises JobError where the job's device is not here.
    """
    job = inputs.loaded.job
    if job.extract.weights == "resident":
        return
    here = _actors_here(job)
    share_machine(here or 1)
    try:
        for name in inputs.sources:
            mine = [e for e in groups if e.model == name and not e.is_done]
            if mine and (note := _note(inputs, name, mine, here)):
                yield f"{name}: {note}"
    finally:
        share_machine(1)


def _note(inputs: Inputs, name: str, groups: Sequence[Estimate], here: int) -> str:
    """What streaming a model takes; empty where it is not streamed. here: actors of this machine; 0: no Ray."""
    from drillcore.backends.transformers.streamed.outlook import peaks_of

    job = inputs.loaded.job
    # How many actors a cluster has that is there already is not known here.
    actors = max(1, here) if job.run.address is None else 1
    nodes = math.ceil(sum(e.num_nodes for e in groups) / actors)
    rows = math.ceil(sum(e.num_rows for e in groups) / actors)
    peaks = peaks_of(inputs.sources[name], job.extract, inputs.layers[name], nodes, rows)
    if peaks is None:
        return ""
    host = f", {size_words(peaks.host)} of host memory" if peaks.host else ""
    sweeps = f"{counted(peaks.sweeps, 'sweeps')} of at most {peaks.nodes_per_sweep:,} nodes"
    takes = f"up to {size_words(peaks.device)} of the device{host}, {size_words(peaks.scratch)} of scratch disk"
    if not here:
        return f"weights are streamed, {sweeps}; {takes}"
    if job.run.address is None:
        return f"weights are streamed by each of {counted(here, 'actors')}, {sweeps}; {takes} for each"
    return (
        f"weights are streamed by each actor, {sweeps} shared out evenly; {takes} for each, where "
        f"{counted(here, 'actors')} share a machine like this one"
    )


def _actors_here(job: Job) -> int:
    """Actors that Ray would start on this machine; 0 where the job does not run on Ray."""
    if job.run.executor != "ray":
        return 0
    from drillcore.runtime.executors.ray.cluster import share_out

    return share_out([{"CPU": num_cores(), "GPU": num_gpus()}], job.extract).num_workers
