"""Charts per layer from the measures of the store: separation, dispersion, token prediction, with their controls.

Shape legend: L layers, M measures, B bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from drillcore.pictures.data import Chart, Series
from drillcore.store.layout import attributes_of
from drillcore.store.reader import read_array


@dataclass(frozen=True)
class Source:
    """A group whose measures are drawn as a line. control: what the line `of` a name (or all others) must beat."""

    name: str
    group: zarr.Group
    control: bool = False
    of: str = ""


@dataclass(frozen=True)
class Measured:
    """An array of measures: its name, and that of the coordinate which names them."""

    array: str
    coordinate: str


@dataclass(frozen=True)
class Look:
    """How a measure is drawn."""

    title: str
    value_name: str
    value_range: tuple[float, float] | None = None
    note: str = ""
    shown: Callable[[NDArray[Any]], NDArray[Any]] = np.asarray


SEPARATION = Measured("separation", "metric")
PREDICTION = Measured("prediction", "prediction_metric")
LENS = "Logit lens: the model's own final norm and unembedding at each layer; uncalibrated in early layers."
TIGHTER = "Lower is tighter; claim it only where raw and mean-centred agree."
LOOKS: dict[tuple[Measured, str], Look] = {
    (SEPARATION, "probe"): Look("Linear probe (primary)", "balanced accuracy", (0, 1), "Cross-validated."),
    (SEPARATION, "purity"): Look("Purity of nearest neighbours", "balanced share", (0, 1)),
    (SEPARATION, "dispersion"): Look("Dispersion within labels, raw", "cosine distance", None, TIGHTER),
    (SEPARATION, "dispersion_centred"): Look(
        "Dispersion within labels, mean-centred", "cosine distance, relative", None, TIGHTER
    ),
    (PREDICTION, "logprob"): Look("Expected next token", "mean log-probability", None, LENS),
    (PREDICTION, "top1"): Look("Expected next token is the likeliest", "share of sentences", (0, 1), LENS),
    (PREDICTION, "median_rank"): Look("Rank of the expected next token", "log₁₀ of the median", None, LENS, np.log10),
    (SEPARATION, "silhouette"): Look("Silhouette", "silhouette", None),
}  # fmt: skip
CONTROLS = {"last_token_and_length": "control: last token and length", "tfidf": "control: TF-IDF"}


def charts_of(sources: Sequence[Source]) -> tuple[Chart, ...]:
    """A chart for each measure that any of the groups has; none where nothing was measured."""
    read = {measured: [_read(s.group, measured) for s in sources] for measured in (SEPARATION, PREDICTION)}
    found = []
    for (measured, metric), look in LOOKS.items():
        lines: list[Series] = []
        for source, values in zip(sources, read[measured], strict=True):
            if values is not None and metric in values:
                lines += _lines(source, values[metric], look)
        if lines:
            lines += _controls(sources) if metric == "probe" else []
            found.append(Chart(look.title, look.value_name, tuple(lines), look.value_range, look.note))
    return tuple(found)


def _read(group: zarr.Group, measured: Measured) -> dict[str, dict[str, NDArray[Any]]] | None:
    """Values [L] by measure and bound; None where the group has none of these measures."""
    if measured.array not in group or measured.array not in attributes_of(group).get("results", {}):
        return None
    values_LMB = read_array(group, measured.array)
    metrics, bounds = read_array(group, measured.coordinate), read_array(group, "bound")
    return {
        str(metric): {str(bound): values_LMB[:, m, b] for b, bound in enumerate(bounds)}
        for m, metric in enumerate(metrics)
    }


def _lines(source: Source, bounds: dict[str, NDArray[Any]], look: Look) -> Iterator[Series]:
    """The measure's line; nothing where it was skipped at every layer."""
    layers_L, value_L = read_array(source.group, "layer"), bounds["value"]
    if np.isnan(value_L).all():
        return
    with np.errstate(divide="ignore"):
        shown = {name: look.shown(values_L).astype(np.float64) for name, values_L in bounds.items() if name != "p"}
    if source.control:
        yield Series(source.name, layers_L, shown["value"], control=True, of=source.of)
        return
    low_L, high_L = _ends(shown, "low", "high")
    mean_L, beyond_L = _ends(shown, "null_mean", "null_high")
    yield Series(source.name, layers_L, shown["value"], low_L, high_L, mean_L, beyond_L)


def _ends(bounds: dict[str, NDArray[Any]], *names: str) -> tuple[NDArray[Any], NDArray[Any]] | tuple[None, None]:
    """Both ends of a band, or none where one of them is nowhere known."""
    first, second = (bounds.get(name) for name in names)
    if first is None or second is None or np.isnan(first).all() or np.isnan(second).all():
        return None, None
    return first, second


def _controls(sources: Sequence[Source]) -> list[Series]:
    """Probes that need no model: flat lines, one where all groups have the same (models share texts and labels)."""
    found: dict[str, list[tuple[Source, float]]] = {}
    for source in (s for s in sources if not s.control):
        recorded = attributes_of(source.group).get("results", {}).get("separation", {}).get("controls", {})
        for name, bounds in recorded.items():
            if bounds.get("value") is not None:
                found.setdefault(CONTROLS.get(name, f"control: {name.replace('_', ' ')}"), []).append(
                    (source, float(bounds["value"]))
                )
    lines = []
    for title, members in found.items():
        same = len({value for _, value in members}) == 1
        for source, value in [max(members, key=lambda m: _depth(m[0]))] if same else members:
            layers_L = read_array(source.group, "layer")
            flat_L = np.full(len(layers_L), value)
            lines.append(Series(title, layers_L, flat_L, control=True, of="" if same else source.name))
    return lines


def _depth(source: Source) -> int:
    return int(read_array(source.group, "layer")[-1])


def small_print(sources: Sequence[Source]) -> str:
    """What a reader must know of the intervals and the null."""
    records = [attributes_of(s.group).get("results", {}).get("separation", {}) for s in sources]
    permutations = sorted({int(r["permutations"]) for r in records if r.get("permutations")})
    words = ["Bands: 95 % intervals, by leaving out groups of sentences."]
    if permutations:
        times = " or ".join(f"{n:,}" for n in permutations)
        words.append(
            f"Null: {times} permutations of the labels, the same for all layers; its upper end holds over all layers "
            "at once (95 %)."
        )
    words.append("Measured in the raw space, never on the projection.")
    notes = dict.fromkeys(str(note) for r in records for note in r.get("notes", []))
    return " ".join([*words, *notes])


def chart_inputs(source: Source) -> list[Any]:
    """What a group's lines depend on, JSON-ready."""
    results = attributes_of(source.group).get("results", {})
    return [
        source.name,
        source.control,
        source.of,
        source.group.path,
        results.get("separation"),
        results.get("prediction"),
    ]
