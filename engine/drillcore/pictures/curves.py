"""Measures per layer as curves with intervals and nulls, drawn by matplotlib.

Owns the look of the charts in PNG and SVG files; the page of the report draws the same data with its own script.
"""

from __future__ import annotations

import textwrap
import warnings
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

from drillcore.pictures.colors import category_hex
from drillcore.pictures.data import Chart, Charts, Series
from drillcore.pictures.lettering import printable
from drillcore.system.files import replacing

DPI = 120
CHART_INCHES = (6.2, 3.4)
CONTROL_DASHES: tuple[Any, ...] = ("--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)))
CONTROL_HEX = "#6b6b6b"
NULL_HEX, NULL_ALPHA = "#808080", 0.18
# Fixed ids (and no date): the same charts give the same bytes. A dollar sign in a name does not begin a formula.
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "drillcore",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "text.parse_math": False,
}


def series_hex(charts: tuple[Chart, ...]) -> dict[str, str]:
    """A colour for each name of a series, the same in every chart; controls of all series are grey.

    >>> line = Series("Montreal", np.arange(2), np.array([0.5, 0.9]))
    >>> series_hex((Chart("Linear probe", "accuracy", (line,)),))
    {'Montreal': '#0072B2'}
    """
    names = list(dict.fromkeys(s.name for chart in charts for s in chart.series if not s.control))
    controls = {s.name: CONTROL_HEX for chart in charts for s in chart.series if s.control}
    return {**controls, **dict(zip(names, category_hex(names), strict=True))}


def write_curves(charts: Charts, path: Path, *, columns: int = 2) -> Path:
    """Write the charts as one picture, PNG or SVG by the path's suffix, and return the path.

    columns: charts side by side. The same charts give the same bytes.

    Raises:
        ValueError: there is no chart.
        OSError: the file cannot be written.
    """
    if not charts.charts:
        raise ValueError(f"{charts.title!r} has no charts")
    with matplotlib.rc_context(STYLE):
        figure = _figure(charts, min(columns, len(charts.charts)))
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        # matplotlib takes the format from the suffix.
        scratch = path.with_name(f"{path.stem}.partial{path.suffix}")
        with replacing(path, scratch), warnings.catch_warnings():
            # Characters that the font lacks are drawn as boxes, which needs no warning.
            warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
            figure.savefig(scratch, dpi=DPI, metadata=metadata)
    return path


def _figure(charts: Charts, columns: int) -> Figure:
    rows = -(-len(charts.charts) // columns)
    width = CHART_INCHES[0] * columns
    small_print = textwrap.wrap(charts.footer, round(width * 15))
    colors = series_hex(charts.charts)
    legend_columns = max(1, round(width / 3.2))
    legend_rows = -(-(len(colors) + 2) // legend_columns)
    above, below = 0.55 + 0.2 * bool(charts.subtitle), 0.15 + 0.2 * legend_rows + 0.16 * len(small_print)
    height = CHART_INCHES[1] * rows + above + below
    middle = (0, below / height, 1, 1 - (above + below) / height)
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(rect=middle, h_pad=0.12, w_pad=0.12))
    FigureCanvasAgg(figure)
    figure.text(0.12 / width, 1 - 0.12 / height, charts.title, fontsize=14, weight="bold", va="top")
    figure.text(0.12 / width, 1 - 0.44 / height, charts.subtitle, fontsize=10, va="top")
    axes = figure.subplots(rows, columns, squeeze=False)
    dashes = _dashes(charts)
    for ax, chart in zip(axes.flat, charts.charts, strict=False):
        _chart(ax, chart, colors, dashes, charts.relative_depth)
    for ax in axes.flat[len(charts.charts) :]:
        ax.set_visible(False)
    _legend(figure, charts, colors, dashes, legend_columns, (below - 0.04) / height)
    figure.text(0.12 / width, 0.08 / height, "\n".join(small_print), fontsize=8, color="#606060", va="bottom")
    return figure


def _dashes(charts: Charts) -> dict[str, Any]:
    """The dashes of each control's line, by its name."""
    names = dict.fromkeys(s.name for chart in charts.charts for s in chart.series if s.control)
    return {name: CONTROL_DASHES[i % len(CONTROL_DASHES)] for i, name in enumerate(names)}


def _chart(ax: Axes, chart: Chart, colors: dict[str, str], dashes: dict[str, Any], relative_depth: bool) -> None:
    ax.set_title(chart.title, loc="left", weight="bold")
    ax.set_ylabel(chart.value_name)
    note = f"\n{chart.note}" if chart.note else ""
    axis = "depth (0 = embed, 1 = final norm)" if relative_depth else "layer (0 = embed, last = final norm)"
    ax.set_xlabel(axis + note)
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
        color = colors.get(series.of, CONTROL_HEX) if series.control else colors[series.name]
        _draw(ax, series, color, dashes.get(series.name, "-"), faint, relative_depth)


def _draw(ax: Axes, series: Series, color: str, dashes: Any, faint: float, relative_depth: bool) -> None:
    x = series.layers_L.astype(float)
    if relative_depth and len(x):
        x = x / max(x.max(), 1)
    if series.null_mean_L is not None and series.null_high_L is not None:
        ax.fill_between(x, series.null_mean_L, series.null_high_L, color=NULL_HEX, alpha=faint, linewidth=0)
        ax.plot(x, series.null_mean_L, color="#909090", linewidth=0.8)
    if series.low_L is not None and series.high_L is not None:
        ax.fill_between(x, series.low_L, series.high_L, color=color, alpha=0.2, linewidth=0)
    if series.control:
        ax.plot(x, series.value_L, color=color, linestyle=dashes, linewidth=1.2)
    else:
        marker = "o" if np.isfinite(series.value_L).sum() < 40 else ""
        ax.plot(x, series.value_L, color=color, linewidth=1.8, marker=marker, markersize=3.5)


def _legend(
    figure: Figure, charts: Charts, colors: dict[str, str], dashes: dict[str, Any], columns: int, top: float
) -> None:
    all_series = [s for chart in charts.charts for s in chart.series]
    entries: list[tuple[str, Line2D | Patch]] = [
        (name, Line2D([], [], color=color, linewidth=1.8)) for name, color in colors.items() if name not in dashes
    ]
    for name, style in dashes.items():
        entries.append((name, Line2D([], [], color=CONTROL_HEX, linestyle=style, linewidth=1.2)))
    if any(s.low_L is not None for s in all_series):
        entries.append(("interval", Patch(color="#0072B2", alpha=0.2, linewidth=0)))
    if any(s.null_high_L is not None for s in all_series):
        entries.append(("null: mean to upper end", Patch(color=NULL_HEX, alpha=NULL_ALPHA, linewidth=0)))
    handles = [handle for _, handle in entries]
    numbers = [str(i) for i in range(len(entries))]
    legend = figure.legend(
        handles, numbers, ncols=columns, frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(0, top)
    )
    for text, (name, _) in zip(legend.get_texts(), entries, strict=True):
        # matplotlib drops labels that begin with an underscore, but not texts that are set afterwards.
        text.set_text(printable(name))
