"""The table of measures: each looks at the raw space, and gives a value with an interval and a null."""

from __future__ import annotations

import importlib
import math
from collections import ChainMap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from drillcore.errors import JobError

if TYPE_CHECKING:
    from drillcore.measures.draws import Draws
    from drillcore.measures.intervals import Bounds
    from drillcore.measures.layer import LayerStates

# Coordinate `bound` of the array `separation`.
BOUNDS = ("value", "low", "high", "null_mean", "null_high", "p")
# Chosen beforehand: claims of where labels separate rest on this measure.
PRIMARY = "probe"
# Probes that need no model, and what a reader is told they are.
CONTROLS = {"last_token_and_length": "last token and length", "tfidf": "TF-IDF"}
# Columns of the k-NN graph that purity reads, including the sentence itself.
NEIGHBORS = 15


@dataclass(frozen=True)
class MetricRow:
    """A row of the table: one measure of how well a layer separates the labels.

    function: `module:function`, called as function(layer, draws) with a `LayerStates` and the `Draws` of the dataset;
    returns `Bounds`. sign: 1 where larger values separate better, -1 where smaller ones do. low, high: its range.
    fewest_labels: distinct labels without which it means nothing.
    """

    title: str
    function: str
    sign: int
    low: float
    high: float
    fewest_labels: int


METRICS = {
    "probe": MetricRow("linear probe, balanced accuracy", "drillcore.measures.probe:probe", 1, 0.0, 1.0, 2),
    "purity": MetricRow("k-NN purity, balanced", "drillcore.measures.purity:purity", 1, 0.0, 1.0, 2),
    "silhouette": MetricRow("silhouette", "drillcore.measures.silhouette:silhouette", 1, -1.0, 1.0, 2),
    "dispersion": MetricRow(
        "within-class cosine distance", "drillcore.measures.dispersion:dispersion", -1, 0.0, 2.0, 1
    ),
    # With one label the mean is that label's own, and every value is about 1.
    "dispersion_centred": MetricRow(
        "within-class cosine distance, mean-centred",
        "drillcore.measures.dispersion:dispersion_centred",
        -1,
        0.0,
        2.0,
        2,
    ),
}

# Measured beside the probe where a split says which rows it is tested on, and there are two labels.
HELD_OUT = {
    "auroc": MetricRow("area under the ROC curve", "drillcore.measures.held_out:auroc", 1, 0.0, 1.0, 2),
    "recall_at_1_fpr": MetricRow(
        "recall at 1 % false positives", "drillcore.measures.held_out:recall_at_1_fpr", 1, 0.0, 1.0, 2
    ),
}
# Measured in place of all others where the labels are numbers: the probe is a regression then.
NUMBERS = {"r2": MetricRow("linear probe, R²", "drillcore.measures.regression:r2", 1, -math.inf, 1.0, 2)}
OF_NUMBERS = "r2"
# Of all tables; a map looks them up when it is asked.
ROWS = ChainMap(NUMBERS, HELD_OUT, METRICS)


def chosen(metrics: Literal["all"] | Sequence[str]) -> tuple[str, ...]:
    """Names of the measures that a job asks for, in the table's order; raises JobError for an unknown one.

    >>> chosen(["purity", "probe"])
    ('probe', 'purity')
    """
    if metrics == "all":
        return tuple(METRICS)
    unknown = sorted(set(metrics) - set(METRICS))
    if unknown:
        raise JobError(f"measure.metrics: {', '.join(unknown)} is unknown", hint=f"Any of {', '.join(METRICS)}.")
    return tuple(name for name in METRICS if name in metrics)


def load_measure(name: str) -> Callable[[LayerStates, Draws], Bounds]:
    """The function of a measure, by its name in `ROWS`; raises KeyError for another one."""
    module, _, function = ROWS[name].function.partition(":")
    measure: Callable[[LayerStates, Draws], Bounds] = getattr(importlib.import_module(module), function)
    return measure
