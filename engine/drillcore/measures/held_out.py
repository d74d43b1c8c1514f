"""The probe on rows that a split holds out: area under the ROC curve, and recall at few false positives.

Shape legend: T tested sentences, B permutations, G jackknife blocks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from drillcore.measures.draws import Draws
from drillcore.measures.intervals import Bounds, share_interval, skip
from drillcore.measures.layer import LayerStates
from drillcore.measures.probe import Probe, balanced, balanced_bounds, most_units, of_tested, without_scatter

# The share of the first label's sentences that may be taken for the second's.
FALSE_POSITIVES = 0.01
# With fewer sentences of the first label not even one false positive would be allowed.
FEWEST_NEGATIVES = 100

Statistic = Callable[[NDArray[np.float32], NDArray[np.integer]], NDArray[np.float64]]


def auroc(layer: LayerStates, draws: Draws) -> Bounds:
    """How often a tested sentence of the second label scores above one of the first; 0.5 by chance."""
    return held_out(layer, draws)["auroc"]


def recall_at_1_fpr(layer: LayerStates, draws: Draws) -> Bounds:
    """Share of the second label's tested sentences that score above all but 1 % of the first label's."""
    return held_out(layer, draws)["recall_at_1_fpr"]


def held_out(layer: LayerStates, draws: Draws) -> dict[str, Bounds]:
    """The probe, `auroc` and `recall_at_1_fpr` of two labels; the probe is trained once for all three.

    >>> from drillcore.job.stages import Measure
    >>> from drillcore.measures.draws import make_draws
    >>> labels, is_test = np.arange(80) % 2, np.arange(80) >= 40
    >>> states = np.float32(np.eye(2)[labels] + np.random.default_rng(0).normal(0, 0.1, (80, 2)))
    >>> draws = make_draws(labels, None, Measure(permutations=99), 80, is_test)
    >>> bounds = held_out(LayerStates(states, Measure(), draws), draws)
    >>> bounds["auroc"].value, bounds["recall_at_1_fpr"].skipped
    (1.0, '20 test sentences of the label 0; at least 100 allow for 1 % of false positives')
    """
    if "held_out" not in layer.shared:
        reason = without_scatter(layer.raw_UH, draws)
        names = ("probe", "auroc", "recall_at_1_fpr")
        layer.shared["held_out"] = {name: skip(reason) for name in names} if reason else _measured(layer, draws)
    found: dict[str, Bounds] = layer.shared["held_out"]
    return found


def _measured(layer: LayerStates, draws: Draws) -> dict[str, Bounds]:
    trained, tested = Probe(layer.learned_from_UH, draws), draws.tested
    negatives = int((tested.codes_U == 0).sum())

    def scored(codes_BU: NDArray[np.int16]) -> NDArray[np.float64]:
        margin_BT, codes_BT = trained.margins(codes_BU), of_tested(codes_BU, draws)
        right_BT = (margin_BT > 0) == (codes_BT == 1)
        parts = [balanced(right_BT, codes_BT, 2), area_under_roc(margin_BT, codes_BT)]
        return np.stack([*parts, recall_at_few_false_positives(margin_BT, codes_BT)], axis=1)

    null_BK = draws.under_permutations(scored).reshape(-1, 3)
    margin_T = trained.margins(draws.codes_U[None].astype(np.int16))[0]
    area, area_without_G = _jackknifed(area_under_roc, margin_T, tested)
    bounds = {
        "probe": balanced_bounds((margin_T > 0).astype(np.int16), tested, null_BK[:, 0]),
        "auroc": Bounds(
            area, *share_interval(area, area_without_G, most_units(tested), one_each=False), null_B=null_BK[:, 1]
        ),
    }
    if negatives < FEWEST_NEGATIVES:
        reason = f"{negatives} test sentences of the label {draws.labels[0]}; at least {FEWEST_NEGATIVES} allow for 1 %"
        return {**bounds, "recall_at_1_fpr": skip(f"{reason} of false positives")}
    recall, recall_without_G = _jackknifed(recall_at_few_false_positives, margin_T, tested)
    interval = share_interval(recall, recall_without_G, float(tested.units_of_labels()[1]))
    return {**bounds, "recall_at_1_fpr": Bounds(recall, *interval, null_B=null_BK[:, 2])}


def area_under_roc(margin_BT: NDArray[np.float32], codes_BT: NDArray[np.integer]) -> NDArray[np.float64]:
    """Area under the ROC curve [B] of label 1 against label 0, by its ranks; NaN where one is missing.

    >>> area_under_roc(np.float32([[0, 1, 2, 3]]), np.array([[0, 1, 0, 1]])).tolist()
    [0.75]
    """
    is_positive_BT = codes_BT == 1
    positives_B, ranks_BT = is_positive_BT.sum(axis=1), rankdata(margin_BT, axis=1)
    negatives_B = codes_BT.shape[1] - positives_B
    above_B = (ranks_BT * is_positive_BT).sum(axis=1) - positives_B * (positives_B + 1) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(above_B / (positives_B * negatives_B))


def recall_at_few_false_positives(margin_BT: NDArray[np.float32], codes_BT: NDArray[np.integer]) -> NDArray[np.float64]:
    """The largest recall [B] of label 1 at a threshold that at most 1 % of label 0 pass; NaN where one is missing.

    >>> recall_at_few_false_positives(np.float32([[0, 1, 2, 3]]), np.array([[0, 1, 0, 1]])).tolist()
    [0.5]
    """
    is_negative_BT = codes_BT == 0
    allowed_B = np.floor(FALSE_POSITIVES * is_negative_BT.sum(axis=1) + 1e-9).astype(np.int64)
    falling_BT = -np.sort(np.where(is_negative_BT, -margin_BT, np.inf), axis=1)
    threshold_B1 = np.take_along_axis(falling_BT, allowed_B[:, None], axis=1)
    passed_B = ((margin_BT > threshold_B1) & ~is_negative_BT).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        recall_B = passed_B / (~is_negative_BT).sum(axis=1)
    return np.asarray(np.where(is_negative_BT.any(axis=1), recall_B, np.nan))


def _jackknifed(
    statistic: Statistic, margin_T: NDArray[np.float32], tested: Draws
) -> tuple[float, NDArray[np.float64]]:
    """A statistic of the tested sentences, and without each jackknife block [G] that leaves both labels."""
    blocks = range(int(tested.jackknife_U.max()) + 1)
    left_GT = [np.flatnonzero(tested.jackknife_U != g) for g in blocks]
    without = [statistic(margin_T[None, left], tested.codes_U[None, left])[0] for left in left_GT if len(left)]
    without_G = np.array(without)
    return float(statistic(margin_T[None], tested.codes_U[None])[0]), without_G[np.isfinite(without_G)]
