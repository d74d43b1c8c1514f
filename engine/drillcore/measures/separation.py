"""All measures of one layer, and the null over all layers of a dataset.

Shape legend: N sentences, U those whose labels count, H hidden size, L layers, M measures, B permutations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drillcore.job.stages import Measure
from drillcore.measures import BOUNDS, HELD_OUT, NUMBERS, PRIMARY, ROWS, chosen, load_measure
from drillcore.measures.draws import Draws
from drillcore.measures.intervals import LEVEL, Bounds, skip
from drillcore.measures.layer import LayerStates
from drillcore.neighbours import Graph, without_variance

# Draws of one layer that differ by less, relative to their size, are the same.
ROUNDING = 1e-7


@dataclass(frozen=True)
class Separation:
    """What goes into the array `separation`.

    values_LMB: float32 [layer, metric, bound], bounds as in `BOUNDS`; NaN where a measure means nothing. null_high: in
    5 % of all label permutations the measure beats it in at least one layer (is below it, where smaller values separate
    better). p: share of permutations in which at least one layer is as far from its null as this one is. skipped:
    reason by (layer position, metric).
    """

    metrics: tuple[str, ...]
    values_LMB: NDArray[np.float32]
    skipped: dict[tuple[int, str], str]


def measure_layer(
    states_NH: NDArray[np.float32], settings: Measure, draws: Draws, graph: Graph | None = None
) -> dict[str, Bounds]:
    """Every chosen measure of one layer, by name, in the table's order.

    graph: the layer's k-NN graph with at least `NEIGHBORS` columns; built here where a measure needs it and there is
    none.

    >>> from drillcore.measures.draws import make_draws
    >>> labels, settings = ["north", "south"] * 20, Measure(permutations=99, metrics=("probe", "silhouette"))
    >>> states = np.float32(np.random.default_rng(0).normal(size=(40, 8)))
    >>> states[1::2, 3] += 9
    >>> bounds = measure_layer(states, settings, make_draws(labels, None, settings, 40))
    >>> list(bounds), bounds["probe"].value
    (['probe', 'silhouette'], 1.0)
    """
    names, layer = measured_of(settings, draws), LayerStates(states_NH, settings, draws, graph)
    raw_UH = layer.raw_UH
    measured = {}
    # From the last to the first: those that read the raw states come before the standardised copy is made.
    for name in reversed(names):
        reason = _why_not(name, raw_UH, draws)
        measured[name] = skip(reason) if reason else load_measure(name)(layer, draws)
    return {name: measured[name] for name in names}


def measured_of(settings: Measure, draws: Draws) -> tuple[str, ...]:
    """The measures of a dataset: those that are chosen, and with the probe those of a split of two labels.

    Where the labels are numbers: the one that they have.
    """
    if draws.values_U is not None:
        return tuple(NUMBERS)
    names = chosen(settings.metrics)
    of_split = PRIMARY in names and draws.is_test_U is not None and draws.num_labels == 2
    return (*names, *(HELD_OUT if of_split else ()))


def _why_not(name: str, raw_UH: NDArray[np.float32], draws: Draws) -> str:
    """Why a measure means nothing for a layer; empty where it does."""
    if ROWS[name].fewest_labels > 1 and draws.skipped:
        return draws.skipped
    if not len(raw_UH) and draws.skipped:
        return draws.skipped
    if len(raw_UH) < 2:
        return f"{len(raw_UH)} of {draws.num_sentences:,} sentences count; two are needed"
    return f"all {len(raw_UH):,} states are the same" if without_variance(raw_UH) else ""


def combine(layers: Sequence[Mapping[str, Bounds]]) -> Separation:
    """Read the layers of a dataset together, with the family-wise null over them.

    Layers are compared by their distance from their own null in its standard deviations, and the null is the largest
    of these over the layers in each permutation (Westfall and Young, 1993).

    >>> null_B = np.linspace(0.3, 0.7, 99)
    >>> layers = [{"probe": Bounds(0.5, 0.4, 0.6, null_B)}, {"probe": Bounds(0.9, 0.8, 1.0, null_B)}]
    >>> [round(float(p), 2) for p in combine(layers).values_LMB[:, 0, 5]]
    [0.51, 0.01]
    """
    metrics = tuple(layers[0])
    values_LMB = np.full((len(layers), len(metrics), len(BOUNDS)), np.nan, np.float32)
    skipped = {}
    for m, name in enumerate(metrics):
        column = [layer[name] for layer in layers]
        values_LMB[:, m, :3] = [(b.value, b.low, b.high) for b in column]
        row = ROWS[name]
        values_LMB[:, m, 3:] = _null(column, row.sign)
        # A mean and a multiple of a deviation know no range.
        values_LMB[:, m, 4] = np.clip(values_LMB[:, m, 4], row.low, row.high)
        skipped.update({(k, name): b.skipped for k, b in enumerate(column) if b.skipped})
    return Separation(metrics, values_LMB, skipped)


def _null(column: Sequence[Bounds], sign: int) -> NDArray[np.float64]:
    """null_mean, null_high and p of one measure [L, 3]."""
    null_L3 = np.full((len(column), 3), np.nan)
    known = [k for k, b in enumerate(column) if not b.skipped and len(b.null_B)]
    if not known:
        return null_L3
    null_LB = np.stack([column[k].null_B for k in known])
    mean_L, spread_L = null_LB.mean(axis=1), null_LB.std(axis=1)
    level = np.quantile(_distances(null_LB, sign).max(axis=0), LEVEL)
    # For p the measure counts as one of its permutations. Left out, it would be compared with a mean and a deviation
    # that it did not contribute to, unlike every permutation, and would beat them too often.
    all_LB = np.concatenate([np.array([[column[k].value] for k in known]), null_LB], axis=1)
    distance_LB = _distances(all_LB, sign)
    beaten_L = (distance_LB[:, 1:].max(axis=0) >= distance_LB[:, :1] - 1e-9).sum(axis=1)
    null_L3[known, 0] = mean_L
    null_L3[known, 1] = mean_L + sign * level * spread_L
    null_L3[known, 2] = (1 + beaten_L) / (1 + null_LB.shape[1])
    return null_L3


def _distances(draws_LB: NDArray[np.float64], sign: int) -> NDArray[np.float64]:
    """Each draw's distance from its layer's mean in standard deviations, larger where it separates better.

    0 where all draws are the same up to rounding: in its deviations rounding would look like a difference.
    """
    spread_L1 = draws_LB.std(axis=1, keepdims=True)
    moved_LB = sign * (draws_LB - draws_LB.mean(axis=1, keepdims=True))
    varies_L1 = spread_L1 > ROUNDING * np.abs(draws_LB).max(axis=1, keepdims=True)
    return np.asarray(np.where(varies_L1, moved_LB / np.where(varies_L1, spread_L1, 1), 0.0))
