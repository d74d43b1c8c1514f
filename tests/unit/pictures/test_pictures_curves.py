"""Curves and sparklines: what is drawn where, gaps, names that could be misread, the same bytes every time."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drillcore.cli.tables import sparkline
from drillcore.pictures.curves import series_hex, write_curves
from drillcore.pictures.data import Chart, Charts, Series
from support.text_boxes import assert_no_text_is_cut_or_touches_another


def series(name: str, layers: int = 6, **changes: object) -> Series:
    x = np.arange(layers)
    value = 0.5 + 0.4 * x / layers
    bounds = {
        "low_L": value - 0.1,
        "high_L": value + 0.1,
        "null_mean_L": 0 * value + 0.5,
        "null_high_L": 0 * value + 0.6,
    }
    return Series(name, x, value, **{**bounds, **changes})  # type: ignore[arg-type]


def charts(*names: str) -> Charts:
    control = Series("TF-IDF probe", np.arange(6), np.full(6, 0.55), control=True)
    chart = Chart(
        "Linear probe", "accuracy", (*(series(name) for name in names), control), (0.0, 1.0), "primary metric"
    )
    silhouette = Chart("Silhouette", "", tuple(series(name) for name in names))
    return Charts("Separation", "per layer", (chart, silhouette, chart), "small print")


def test_same_charts_same_bytes(tmp_path: Path) -> None:
    for suffix in (".png", ".svg"):
        one, two = (write_curves(charts("a", "b"), tmp_path / f"{name}{suffix}") for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
    assert len(list(tmp_path.iterdir())) == 4
    with Image.open(tmp_path / "one.png") as image:
        colors = {color for _, color in image.convert("RGB").getcolors(1 << 24) or []}
    assert {(0x33, 0x22, 0x88), (0x11, 0x77, 0x33), (0x44, 0x44, 0x44)} <= colors, "both lines and the null"


def test_values_lie_where_they_belong(tmp_path: Path) -> None:
    (text,) = (write_curves(charts("a"), tmp_path / "c.svg").read_text(),)
    lines = re.findall(r'<path d="([^"]+)"[^>]*stroke: #332288', text)
    points = [tuple(map(float, p)) for p in re.findall(r"[ML] ([\d.]+) ([\d.]+)", lines[0])]
    assert len(points) == 6
    steps = np.diff(np.array(points), axis=0)
    assert (steps[:, 0] > 0).all() and (steps[:, 1] < 0).all()
    limit, *_ = re.findall(r'<path d="([^"]+)" clip-path[^>]*stroke: #444444', text)
    heights = [float(y) for _, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", limit)]
    assert len(set(heights)) == 1 and points[0][1] > heights[0] > points[-1][1], (
        "the null ends at 0.6, between 0.5 and 0.83"
    )
    np.testing.assert_allclose(steps, np.tile(steps[0], (5, 1)), atol=1e-3)


LONG = "Rank of the expected next token, in words that go on for longer than any chart is wide, and then for longer"


@pytest.mark.parametrize(("num_charts", "num_series", "columns"), [(1, 1, 2), (2, 3, 2), (5, 12, 2), (4, 3, 3)])
def test_no_text_leaves_its_place_or_touches_another(num_charts: int, num_series: int, columns: int) -> None:
    lines = tuple(series(f"{'a name of a model that is long ' * (i % 3)}{i}") for i in range(num_series))
    control = Series(f"control: {LONG}", np.arange(6), np.full(6, 0.55), control=True)
    notes = ("", LONG, "uncalibrated in early layers")
    drawn = tuple(
        Chart(f"{LONG} {i}", LONG, (*lines, control), None if i % 2 else (0.0, 1.0), notes[i % 3])
        for i in range(num_charts)
    )
    page = Charts(f"{LONG} {LONG}", LONG, drawn, f"{LONG}. " * 4)
    assert_no_text_is_cut_or_touches_another(page, columns)


def test_odd_names_gaps_and_single_layers(tmp_path: Path) -> None:
    value = np.array([0.1, np.nan, np.inf, 0.4])
    odd = Series("_hidden $x^$ & <b> 日本 \n line", np.arange(4), value, control=False)
    alone = Series("one layer", np.array([3]), np.array([0.2]))
    nothing = Series("nothing", np.arange(0), np.zeros(0))
    page = Charts("$\\frac$", "_", (Chart("$", "$y", (odd, alone, nothing)),), "$", relative_depth=True)
    for suffix in ("png", "svg"):
        assert write_curves(page, tmp_path / f"c.{suffix}").stat().st_size > 1000
    with pytest.raises(ValueError, match="has no charts"):
        write_curves(Charts("Empty", "", ()), tmp_path / "e.png")


def test_series_check_their_shapes_and_keep_their_colours() -> None:
    with pytest.raises(ValueError, match=r"'a': value_L has shape \[3\], the layers \[2\]"):
        Series("a", np.arange(2), np.zeros(3))
    with pytest.raises(ValueError, match="needs both"):
        Series("a", np.arange(2), np.zeros(2), low_L=np.zeros(2))
    colors = series_hex(charts("a", "b").charts)
    assert colors["a"] != colors["b"] and colors["TF-IDF probe"] == "#6b6b6b"


def test_sparklines() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([0.5, 1.0, 0.0], low=0.5, high=1.0) == "▁█▁"
    assert sparkline([3, 3, 3]) == "▄▄▄"
    assert sparkline([1, float("nan"), 2]) == "▁·█" and sparkline([float("nan")]) == "·" and sparkline([]) == ""
    assert len(sparkline(range(81), width=20)) == 20 and sparkline(range(81), width=8) == "▁▂▃▄▅▆▇█"
    assert sparkline([1, 2], width=20) == "▁█"
