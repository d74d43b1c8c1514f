"""Panels to pixels: every point is where it belongs, in its label's colour, by either recipe."""

from __future__ import annotations

import secrets

import numpy as np
import pytest

from drillcore.pictures import shade as module
from drillcore.pictures.colors import category_table, rgb
from drillcore.pictures.data import Grid, Panel, PanelRow
from drillcore.pictures.shade import FEW_POINTS, Frame, Palette, shade

VERMILLION, BLUE, GREY = rgb("#D55E00"), rgb("#0072B2"), rgb("#9a9a9a")
CORNERS = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]], np.float32)


def palette(categories: tuple[str, ...] = (), value_range: tuple[float, float] | None = None) -> Palette:
    panel = Panel("", CORNERS, np.zeros(4, np.int32))
    return Palette.of(Grid("", "", (PanelRow("", (panel,)),), categories, value_range))


def corners_of(image: np.ndarray) -> list[tuple[int, ...]]:
    """Darkest colour next to the places of CORNERS: the margin is 5 % of the panel."""
    low, high = round(0.05 * len(image)), round(0.95 * len(image)) - 1
    windows = [image[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).astype(int) for y in (high, low) for x in (low, high)]
    return [tuple(int(c) for c in window[window.sum(axis=1).argmin()]) for window in windows]


@pytest.mark.parametrize("copies", [1, 2_000])
def test_points_keep_place_orientation_and_colour(copies: int) -> None:
    codes = np.array([0, 1, 1, 0], np.int32)
    panel = Panel("p", np.tile(CORNERS, (copies, 1)), np.tile(codes, copies))
    assert (len(panel.points_N2) > FEW_POINTS) == (copies > 1)
    (image,) = shade([panel], 200, palette(("Montreal", "Toronto")))
    assert image is not None and image.shape == (200, 200, 3) and image.dtype == np.uint8
    assert corners_of(image) == [BLUE, VERMILLION, VERMILLION, BLUE]
    assert tuple(image[100, 100]) == (255, 255, 255)


@pytest.mark.parametrize("copies", [1, 2_000])
def test_no_label_and_no_value_are_grey(copies: int) -> None:
    points = np.tile(CORNERS, (copies, 1))
    codes = np.tile(np.array([0, 0, 0, -1], np.int32), copies)
    (labels,) = shade([Panel("p", points, codes)], 100, palette(("Toronto",)))
    values = np.tile(np.array([0, 1, 0.5, np.nan], np.float32), copies)
    (ramp,) = shade([Panel("p", points, values)], 100, palette((), (0.0, 1.0)))
    assert labels is not None and ramp is not None
    assert corners_of(labels) == [VERMILLION] * 3 + [GREY]
    low, high, middle, missing = corners_of(ramp)
    assert missing == GREY and sum(low) < sum(middle) < sum(high) < 3 * 255


def test_panels_shaded_together_equal_panels_shaded_alone() -> None:
    seed = secrets.randbits(32)
    print("seed", seed)
    rng = np.random.default_rng(seed)
    panels = []
    for _ in range(12):
        n = int(rng.choice([1, 2, 50, 300, FEW_POINTS, FEW_POINTS + 1]))
        scale = 10.0 ** rng.integers(-3, 6)
        points = (rng.normal(size=(n, 2)) * scale + rng.normal() * scale).astype(np.float32)
        panels.append(Panel("p", points, rng.integers(-1, 3, n).astype(np.int32)))
    colors = palette(("a", "b", "c"))
    together = shade([*panels, None], 150, colors)
    assert together.pop() is None
    for panel, image in zip(panels, together, strict=True):
        (alone,) = shade([panel], 150, colors)
        assert image is not None and alone is not None
        np.testing.assert_array_equal(image, alone)


def test_categories_counted_in_parts_give_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = secrets.randbits(32)
    print("seed", seed)
    rng = np.random.default_rng(seed)
    n, labels = 20_000, tuple(f"label {i:02}" for i in range(40))
    panel = Panel("p", rng.normal(size=(n, 2)).astype(np.float32), rng.integers(-1, 40, n).astype(np.int32))
    (whole,) = shade([panel], 100, palette(labels))
    monkeypatch.setattr(module, "MAX_CELLS", 100 * 100)
    (parts,) = shade([panel], 100, palette(labels))
    np.testing.assert_array_equal(whole, parts)


def test_dense_pixels_are_darker_and_mixed_pixels_mix() -> None:
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(50_000, 2)).astype(np.float32)
    (image,) = shade([Panel("p", cloud, np.arange(50_000, dtype=np.int32) % 2)], 200, palette(("a", "b")))
    assert image is not None
    mixture = category_table(("a", "b"))[:2].mean(axis=0)
    assert np.abs(image[90:110, 90:110].reshape(-1, 3).mean(axis=0) - mixture).max() < 40
    assert image[95:105, 95:105].mean() < image[50:60, 100:110].mean() < 255


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_points_that_are_not_finite_are_left_out(bad: float) -> None:
    points = np.concatenate([CORNERS, [[bad, 0]]]).astype(np.float32)
    codes = np.array([0, 0, 0, 0, 1], np.int32)
    (image,) = shade([Panel("p", points, codes)], 100, palette(("Toronto", "Montreal")))
    (many,) = shade(
        [Panel("p", np.tile(points, (2000, 1)), np.tile(codes, 2000))], 100, palette(("Toronto", "Montreal"))
    )
    assert image is not None and many is not None
    assert corners_of(image) == corners_of(many) == [VERMILLION] * 4
    assert shade([Panel("p", np.full((3, 2), bad, np.float32), codes[:3])], 100, palette(("a", "b"))) == [None]
    assert shade([Panel("p", np.zeros((0, 2), np.float32), codes[:0])], 100, palette(("a", "b"))) == [None]


def test_a_single_point_stands_in_the_middle() -> None:
    for x in (0.0, 1e-30, 3e7, -5.0):
        points = np.array([[x, x]], np.float32)
        frame = Frame.around(points)
        assert frame is not None and frame.half > 0
        for copies in (1, FEW_POINTS + 1):
            panel = Panel("p", np.tile(points, (copies, 1)), np.zeros(copies, np.int32))
            (image,) = shade([panel], 100, palette(("Toronto",)))
            assert image is not None and tuple(image[49, 50]) == VERMILLION, (x, copies)


def test_values_without_colour_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'p': category 2, but the grid names 2"):
        shade([Panel("p", CORNERS, np.array([0, 1, 2, 0], np.int32))], 100, palette(("a", "b")))
    with pytest.raises(ValueError, match="no value_range"):
        shade([Panel("p", CORNERS, np.zeros(4, np.float32))], 100, palette(("a", "b")))


def test_panels_check_their_shapes() -> None:
    with pytest.raises(ValueError, match=r"'p': points must have shape \[N, 2\], not \[4, 3\]"):
        Panel("p", np.zeros((4, 3), np.float32), np.zeros(4, np.int32))
    with pytest.raises(ValueError, match=r"4 points but values of \[3\]"):
        Panel("p", CORNERS, np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="integers or floats"):
        Panel("p", CORNERS, np.array(["a"] * 4))  # type: ignore[arg-type]


def test_labels_on_one_spot_are_drawn_beside_each_other() -> None:
    spots = np.repeat(np.array([[0, 0], [10, 0], [0, 10]], np.float32), 2, axis=0)
    panel = Panel("embed", spots, np.tile(np.array([0, 1], np.int32), 3))
    (image,) = shade([panel], 200, palette(("Montreal", "Toronto")))
    assert image is not None
    montreal, toronto = (int((image == np.array(color)).all(axis=2).sum()) for color in (BLUE, VERMILLION))
    assert min(montreal, toronto) > 0.5 * max(montreal, toronto) > 0
