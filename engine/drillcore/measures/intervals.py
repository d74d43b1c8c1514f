"""Values with their intervals: the delete-a-group jackknife and score intervals.

Shape legend: G jackknife blocks, B permutations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
# Shares are sums of float32 values: smaller differences are rounding.
ROUNDING = 1e-6


def _no_draws() -> NDArray[np.float64]:
    return np.empty(0)


@dataclass(frozen=True)
class Bounds:
    """A measure of one layer.

    value, low, high: with a 95 % interval. null_B: the measure under each label permutation, in the same order for all
    layers. skipped: why the measure means nothing here (the figures are NaN then), or empty. decided_T: of the probe,
    the place of the label that it gives each tested sentence; None of other measures.
    """

    value: float
    low: float
    high: float
    null_B: NDArray[np.float64] = field(default_factory=_no_draws)
    skipped: str = ""
    decided_T: NDArray[np.int16] | None = None


def share_in_words(share: float, low: float, high: float) -> str:
    """A share and its 95 % interval as percentages, for a line that is read by a person.

    >>> share_in_words(0.5, 0.25, 0.75), share_in_words(1.0, math.nan, math.nan)
    ('50% (25% to 75%)', '100% (no interval: it takes two groups of different sentences)')
    """
    known = f"{low:.0%} to {high:.0%}"
    return f"{share:.0%} ({'no interval: it takes two groups of different sentences' if math.isnan(low) else known})"


def skip(reason: str) -> Bounds:
    """The bounds of a measure that means nothing here, with the reason."""
    return Bounds(math.nan, math.nan, math.nan, skipped=reason)


def jackknife_error(without_G: NDArray[np.float64]) -> float:
    """Standard error from the estimates [G] that leave out one jackknife block each; NaN for fewer than two.

    Quenouille (1956), Kott (2001).

    >>> round(jackknife_error(np.array([0.4, 0.5, 0.6])), 4)
    0.1155
    """
    num_blocks = len(without_G)
    if num_blocks < 2:
        return math.nan
    return math.sqrt((num_blocks - 1) / num_blocks * float(((without_G - without_G.mean()) ** 2).sum()))


def quantile(num_blocks: int) -> float:
    """Student's two-sided 95 % quantile for so many jackknife blocks."""
    from scipy.stats import t

    return float(t.ppf(0.5 + LEVEL / 2, max(1, num_blocks - 1)))


def plain_interval(value: float, without_G: NDArray[np.float64], lowest: float, highest: float) -> tuple[float, float]:
    """Value plus and minus Student's quantile times the jackknife's error, kept within the measure's range.

    NaN for both ends where fewer than two jackknife blocks leave anything to measure.

    >>> low, high = plain_interval(0.5, np.array([0.45, 0.5, 0.55]), 0.0, 1.0)
    >>> round(low, 2), round(high, 2)
    (0.25, 0.75)
    """
    margin = quantile(len(without_G)) * jackknife_error(without_G)
    if math.isnan(margin):
        return math.nan, math.nan
    return max(lowest, value - margin), min(highest, value + margin)


def share_interval(
    value: float, without_G: NDArray[np.float64], units: float, *, one_each: bool = True
) -> tuple[float, float]:
    """Wilson's (1927) score interval of a share, for the sample size that the jackknife's error amounts to.

    The normal interval has no width where all answers are right. units: independent observations; where each is right
    or wrong (`one_each`) the effective size may not exceed them (Korn and Graubard, 1998).

    >>> low, high = share_interval(1.0, np.ones(20), 20.0)  # all of 20 are right
    >>> round(low, 2), high
    (0.82, 1.0)
    """
    error = jackknife_error(without_G)
    if math.isnan(error):
        return math.nan, math.nan
    # Rounding is no error: it would give all-right answers an effective size without end, and no interval.
    value = min(1.0, max(0.0, value))
    size = value * (1 - value) / error**2 if error > ROUNDING and 0 < value < 1 else units
    size = min(size, units) if one_each else size
    square = quantile(len(without_G)) ** 2
    middle = (value + square / (2 * size)) / (1 + square / size)
    half = math.sqrt(square * value * (1 - value) / size + square**2 / (4 * size**2)) / (1 + square / size)
    # Rounding must not leave the value outside its own interval where all answers are right, or wrong.
    return min(value, max(0.0, middle - half)), max(value, min(1.0, middle + half))
