"""Two datasets, or two models, side by side: where one is tighter, or separates better, and by how much.

Works from the array `separation`: no hidden state is read again.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from drillcore.errors import InputError
from drillcore.job.choices import did_you_mean
from drillcore.measures import NUMBERS, ROWS
from drillcore.system.nearly import shown

# "Tighter" is claimed only where both agree: a few massive dimensions can decide either one alone.
DISPERSIONS = ("dispersion", "dispersion_centred")
# What a cell begins with that spreadsheets compute: names of groups come from folders, and may hold anything.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@dataclass(frozen=True)
class Side:
    """One of the two groups. values_LMB: the array `separation`; layers, layer_names, metrics: its coordinates."""

    name: str
    layers: tuple[int, ...]
    layer_names: tuple[str, ...]
    metrics: tuple[str, ...]
    values_LMB: NDArray[np.float32]


@dataclass(frozen=True)
class Difference:
    """One layer and measure.

    layer_name: of both sides, or `name of a ~ name of b` where layers that differ are paired. difference: a - b. low,
    high: its 95 % interval. all_low, all_high: the interval that holds over all layers of the measure at once. verdict:
    in words, by that interval.
    """

    layer_a: int
    layer_b: int
    layer_name: str
    metric: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    all_low: float
    all_high: float
    verdict: str


def compare(a: Side, b: Side, metrics: Sequence[str] = ()) -> list[Difference]:
    """Rows for every layer and measure that both sides have; metrics: these measures alone.

    Layers are paired by number where both have the same, else by relative depth. The interval of the difference is
    recovered from the two intervals (Zou and Donner, 2008) as of independent samples, so for two models on the same
    sentences it is wider than necessary; the one over all layers is Bonferroni's. Raises InputError for an unknown
    measure, and where the two have none in common.

    >>> values_LMB = np.array([[[0.5, 0.45, 0.55, np.nan, np.nan, np.nan]]], np.float32)
    >>> a = Side("a", (0,), ("embed",), ("probe",), values_LMB)
    >>> b = Side("b", (0,), ("embed",), ("probe",), values_LMB + np.float32(0.3))
    >>> [(d.layer_name, round(d.difference, 2), d.verdict) for d in compare(a, b, ["probe"])]
    [('embed', -0.3, 'b separates better')]
    """
    unknown = next((m for m in metrics if m not in ROWS), None)
    if unknown is not None:
        raise InputError(
            f"{shown(unknown)} is no measure{did_you_mean(unknown, list(ROWS))}",
            hint=f"Any of {', '.join(ROWS)}.",
        )
    both = [m for m in ROWS if m in a.metrics and m in b.metrics]
    common = [m for m in metrics or both if m in both]
    if not common:
        lacking = [side.name for side in (a, b) if not set(metrics) & set(side.metrics)]
        raise InputError(
            f"{', '.join(metrics)}: not measured for {' and '.join(lacking) or f'both {a.name} and {b.name}'}"
            if metrics
            else f"{a.name} and {b.name} have no measure in common",
            hint="Measure it: `measure.metrics` of the job." + (f" Both have {', '.join(both)}." if both else ""),
        )
    pairs = _pairs(a, b)
    rows = [_row(a, b, i, j, metric, len(pairs)) for i, j in pairs for metric in common]
    return _agreed(rows, a.name, b.name)


def as_csv(rows: Sequence[Difference]) -> str:
    """The rows as CSV with a header; words that a spreadsheet would take for a formula begin with an apostrophe."""
    text = io.StringIO()
    plain, quoting = (csv.writer(text, lineterminator="\n", quoting=q) for q in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    plain.writerow([f.name for f in fields(Difference)])
    for row in rows:
        cells = [_cell(value) for value in astuple(row)]
        # Left bare, a carriage return would end the row for other programs.
        (quoting if any("\r" in cell for cell in cells) else plain).writerow(cells)
    return text.getvalue()


def _cell(value: str | float) -> str:
    r"""A number as digits, or a word that no spreadsheet takes for a formula, as OWASP advises.

    >>> _cell(-0.5), _cell("-cmd|' /C calc'!A0"), _cell("embed")
    ('-0.5', "'-cmd|' /C calc'!A0", 'embed')
    """
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA) else value
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _pairs(a: Side, b: Side) -> list[tuple[int, int]]:
    """Positions of the layers to compare: every layer of the shallower side once."""
    if a.layers == b.layers:
        return [(k, k) for k in range(len(a.layers))]
    depth_a, depth_b = (np.array(s.layers) / max(1, s.layers[-1]) for s in (a, b))
    if len(depth_a) <= len(depth_b):
        return [(i, int(np.abs(depth_b - d).argmin())) for i, d in enumerate(depth_a)]
    return [(int(np.abs(depth_a - d).argmin()), j) for j, d in enumerate(depth_b)]


def _row(a: Side, b: Side, i: int, j: int, metric: str, num_layers: int) -> Difference:
    value_a, low_a, high_a = (float(v) for v in a.values_LMB[i, a.metrics.index(metric), :3])
    value_b, low_b, high_b = (float(v) for v in b.values_LMB[j, b.metrics.index(metric), :3])
    name_a, name_b = a.layer_names[i], b.layer_names[j]
    difference = value_a - value_b
    below = math.hypot(value_a - low_a, high_b - value_b)
    above = math.hypot(high_a - value_a, value_b - low_b)
    wider = _wider(num_layers)
    low, high = difference - wider * below, difference + wider * above
    verdict = "" if math.isnan(low) else "no difference" if low <= 0 <= high else _word(metric, difference, a, b)
    return Difference(
        layer_a=a.layers[i],
        layer_b=b.layers[j],
        layer_name=name_a if name_a == name_b else f"{name_a} ~ {name_b}",
        metric=metric,
        a=value_a,
        b=value_b,
        difference=difference,
        low=difference - below,
        high=difference + above,
        all_low=low,
        all_high=high,
        verdict=verdict,
    )


def _wider(num_layers: int) -> float:
    """Factor by which a normal interval grows so that it holds for so many layers at once (Bonferroni)."""
    from scipy.stats import norm

    return float(norm.ppf(1 - 0.025 / num_layers) / norm.ppf(0.975))


def _word(metric: str, difference: float, a: Side, b: Side) -> str:
    better = a.name if difference * ROWS[metric].sign > 0 else b.name
    if metric in NUMBERS:
        return f"{better} predicts better"
    return f"{better} {'tighter' if metric in DISPERSIONS else 'separates better'}"


def _agreed(rows: list[Difference], name_a: str, name_b: str) -> list[Difference]:
    """Withdraw "tighter" where the raw and the mean-centred dispersion of a layer do not both say so."""
    verdicts: dict[tuple[int, int], list[str]] = {}
    for row in rows:
        if row.metric in DISPERSIONS:
            verdicts.setdefault((row.layer_a, row.layer_b), []).append(row.verdict)
    agreed = []
    for row in rows:
        verdict = row.verdict
        if verdict in (f"{name_a} tighter", f"{name_b} tighter") and row.metric in DISPERSIONS:
            others = verdicts[row.layer_a, row.layer_b]
            if len(others) < len(DISPERSIONS) or "" in others:
                verdict += ", by this measure alone"
            elif len(set(others)) > 1:
                verdict = "raw and mean-centred disagree"
        agreed.append(replace(row, verdict=verdict))
    return agreed
