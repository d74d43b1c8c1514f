"""Charts per layer from the measures of the store: separation, dispersion, token prediction, with their controls.

Shape legend: L layers, M measures, B bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from drillcore.measures import CONTROLS, HELD_OUT, OF_NUMBERS, PRIMARY, ROWS
from drillcore.pictures.data import Chart, Series
from drillcore.runtime.results import Measured, read_prediction, read_separation, result_facts
from drillcore.store.arrays import of_label


@dataclass(frozen=True)
class LineSource:
    """A group whose measures are drawn as a line.

    control: what the line named by `of`, or every line, must beat. shows: dataset and row of the report's panels of it.
    label: the further label whose measures they are; "" is the main one.
    """

    name: str
    group: zarr.Group
    control: bool = False
    of: str = ""
    shows: tuple[str, str] | None = None
    label: str = ""

    def read(self, array: str) -> Measured | None:
        """The measures of an array; predictions, which are of no label, with those of the main one."""
        if array == "separation":
            return read_separation(self.group, self.label)
        return None if self.label else read_prediction(self.group)

    def records(self) -> list[dict[str, Any] | None]:
        """The facts of all that may be drawn."""
        names = [of_label("separation", self.label), *(["prediction"] if not self.label else [])]
        return [result_facts(self.group, name) for name in names]


@dataclass(frozen=True)
class Look:
    """How a measure is drawn. transform: from stored to drawn values."""

    title: str
    value_name: str
    value_range: tuple[float, float] | None = None
    note: str = ""
    transform: Callable[[NDArray[Any]], NDArray[Any]] = np.asarray


# More lines and controls, with intervals and nulls over each other, cannot be told apart: each line has a chart then.
TOGETHER = 3
SPLIT = " · "
LENS = "Logit lens: the model's own final norm and unembedding at each layer; uncalibrated in early layers."
TIGHTER = "Lower is tighter; claim it only where raw and mean-centred agree."
LOOKS: dict[tuple[str, str], Look] = {
    ("separation", "probe"): Look("Linear probe (primary)", "balanced accuracy", (0, 1), "Cross-validated."),
    ("separation", "r2"): Look("Linear probe of numbers (primary)", "R²", None, "Cross-validated."),
    ("separation", "auroc"): Look(
        "Linear probe, area under the ROC curve", "area", (0, 1), "Tested on a split's rows."
    ),
    ("separation", "recall_at_1_fpr"): Look(
        "Linear probe, recall at 1 % false positives", "recall of the second label", (0, 1), "Tested on a split's rows."
    ),
    ("separation", "purity"): Look("Purity of nearest neighbours", "balanced share", (0, 1)),
    ("separation", "dispersion"): Look("Dispersion within labels, raw", "cosine distance", None, TIGHTER),
    ("separation", "dispersion_centred"): Look(
        "Dispersion within labels, mean-centred", "cosine distance, relative", None, TIGHTER
    ),
    ("prediction", "logprob"): Look("Expected next token", "mean log-probability", None, LENS),
    ("prediction", "top1"): Look("Expected next token is the likeliest", "share of sentences", (0, 1), LENS),
    ("prediction", "median_rank"): Look("Rank of the expected next token", "log₁₀ of the median", None, LENS, np.log10),
    ("separation", "silhouette"): Look("Silhouette", "silhouette", None),
}


def title_of(metric: str, label: str = "") -> str:
    """The title of the chart of a measure of labels. label: that it names; "" where there is no other."""
    title = LOOKS["separation", metric].title
    return f"{title}{SPLIT}{label}" if label else title


def charts_of(sources: Sequence[LineSource], label: str = "") -> tuple[Chart, ...]:
    """A chart for each measure that any of the groups has; none where nothing was measured.

    label: that the titles name; "" where there is no other.
    """
    results = {array: [(s, s.read(array)) for s in sources] for array in ("separation", "prediction")}
    charts = []
    for (array, metric), look in LOOKS.items():
        lines: list[Series] = []
        for source, measured in results[array]:
            by_bound = None if measured is None else measured.of(metric)
            if measured is not None and by_bound is not None:
                lines.append(_line(source, measured.layers_L, by_bound, look))
        if lines:
            own = [(s, m) for s, m in results[array] if m is not None and metric in (m.primary, *m.metrics)]
            is_probe = metric in (PRIMARY, OF_NUMBERS)
            lines += _controls(own) if is_probe else []
            note = _how_tested([m for _, m in own]) if is_probe else look.note
            title = title_of(metric, label) if array == "separation" else look.title
            charts += _charts(Chart(title, look.value_name, tuple(lines), look.value_range, note))
    return tuple(charts)


def _charts(chart: Chart) -> list[Chart]:
    """The chart itself or, where it has many lines, one for each of them with its controls, on the same axes."""
    lines = [s for s in chart.series if not s.control]
    if len(lines) < 2 or len(chart.series) <= TOGETHER:
        return [chart]
    ends = _ends_of_all(chart.series) if chart.value_range is None else chart.value_range
    charts = []
    for line in lines:
        shown = (line, *(s for s in chart.series if s.control and s.of in ("", line.name)))
        charts.append(replace(chart, title=f"{chart.title}{SPLIT}{line.name}", series=shown, value_range=ends))
    return charts


def side_by_side(charts: Sequence[Chart]) -> int:
    """Charts of a line in a picture: those of one measure, where there are two to four of them."""
    measures = [chart.title.partition(SPLIT)[0] for chart in charts]
    most = max((measures.count(measure) for measure in measures), default=2)
    return max(2, min(most, 4))


def _ends_of_all(series: Sequence[Series]) -> tuple[float, float] | None:
    """The least and the greatest value of some series with their bands, with some room; None where there is none."""
    drawn = [v for s in series for v in (s.value_L, s.low_L, s.high_L, s.null_mean_L, s.null_high_L) if v is not None]
    known = np.concatenate([np.ravel(values) for values in drawn])
    known = known[np.isfinite(known)]
    if not len(known) or known.min() == known.max():
        return None
    low, high = float(known.min()), float(known.max())
    room = 0.05 * (high - low)
    return low - room, high + room


def _how_tested(measured: Sequence[Measured]) -> str:
    """What the probe was tested on."""
    ways = ", or ".join(sorted({_tested_on(m.facts.get("split")) for m in measured}))
    return f"{ways[:1].upper()}{ways[1:]}."


def _tested_on(split: dict[str, Any] | None) -> str:
    if split is None:
        return "cross-validated"
    return f"tested on {split['dataset']}" if "dataset" in split else "tested on a split's rows"


def _line(source: LineSource, layers_L: NDArray[Any], bounds: dict[str, NDArray[Any]], look: Look) -> Series:
    with np.errstate(divide="ignore"):
        drawn = {name: look.transform(values_L).astype(np.float64) for name, values_L in bounds.items() if name != "p"}
    p_L = bounds.get("p")
    if source.control:
        return Series(source.name, layers_L, drawn["value"], control=True, of=source.of)
    low_L, high_L = _ends(drawn, "low", "high")
    mean_L, upper_L = _ends(drawn, "null_mean", "null_high")
    p_L = None if p_L is None or np.isnan(p_L).all() else p_L
    return Series(source.name, layers_L, drawn["value"], low_L, high_L, mean_L, upper_L, p_L, shows=source.shows)


def _ends(bounds: dict[str, NDArray[Any]], *names: str) -> tuple[NDArray[Any], NDArray[Any]] | tuple[None, None]:
    """Both ends of a band; none where one of them is unknown at every layer."""
    first, second = (bounds.get(name) for name in names)
    if first is None or second is None or np.isnan(first).all() or np.isnan(second).all():
        return None, None
    return first, second


def _controls(sources: Sequence[tuple[LineSource, Measured]]) -> list[Series]:
    """Probes that need no model: flat lines, one where all groups have the same (models share texts and labels)."""
    values: dict[str, list[tuple[LineSource, NDArray[Any], float]]] = {}
    for source, measured in sources:
        if source.control:
            continue
        for name, value in measured.controls().items():
            title = f"control: {CONTROLS.get(name, name)}"
            values.setdefault(title, []).append((source, measured.layers_L, value))
    lines = []
    for title, members in values.items():
        same = len({value for _, _, value in members}) == 1
        for source, layers_L, value in [max(members, key=lambda m: int(m[1][-1]))] if same else members:
            flat_L = np.full(len(layers_L), value)
            lines.append(Series(title, layers_L, flat_L, control=True, of="" if same else source.name))
    return lines


def small_print(sources: Sequence[LineSource], label: str = "") -> str:
    """What a reader must know of the intervals and the null. label: that notes name; "" where there is no other."""
    records = [s.records()[0] or {} for s in sources]
    permutations = sorted({int(r["permutations"]) for r in records if r.get("permutations")})
    sentences = ["Bands: 95 % intervals, by leaving out groups of sentences."]
    if permutations:
        times = " or ".join(f"{n:,}" for n in permutations)
        sentences.append(
            f"Null: {times} permutations of the labels, the same for all layers; its limit holds over all layers "
            "at once (95 %)."
        )
    sentences.append("Measured in the raw space, never on the projection.")
    named: dict[str, list[str]] = {}
    for source, record in zip(sources, records, strict=True):
        for note in [*record.get("notes", []), *_not_measured(record)]:
            named.setdefault(str(note), []).append(source.name)
    of = [label] if label else []
    notes = [
        f"{', '.join(about)}: {note}" if about else note[:1].upper() + note[1:]
        for note, names in named.items()
        for about in [([] if len(names) == len(sources) else names) + of]
    ]
    return " ".join([*sentences, *(f"{note}." for note in notes)])


def _not_measured(record: dict[str, Any]) -> list[str]:
    """What a split's rows were too few for; that others were skipped shows in their charts."""
    skipped: dict[str, str] = record.get("skipped", {})
    return [f"{ROWS[name].title} not measured: {skipped[name]}" for name in HELD_OUT if name in skipped]


def chart_inputs(source: LineSource) -> list[Any]:
    """What a group's lines depend on, JSON-ready."""
    label = [source.label] if source.label else []
    return [source.name, source.control, source.of, source.group.path, *source.records(), *label]
