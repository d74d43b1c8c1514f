"""Measures of what the layers show, by name: each in the raw space, with an interval and a null."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from drillcore.errors import JobError

# Coordinate `bound` of the array `separation`.
BOUNDS = ("value", "low", "high", "null_mean", "null_high", "p")
# The one named ahead: claims of where labels separate rest on it.
PRIMARY = "probe"
# Columns of the k-NN graph that purity reads, the sentence itself among them.
NEIGHBORS = 15


@dataclass(frozen=True)
class Metric:
    """A measure of separation.

    sign: 1 where larger values separate better, -1 where smaller ones do. low, high: its range. labels: the fewest
    distinct labels it needs.
    """

    title: str
    sign: int
    low: float
    high: float
    labels: int


METRICS = {
    "probe": Metric("linear probe, balanced accuracy", 1, 0.0, 1.0, 2),
    "purity": Metric("k-NN purity, balanced", 1, 0.0, 1.0, 2),
    "silhouette": Metric("silhouette", 1, -1.0, 1.0, 2),
    "dispersion": Metric("within-class cosine distance", -1, 0.0, 2.0, 1),
    # With one label the mean is that label's own, and about 1 is all that can be left.
    "dispersion_centred": Metric("within-class cosine distance, mean-centred", -1, 0.0, 2.0, 2),
}


def chosen(metrics: Literal["all"] | Sequence[str]) -> tuple[str, ...]:
    """Names of the measures that a job asks for, in the table's order; raises JobError for an unknown one."""
    if metrics == "all":
        return tuple(METRICS)
    unknown = sorted(set(metrics) - set(METRICS))
    if unknown:
        raise JobError(f"measure.metrics: {', '.join(unknown)} is unknown", hint=f"Any of {', '.join(METRICS)}.")
    return tuple(name for name in METRICS if name in metrics)
