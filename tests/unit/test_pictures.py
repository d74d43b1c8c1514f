"""Grids: every point is drawn in its colour, the same grid gives the same bytes, odd ones are marked."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from drillcore.pictures.colors import assign
from drillcore.pictures.grid import draw_grid, write_grid
from drillcore.pictures.panels import Grid, Panel, Row
from drillcore.pictures.shade import shade_panel

CITIES = ("Montreal", "Toronto")


def count_color(image: Image.Image, color: str) -> int:
    """Connected dots of a colour, counted by flood; their edges are blended with white."""
    rgb = tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))
    mask = np.abs(np.asarray(image.convert("RGB")).astype(int) - rgb).max(-1) < 60
    found = 0
    while mask.any():
        found += 1
        stack = [tuple(np.argwhere(mask)[0])]
        while stack:
            y, x = stack.pop()
            if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x]:
                mask[y, x] = False
                stack += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    return found


def test_every_point_is_seen_in_its_colour():
    side = np.stack(np.meshgrid(np.arange(5), np.arange(5)), -1).reshape(-1, 2).astype(np.float32)
    values = (np.arange(25) % 2).astype(np.int32)
    colors = [assign(CITIES)[c] for c in CITIES]
    image = shade_panel(side, values, colors, 200)
    assert [count_color(image, c) for c in colors] == [13, 12]


def test_up_is_up():
    points = np.array([[0, 0], [0, 0.1], [1, 1]], np.float32)
    image = np.asarray(shade_panel(points, np.array([0, 0, 1], np.int32), ["#0000ff", "#ff0000"], 200)).astype(int)
    red = np.argwhere((image[..., 0] > 200) & (image[..., 2] < 60)).mean(0)
    assert red[0] < 60 and red[1] > 140


@pytest.mark.parametrize("count", [20, 20_000])
def test_same_grid_same_bytes(tmp_path, seed, count):
    draw = np.random.default_rng(seed)
    panel = Panel(
        "block 1", draw.normal(size=(count, 2)).astype(np.float32), draw.integers(0, 2, count).astype(np.int32)
    )
    still = Panel("embed", np.zeros((count, 2), np.float32), panel.values_N, degenerate=True)
    grid = Grid("title", "subtitle", (Row("", (still, panel)), Row("other", (None, panel))), CITIES)
    first, second = (write_grid(grid, tmp_path / name)[0].read_bytes() for name in ("a.png", "b.png"))
    assert first == second
    picture = draw_grid(grid)
    assert picture.width > 400 and len(set(picture.resize((60, 60)).get_flattened_data())) > 3


def test_colours():
    assert assign(CITIES) == {"Toronto": "#D55E00", "Montreal": "#0072B2"}
    many = assign([f"label {i}" for i in range(100)])
    assert len(set(many.values())) == 100
