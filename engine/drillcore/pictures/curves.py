"""Measures per layer as curves with intervals and nulls, drawn by matplotlib.

Owns the look of the charts in PNG and SVG files; the page of the report draws the same data with its own script. Every
text is wrapped, or cut, to the room that it has.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from drillcore.pictures.colors import line_hex
from drillcore.pictures.data import Chart, Charts, Series
from drillcore.pictures.lettering import families, fitted, font, wrapped
from drillcore.system.files import replacing

DPI = 120
CHART_INCHES = (6.2, 3.4)
EDGE_INCHES = 0.12
CONTROL_DASHES: tuple[Any, ...] = ("--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)))
CONTROL_HEX = "#6b6b6b"
NULL_HEX, NULL_ALPHA = "#444444", 0.16
MARKED_LAYERS = 40  # with fewer values than this, each is marked
# Points of the fonts; lines are as much higher.
TITLE, SUBTITLE, CHART_TITLE, AXIS, LEGEND, SMALL = 14.0, 10.0, 10.0, 9.0, 8.5, 8.0
LINE = 1.35
KEY_INCHES = 0.75  # of the legend: a line, and the gaps around its name
# Fixed ids (and no date): the same charts give the same bytes. A dollar sign in a name does not begin a formula.
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "drillcore",
    "font.size": AXIS,
    "axes.titlesize": CHART_TITLE,
    "text.parse_math": False,
}


def series_hex(charts: tuple[Chart, ...]) -> dict[str, str]:
    """A colour for each name of a series, the same in every chart; controls of all series are grey.

    The colours are others than those of labels, since a line is a model or a dataset.

    >>> line = Series("cities", np.arange(2), np.array([0.5, 0.9]))
    >>> series_hex((Chart("Linear probe", "accuracy", (line,)),))
    {'cities': '#332288'}
    """
    names = list(dict.fromkeys(s.name for chart in charts for s in chart.series if not s.control))
    controls = {s.name: CONTROL_HEX for chart in charts for s in chart.series if s.control}
    return {**controls, **dict(zip(names, line_hex(len(names)), strict=True))}


def write_curves(charts: Charts, path: Path, *, columns: int = 2) -> Path:
    """Write the charts as one picture, PNG or SVG by the path's suffix, and return the path.

    columns: charts side by side. The same charts give the same bytes.

    Raises:
        ValueError: there is no chart.
        OSError: the file cannot be written.
    """
    if not charts.charts:
        raise ValueError(f"{charts.title!r} has no charts")
    with matplotlib.rc_context({**STYLE, "font.family": families(_texts(charts))}):
        figure = figure_of(charts, min(columns, len(charts.charts)))
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        # matplotlib takes the format from the suffix.
        scratch = path.with_name(f"{path.stem}.partial{path.suffix}")
        # A font of the system need not have a bold form, which needs no line of its own.
        logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
        with replacing(path, scratch):
            figure.savefig(scratch, dpi=DPI, metadata=metadata)
    return path


def _texts(charts: Charts) -> list[str]:
    """Every text of a picture that a job or its data may have named."""
    found = [charts.title, charts.subtitle, charts.footer]
    for chart in charts.charts:
        found += [chart.title, chart.value_name, chart.note, *(s.name for s in chart.series)]
    return found


@dataclass(frozen=True)
class _Drawing:
    """What the parts of a picture share. colors: of series. dashes: of controls, by name."""

    charts: Charts
    colors: dict[str, str]
    dashes: dict[str, Any]

    def color(self, series: Series) -> str:
        """A control has the colour of the line that it belongs to."""
        return self.colors.get(series.of, CONTROL_HEX) if series.control else self.colors[series.name]


def figure_of(charts: Charts, columns: int) -> Figure:
    """The charts as a figure of matplotlib; `write_curves` gives it its fonts."""
    rows = -(-len(charts.charts) // columns)
    width = CHART_INCHES[0] * columns
    room = width - 2 * EDGE_INCHES
    drawing = _Drawing(charts, series_hex(charts.charts), _dashes(charts))
    head = [(line, TITLE) for line in _lines(charts.title, TITLE, room, bold=True)]
    head += [(line, SUBTITLE) for line in _lines(charts.subtitle, SUBTITLE, room)]
    small_print = _lines(charts.footer, SMALL, room)
    entries = _legend_entries(drawing, room)
    across = max(1, int(room / max(KEY_INCHES + _inches(name, LEGEND) for name, _ in entries)))
    legend_inches = -(-len(entries) // across) * _line_inches(LEGEND) * 1.15
    above = sum(_line_inches(size) for _, size in head) + 2 * EDGE_INCHES
    below = legend_inches + len(small_print) * _line_inches(SMALL) + 3 * EDGE_INCHES
    height = CHART_INCHES[1] * rows + above + below
    middle = (0, below / height, 1, 1 - (above + below) / height)
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(rect=middle, h_pad=0.12, w_pad=0.12))
    FigureCanvasAgg(figure)
    top = height - EDGE_INCHES
    for line, size in head:
        weight = "bold" if size == TITLE else "normal"
        figure.text(EDGE_INCHES / width, top / height, line, fontsize=size, weight=weight, va="top")
        top -= _line_inches(size)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax, chart in zip(axes.flat, charts.charts, strict=False):
        _chart(ax, chart, drawing)
    for ax in axes.flat[len(charts.charts) :]:
        ax.set_visible(False)
    figure.legend(
        [handle for _, handle in entries], [""] * len(entries), ncols=across, frameon=False, fontsize=LEGEND,
        loc="upper left", bbox_to_anchor=(0, (below - EDGE_INCHES / 2) / height),
    )  # fmt: skip
    for text, (name, _) in zip(figure.legends[0].get_texts(), entries, strict=True):
        # matplotlib drops labels that begin with an underscore, but not texts that are set afterwards.
        text.set_text(name)
    figure.text(
        EDGE_INCHES / width, EDGE_INCHES / height, "\n".join(small_print), fontsize=SMALL, color="#606060", va="bottom"
    )
    return figure


def _line_inches(points: float) -> float:
    return points * LINE / 72


def _inches(text: str, points: float) -> float:
    return font(round(points * DPI / 72)).getlength(text) / DPI


def _lines(text: str, points: float, room_inches: float, *, bold: bool = False) -> list[str]:
    """A text in lines that fit a width in inches. The factor allows for rounding of the font's size."""
    return wrapped(text, font(round(points * DPI / 72), bold=bold), round(room_inches * DPI * 0.97))


def _dashes(charts: Charts) -> dict[str, Any]:
    """The dashes of each control's line, by its name."""
    names = dict.fromkeys(s.name for chart in charts.charts for s in chart.series if s.control)
    return {name: CONTROL_DASHES[i % len(CONTROL_DASHES)] for i, name in enumerate(names)}


def _chart(ax: Axes, chart: Chart, drawing: _Drawing) -> None:
    wide, relative_depth = CHART_INCHES[0] - 1.0, drawing.charts.relative_depth
    ax.set_title("\n".join(_lines(chart.title, CHART_TITLE, wide, bold=True)), loc="left", weight="bold")
    ax.set_ylabel("\n".join(_lines(chart.value_name, AXIS, CHART_INCHES[1] * 0.6)))
    axis = "depth (0 = embed, 1 = final norm)" if relative_depth else "layer (0 = embed, last = final norm)"
    ax.set_xlabel("\n".join([axis, *_lines(chart.note, AXIS, wide)]))
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    ax.set_axisbelow(True)
    if chart.value_range is not None:
        ax.set_ylim(*chart.value_range)
    if not relative_depth:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    # Bands on top of each other are together no darker than one band.
    num_nulls = sum(series.null_high_L is not None for series in chart.series)
    faint = 1 - (1 - NULL_ALPHA) ** (1 / max(num_nulls, 1))
    for series in chart.series:
        _draw(ax, series, drawing, faint)


def _draw(ax: Axes, series: Series, drawing: _Drawing, faint: float) -> None:
    x, color = series.layers_L.astype(float), drawing.color(series)
    if drawing.charts.relative_depth and len(x):
        x = x / max(x.max(), 1)
    if series.null_mean_L is not None and series.null_high_L is not None:
        ax.fill_between(x, series.null_mean_L, series.null_high_L, color=NULL_HEX, alpha=faint, linewidth=0)
        ax.plot(x, series.null_high_L, color=NULL_HEX, linewidth=1.4)
    if series.low_L is not None and series.high_L is not None:
        ax.fill_between(x, series.low_L, series.high_L, color=color, alpha=0.2, linewidth=0)
    if series.control:
        ax.plot(x, series.value_L, color=color, linestyle=drawing.dashes[series.name], linewidth=1.2)
    else:
        marker = "o" if np.isfinite(series.value_L).sum() < MARKED_LAYERS else ""
        ax.plot(x, series.value_L, color=color, linewidth=1.8, marker=marker, markersize=3.5)


def _legend_entries(drawing: _Drawing, room_inches: float) -> list[tuple[str, Any]]:
    """The names and handles of the legend. What is too long for a line is cut."""
    all_series = [s for chart in drawing.charts.charts for s in chart.series]
    entries: list[tuple[str, Any]] = [
        (name, Line2D([], [], color=color, linewidth=1.8))
        for name, color in drawing.colors.items()
        if name not in drawing.dashes
    ]
    for name, style in drawing.dashes.items():
        entries.append((name, Line2D([], [], color=CONTROL_HEX, linestyle=style, linewidth=1.2)))
    if any(s.low_L is not None for s in all_series):
        entries.append(("in a line's colour: its 95 % interval", Patch(color=line_hex(1)[0], alpha=0.2, linewidth=0)))
    if any(s.null_high_L is not None for s in all_series):
        entries.append(("null (permuted labels): its limit", Line2D([], [], color=NULL_HEX, linewidth=1.4)))
        entries.append(("null: from its mean to its limit", Patch(color=NULL_HEX, alpha=NULL_ALPHA, linewidth=0)))
    face, limit = font(round(LEGEND * DPI / 72)), round((room_inches - KEY_INCHES) * DPI)
    return [(fitted(name, face, limit), handle) for name, handle in entries]
