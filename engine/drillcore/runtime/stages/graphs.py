"""The k-NN graph of a layer: `measure` makes it for the nearest sentences and purity, `project` reads it for UMAP.

Shape legend: N sentences, H hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drillcore.job.fields import Job
from drillcore.job.groups import by_template
from drillcore.measures import NEIGHBORS
from drillcore.neighbours import EXACT_UP_TO, Graph, Metric, build, has_distances_of
from drillcore.store.group import GroupWriter
from drillcore.system.cached import Entry, Opened, WrongEntry, keep_within
from drillcore.system.files import cache_dir, digest
from drillcore.system.versions import installed_versions

# A layer's states are held so many times over at the peak of measuring or projecting it, beside the libraries.
COPIES, LIBRARIES_BYTES = 6, 600 * 2**20
DECIDE_BITS = ("numpy", "scikit-learn", "pynndescent", "numba", "scipy")
# Increase this whenever the same states and settings would give another graph.
VERSION = 2
# All graphs in the cache; those that were made first go. A projection makes again what it does not find.
MOST_BYTES = 32 * 2**30


@dataclass(frozen=True)
class LayerGraphs:
    """The k-NN graphs of all layers of one dataset, for purity and UMAP alike.

    made_from: digest of the states and of what else decides the graphs. num_neighbors, metric, seed: as
    `neighbours.build` takes them.
    """

    made_from: str
    num_neighbors: int
    metric: Metric
    seed: int

    def make(self, states_NH: NDArray[np.float32], slot: int) -> Graph:
        """The graph of the layer at position `slot`: from the cache, or made from its states and kept there."""
        graph = self.read(states_NH, slot)
        if graph is None:
            graph = build(states_NH, self.num_neighbors, self.metric, self.seed)
            entry = self._entry(slot)
            with entry.writing() as draft:
                draft.write(np.ascontiguousarray(graph.indices_NK, "<i4"))
                draft.write(np.ascontiguousarray(graph.distances_NK, "<f4"))
                draft.facts = {"shape": list(graph.indices_NK.shape), "backend": graph.backend}
            keep_within(entry.folder, MOST_BYTES)
        return graph

    def read(self, states_NH: NDArray[np.float32], slot: int) -> Graph | None:
        """The graph of a layer from the cache; None where it is not there, damaged, or that of other states."""
        return self._entry(slot).read(lambda opened: self._graph(opened, states_NH))

    def _graph(self, opened: Opened, states_NH: NDArray[np.float32]) -> Graph:
        num_sentences, num_neighbors = map(int, opened.facts["shape"])
        count = num_sentences * num_neighbors
        indices, distances = (
            # Copied: who reads a graph may write into it.
            np.frombuffer(opened.data[start : start + 4 * count], dtype).reshape(num_sentences, num_neighbors).copy()
            for dtype, start in (("<i4", 0), ("<f4", 4 * count))
        )
        graph = Graph(indices, distances, self.metric, str(opened.facts["backend"]))
        if not has_distances_of(graph, states_NH):
            raise WrongEntry("is that of other states")
        return graph

    def forget(self, num_layers: int) -> None:
        """Remove the graphs of all layers from the cache: both stages are through with them."""
        for slot in range(num_layers):
            self._entry(slot).remove()

    def _entry(self, slot: int) -> Entry:
        return Entry(cache_dir() / "graphs", f"{self.made_from}-{slot}", "a k-NN graph")


def graphs_of(job: Job, writer: GroupWriter) -> LayerGraphs | None:
    """The graphs that measuring and projecting a dataset share; None where the projection needs others, or none."""
    measure, project = job.measure, job.project
    same_space = project.metric == "euclidean" and project.seed == measure.seed
    same_rows = project.fit == "each" or sum(len(by_template(dataset)) for dataset in job.datasets) == 1
    if not (project.method == "umap" and same_space and same_rows):
        return None
    return _of_raw_states(writer, max(NEIGHBORS, project.n_neighbors), project.seed)


def measured_graphs(job: Job, writer: GroupWriter) -> LayerGraphs:
    """The graphs of the raw states that measuring a dataset reads: those that it shares, or its own."""
    return graphs_of(job, writer) or _of_raw_states(writer, NEIGHBORS, job.measure.seed)


def _of_raw_states(writer: GroupWriter, num_neighbors: int, seed: int) -> LayerGraphs:
    metric: Metric = "euclidean"
    bits = {"graphs": VERSION, **installed_versions(DECIDE_BITS)}
    return LayerGraphs(digest([writer.fingerprints(), num_neighbors, metric, seed, bits]), num_neighbors, metric, seed)


def memory_needed(num_sentences: int, hidden_size: int) -> int:
    """Bytes that measuring or projecting one layer takes at its peak; 0 where it takes moments."""
    if num_sentences <= EXACT_UP_TO:
        return 0
    return COPIES * 4 * hidden_size * num_sentences + LIBRARIES_BYTES
