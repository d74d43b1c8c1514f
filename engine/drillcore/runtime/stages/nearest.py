"""The nearest sentences of every sentence at every layer, in the raw space of its states; a part of the measure stage.

Shape legend: N sentences, L layers (as stored), J nearest sentences.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drillcore.neighbours import nearest_sentences
from drillcore.runtime.context import Context
from drillcore.runtime.stages.graphs import LayerGraphs, measured_graphs, memory_needed
from drillcore.runtime.wanted import is_up_to_date
from drillcore.store.by_layer import write_by_layer
from drillcore.store.freshness import inputs_of
from drillcore.store.group import GroupWriter
from drillcore.store.layout import array_of
from drillcore.store.reader import num_rows, open_dataset, read_layer
from drillcore.system.progress import counted

NEAREST = "nearest"
# Sentences that are kept of each sentence.
NUM_NEAREST = 10


@dataclass(frozen=True)
class NearestTask:
    """One layer of a dataset, for an executor."""

    store: str
    group: str
    slot: int
    graphs: LayerGraphs


def nearest_one(task: NearestTask) -> tuple[NDArray[np.int32], int, str]:
    """Read a layer and find its nearest sentences [N, J]; how many of them a tie chose, and what searched."""
    states_NH = read_layer(open_dataset(task.store, task.group), task.slot)
    graph = task.graphs.make(states_NH, task.slot)
    return *nearest_sentences(states_NH, graph, NUM_NEAREST), graph.backend


def store_nearest(context: Context, writer: GroupWriter) -> None:
    """Store the nearest sentences of a group, of all of its sentences, unless those of its states are there.

    No label decides them, nor a setting of the job. Layers are written as they are found.
    """
    path, started = writer.group.path, time.perf_counter()
    inputs = inputs_of([writer.group], NEAREST, (), {}, metric="euclidean")
    if is_up_to_date(writer, (NEAREST,), inputs, ""):
        return
    graphs = measured_graphs(context.job, writer)
    num_sentences, (_, num_layers, hidden_size) = num_rows(writer.group), array_of(writer.group, "hidden_states").shape
    tasks = [NearestTask(context.store.location.address, path, slot, graphs) for slot in range(num_layers)]
    context.listener.start(f"neighbours {path}", num_layers, "layers")
    tied, backends = [0] * num_layers, dict[str, None]()

    def found() -> Iterator[tuple[int, NDArray[np.int32]]]:
        needed = memory_needed(num_sentences, hidden_size)
        for slot, (nearest_NJ, num_tied, backend) in context.executor.map(nearest_one, tasks, memory=needed):
            tied[slot] = num_tied
            backends[backend] = None
            context.listener.advance(1)
            yield slot, nearest_NJ

    def facts() -> dict[str, Any]:
        return {"inputs": inputs.record(), "metric": "euclidean", "backend": ", ".join(sorted(backends)), "tied": tied}

    write_by_layer(writer, NEAREST, (num_layers, num_sentences, NUM_NEAREST), found(), inputs.digest, facts)
    context.manifest.did("measure", path)
    seconds = time.perf_counter() - started
    context.listener.finish(f"{path}: nearest sentences at {counted(num_layers, 'layers')} in {seconds:.1f} s")
