"""All measures of one layer, and how the layers of a dataset are read together.

Shape legend: N sentences, U those whose labels count, H hidden size, L layers, M measures, B permutations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drillcore.job.fields import Measure
from drillcore.measures import BOUNDS, METRICS, NEIGHBORS, chosen
from drillcore.measures.dispersion import dispersion
from drillcore.measures.draws import Shared
from drillcore.measures.intervals import LEVEL, Bounds, skip
from drillcore.measures.probe import Probe
from drillcore.measures.purity import purity
from drillcore.measures.silhouette import silhouette
from drillcore.neighbours import Graph, build, without_variance


@dataclass(frozen=True)
class Separation:
    """What goes into the array `separation`.

    values_LMB: float32 [layer, metric, bound], bounds as in `BOUNDS`; NaN where a measure means nothing. null_high is
    the level that the measure beats (where smaller separates: stays below) in some layer in 5 % of all label
    permutations; p is the share of permutations in which some layer is as far from its null as this one is.
    skipped: reason by (layer position, metric).
    """

    metrics: tuple[str, ...]
    values_LMB: NDArray[np.float32]
    skipped: dict[tuple[int, str], str]


def standardised(states_NH: NDArray[np.float32], how: str) -> NDArray[np.float32]:
    """States as the probe, the silhouette and the neighbours see them: none, center, or zscore by dimension."""
    if how == "none":
        return states_NH
    moved_NH: NDArray[np.float32] = states_NH - states_NH.mean(axis=0, dtype=np.float64).astype(np.float32)
    if how == "zscore":
        spread_H = moved_NH.std(axis=0, dtype=np.float64)
        moved_NH /= np.where(spread_H > 0, spread_H, 1).astype(np.float32)
    return moved_NH


def measure_layer(
    states_NH: NDArray[np.float32], settings: Measure, shared: Shared, graph: Graph | None = None
) -> dict[str, Bounds]:
    """Every chosen measure of one layer, by name.

    graph: the layer's k-NN graph with at least `NEIGHBORS` columns; made here where purity needs it and it is not
    there. Centring moves no neighbour, so it is the one of the states as they are unless they are brought to z-scores.
    """
    names = chosen(settings.metrics)
    states_UH = states_NH if shared.all_rows else states_NH[shared.rows_U]
    reasons = {name: _why_not(name, states_UH, shared) for name in names}
    found = {name: skip(reason) for name, reason in reasons.items() if reason}
    for name in names:
        if name.startswith("dispersion") and name not in found:
            found[name] = dispersion(states_UH, shared, centred=name == "dispersion_centred")
    wanted = [name for name in names if name not in found]
    if wanted:
        ready_NH = standardised(states_NH, settings.standardise)
        ready_UH = ready_NH if shared.all_rows else ready_NH[shared.rows_U]
        for name in wanted:
            if name == "purity":
                seen_NH = ready_NH if settings.standardise == "zscore" else states_NH
                graph = graph or build(seen_NH, NEIGHBORS, "euclidean", settings.seed)
                found[name] = purity(graph, shared)
            elif name == "silhouette":
                found[name] = silhouette(ready_UH[shared.sample_S], shared)
            else:
                found[name] = Probe(ready_UH, shared).measure()
    return {name: found[name] for name in names}


def _why_not(name: str, states_UH: NDArray[np.float32], shared: Shared) -> str:
    if METRICS[name].labels > 1 and shared.skipped:
        return shared.skipped
    if len(states_UH) < 2:
        return "fewer than two sentences"
    return "all states are the same" if without_variance(states_UH) else ""


def combine(layers: Sequence[Mapping[str, Bounds]]) -> Separation:
    """Read the layers of a dataset together, with the family-wise null over them.

    Layers are compared by their distance from their own null in its standard deviations, and the null is the largest
    of these over the layers in each permutation (Westfall and Young, 1993).
    """
    metrics = tuple(layers[0])
    values_LMB = np.full((len(layers), len(metrics), len(BOUNDS)), np.nan, np.float32)
    skipped = {}
    for m, name in enumerate(metrics):
        column = [layer[name] for layer in layers]
        values_LMB[:, m, :3] = [(b.value, b.low, b.high) for b in column]
        values_LMB[:, m, 3:] = _null(column, METRICS[name].sign if name in METRICS else 1)
        skipped.update({(k, name): b.skipped for k, b in enumerate(column) if b.skipped})
    return Separation(metrics, values_LMB, skipped)


def _null(column: Sequence[Bounds], sign: int) -> NDArray[np.float64]:
    """null_mean, null_high and p of one measure [L, 3]."""
    found_L3 = np.full((len(column), 3), np.nan)
    known = [k for k, b in enumerate(column) if not b.skipped and len(b.null_B)]
    if not known:
        return found_L3
    null_LB = np.stack([column[k].null_B for k in known])
    mean_L, spread_L = null_LB.mean(axis=1), null_LB.std(axis=1)
    level = np.quantile(_distances(null_LB, sign).max(axis=0), LEVEL)
    # For p the measure stands among its permutations: were it left out, it alone would be judged by a mean and a
    # deviation that it has no part in, and be found too far too often.
    all_LB = np.concatenate([np.array([[column[k].value] for k in known]), null_LB], axis=1)
    distance_LB = _distances(all_LB, sign)
    beaten_L = (distance_LB[:, 1:].max(axis=0) >= distance_LB[:, :1] - 1e-9).sum(axis=1)
    found_L3[known, 0] = mean_L
    found_L3[known, 1] = mean_L + sign * level * spread_L
    found_L3[known, 2] = (1 + beaten_L) / (1 + null_LB.shape[1])
    return found_L3


def _distances(draws_LB: NDArray[np.float64], sign: int) -> NDArray[np.float64]:
    """Each draw's distance from its layer's mean in standard deviations, larger where it separates better."""
    spread_L1 = draws_LB.std(axis=1, keepdims=True)
    moved_LB = sign * (draws_LB - draws_LB.mean(axis=1, keepdims=True))
    return np.asarray(moved_LB / np.where(spread_L1 > 0, spread_L1, 1))
