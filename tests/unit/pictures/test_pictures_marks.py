"""Marks on panels: piles tell their size, and what lies far away from all others squeezes nothing into a corner."""

from __future__ import annotations

import secrets

import numpy as np
import pytest

from drillcore.pictures.colors import category_hex, rgb
from drillcore.pictures.data import Grid, Panel, PanelRow
from drillcore.pictures.frame import Frame, outside
from drillcore.pictures.shade import Palette, shade

LABELS = ("Montreal", "Toronto")


def shaded(panel: Panel, px: int = 200, *, every_point: bool = False) -> np.ndarray:
    palette = Palette.of(Grid("", "", (PanelRow("", (panel,)),), LABELS))
    (image,) = shade([panel], px, palette, every_point=every_point)
    assert image is not None
    return image


def drawn_size(image: np.ndarray) -> int:
    """Height of what is drawn in colours, in pixels, without what stands at the edges."""
    inner = image[12:-12, 12:-12].astype(int)
    rows = np.flatnonzero((np.ptp(inner, axis=2) > 40).any(axis=1))
    return int(rows[-1] - rows[0]) if len(rows) else 0


def colored(image: np.ndarray) -> int:
    """Pixels in colours."""
    return int((np.ptp(image.astype(int), axis=2) > 40).sum())


def ink(image: np.ndarray) -> int:
    """Pixels in the ink of letters."""
    return int((image.max(axis=2) < 90).sum())


@pytest.fixture(scope="module")
def rng() -> np.random.Generator:
    seed = secrets.randbits(32)
    print("seed", seed)
    return np.random.default_rng(seed)


@pytest.mark.parametrize("count", [20, 250, 6_000, 60_000])
def test_a_few_points_far_away_squeeze_nothing(count: int, rng: np.random.Generator) -> None:
    cloud = rng.uniform(-1, 1, (count, 2)).astype(np.float32)
    codes = (np.arange(count) % 2).astype(np.int32)
    far = max(1, count // 100)
    cloud[rng.choice(count, far, replace=False)] += np.float32(1000) * rng.choice([-1, 1], (far, 2)).astype(np.float32)
    panel = Panel("p", cloud, codes)
    assert drawn_size(shaded(panel)) > 100
    assert colored(shaded(panel, every_point=True)) < 0.7 * colored(shaded(panel))
    frame = Frame.around(cloud)
    assert frame is not None and not frame.is_whole
    assert len(outside(frame.unit(cloud))) == far
    words = shaded(panel)
    assert ink(words[-40:, :120]) > 20, "their number stands in the corner"
    edges = np.concatenate([words[:12].reshape(-1, 3), words[-12:].reshape(-1, 3)])
    colors = {rgb(color) for color in category_hex(LABELS)}
    assert {tuple(int(c) for c in pixel) for pixel in edges} & colors, "triangles in the labels' colours"


def test_clusters_and_single_clouds_are_shown_whole(rng: np.random.Generator) -> None:
    for count in (5, 19, 50, 300, 20_000):
        points = rng.normal(size=(count, 2)).astype(np.float32)
        points[: max(2, count // 20)] += 30
        for shown in (points, rng.uniform(size=(count, 2)).astype(np.float32)):
            frame = Frame.around(shown)
            assert frame is not None and frame.is_whole and not len(outside(frame.unit(shown)))
            assert frame == Frame.around(shown, every=True)


def test_piles_tell_their_size(rng: np.random.Generator) -> None:
    spread = rng.uniform(-1, 1, (21, 2)).astype(np.float32)
    piled = np.concatenate([np.zeros((229, 2), np.float32), spread])
    codes = (np.arange(250) % 2).astype(np.int32)
    image = shaded(Panel("p", piled, codes))
    assert ink(image) > 30
    assert ink(shaded(Panel("p", spread, codes[:21]))) == 0
