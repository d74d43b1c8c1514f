"""What the stages after extraction cost, in seconds of one core of a reference machine.

Only ratios matter: how many times as long a machine takes is timed on a small piece of work, or known from an earlier
run, and holds for a larger one. The constants are CPU seconds of one thread of an Intel Xeon with AVX-512,
fitted to 50 to 8,000 sentences (UMAP: 20,000) of 64 to 2,048 dimensions and 2 to 10 labels.

Shape legend: N sentences, U labelled ones, H hidden size, C labels, B permutations, S sampled, R rank of the states.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from drillcore.job.stages import Measure, Project, Render
from drillcore.measures import chosen
from drillcore.measures.draws import FEWEST_PERMUTATIONS, FEWEST_SAMPLED, NULL_WORK, SAMPLE_WORK
from drillcore.neighbours import EXACT_UP_TO
from drillcore.projections.base import SAMPLE

# Libraries that are imported, and what numba compiles, once in a process.
MEASURE_STARTS, UMAP_STARTS, DESCENT_STARTS, RENDER_STARTS, PREDICT_STARTS = 2.0, 7.5, 38.0, 4.0, 3.0
# Features of the control on words.
WORDS = 1000
# UMAP's own number of epochs, up to so many sentences and beyond.
EPOCHS, FEWER_EPOCHS, FEWER_FROM = 500, 200, 10_000


@dataclass(frozen=True)
class Size:
    """What decides the cost of a group: rows, those with a label, distinct labels, stored layers, hidden size.

    is_number: labels are numbers, and `labels` is 1.
    """

    rows: int
    labelled: int
    labels: int
    layers: int
    hidden: int
    is_number: bool = field(default=False, repr=False)


@dataclass(frozen=True)
class Piece:
    """A piece of work. kind: what is timed alike. work: seconds on the reference machine.

    stage: that it belongs to. like: what two pieces must share for their times to be compared exactly, such as a
    model's identity; setting: what they must share to be compared at all. group: path in the store.
    """

    stage: str
    kind: str
    work: float
    setting: str = ""
    like: str = ""
    group: str = ""


def draws_of(size: Size, settings: Measure) -> tuple[int, int]:
    """Permutations, and sampled sentences, that `measures.draws` takes for a group."""
    work = max(1, size.labelled * size.labels)
    permutations = min(settings.permutations, max(FEWEST_PERMUTATIONS, NULL_WORK // work))
    affordable = int(math.sqrt(SAMPLE_WORK / max(1, permutations * size.labels)))
    return permutations, min(settings.sample, max(FEWEST_SAMPLED, affordable), size.labelled)


def layer_measured(size: Size, settings: Measure) -> float:
    """Seconds of measuring one layer, its k-NN graph included."""
    names, (permutations, sampled) = chosen(settings.metrics), draws_of(size, settings)
    rows, hidden = size.labelled, size.hidden
    read = 4e-9 * size.rows * hidden
    if size.is_number:
        return read + _probe(rows, hidden, permutations, settings.folds)
    if size.labels < 2 or rows < 2:
        return read + 1e-7 * rows * hidden * ("dispersion" in names)
    columns = permutations * size.labels
    seconds = {
        "probe": _probe(rows, hidden, columns, settings.folds),
        "purity": 1.6e-8 * rows * columns + graph_built(size.rows, hidden),
        "silhouette": sampled**2 * (2.5e-11 * columns + 3e-11 * hidden + 1e-8) + 2e-8 * sampled * columns,
        "dispersion": 3e-11 * rows * hidden * columns + 2e-8 * rows * hidden,
    }
    seconds["dispersion_centred"] = seconds["dispersion"]
    return read + sum(seconds.get(name, 0.0) for name in names)


def _probe(rows: int, dimensions: int, columns: int, folds: int) -> float:
    rank = min(rows, dimensions)
    eigen, turned = 1.5e-10 * (folds + 1) * rank**3, 1.6e-10 * folds * rank**2 * columns
    return 0.08 + eigen + turned + 1.2e-10 * rows * rank * columns + 3e-8 * folds * rank * columns


def graph_built(rows: int, hidden: int) -> float:
    """Seconds of one layer's k-NN graph: all distances, or an approximate search."""
    if rows <= EXACT_UP_TO:
        return rows**2 * (4e-11 * hidden + 1e-8)
    return rows * (1e-7 * hidden + 3e-5)


def group_measured(size: Size, settings: Measure) -> float:
    """Seconds of measuring a group: its layers, the permutations, the controls, and CKA between layers."""
    compared = min(size.rows, settings.sample, 10**9 // (4 * max(1, size.layers * size.hidden)))
    cka = size.layers * compared**2 * (2.5e-11 * (size.hidden + size.layers) + 1e-8)
    controls = drawn = 0.0
    if size.labels > 1 or size.is_number:
        permutations, _ = draws_of(size, settings)
        drawn = permutations * (2.5e-5 + 2.2e-8 * size.labelled)
        controls = sum(_probe(size.labelled, n, permutations * size.labels, settings.folds) for n in (20, WORDS))
    return size.layers * layer_measured(size, settings) + cka + controls + drawn


def has_graph_for_purity(size: Size, settings: Measure) -> bool:
    """Whether purity reads the k-NN graph of all raw states of a group."""
    of_all = not size.is_number and size.labels > 1 and size.labelled == size.rows
    return of_all and settings.standardise != "zscore" and "purity" in chosen(settings.metrics)


def group_nearest(size: Size, settings: Measure) -> float:
    """Seconds of a group's nearest sentences: their k-NN graphs, unless the measures' cost holds those."""
    graph = 0.0 if has_graph_for_purity(size, settings) else graph_built(size.rows, size.hidden)
    return size.layers * (4e-9 * size.rows * size.hidden + 2e-6 * size.rows + graph)


def layer_projected(rows: int, hidden: int, settings: Project, *, with_graph: bool) -> float:
    """Seconds of projecting one layer. with_graph: whether its k-NN graph has to be built for it."""
    read = 4e-9 * rows * hidden
    sampled = min(rows, SAMPLE)
    trust = sampled**2 * (4e-11 * hidden + 5e-8)
    if settings.method == "pca":
        return read + 0.01 + 4e-9 * rows * hidden + trust
    own = EPOCHS if rows <= FEWER_FROM else FEWER_EPOCHS
    epochs = own if settings.n_epochs == "auto" else settings.n_epochs
    graph = graph_built(rows, hidden) if with_graph else 0.0
    return read + 0.01 + graph + 1.6e-7 * rows * epochs * settings.n_neighbors + 1e-4 * rows + trust


def starts_projecting(rows: int, settings: Project, *, with_graph: bool) -> float:
    """Seconds until the first layer is projected: imports, and what is compiled."""
    if settings.method == "pca":
        return 1.0
    return UMAP_STARTS + DESCENT_STARTS * (with_graph and rows > EXACT_UP_TO)


def panels_drawn(panels: int, rows: int, settings: Render) -> float:
    """Seconds of drawing so many panels of a grid."""
    return panels * (0.01 + 5e-7 * settings.panel_px**2 + 2e-7 * rows)


def group_rendered(size: Size, settings: Render, *, grids: int) -> float:
    """Seconds of a group's panels in so many grids, and of its part of the report."""
    return 0.3 + panels_drawn(grids * size.layers, size.rows, settings) + size.layers * (0.01 + 1e-6 * size.rows)


def group_predicted(size: Size, vocabulary: int) -> float:
    """Seconds of putting a group's layers through the model's head."""
    return size.layers * size.rows * vocabulary * (3e-11 * size.hidden + 5e-9)
