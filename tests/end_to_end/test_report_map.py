"""Names and contours over the points of the report's panels, as they are drawn; in a real Chromium."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import label as regions

from drillcore.pictures.data import Grid, Panel, PanelRow, Report, ReportDataset
from drillcore.pictures.report.write import write_report
from support.report_pages import places, wait_until

pytest_plugins = ["support.report_fixtures"]
NAMES = ("Montreal", "שלום עולם", "🚢 ships of the line", "a name that is far too long for any map " * 9, "nan", "rare")


def page_of(points: np.ndarray, codes: np.ndarray, names: tuple[str, ...], tmp_path: Path, **settings: Any) -> Path:
    panels = tuple(Panel(f"block {k}", points.astype(np.float32), codes.astype(np.int32), layer=k) for k in range(2))
    grid = Grid("d", "", (PanelRow("m", panels),), names)
    report = Report("r", "", (), (), (ReportDataset("d", [f"Sentence {i}" for i in range(len(codes))], grid),))
    return write_report(report, tmp_path / "report.html", **settings)


def enlarged(shown: Any) -> tuple[Any, np.ndarray]:
    """The canvas of the close-up of the last panel, and the left, upper, right and lower edge of the panel in it."""
    shown.enlarge(0, 0, 1)
    canvas = shown.page.locator("#closeup-canvas")
    wait_until(lambda: canvas.get_attribute("data-contours") is not None)
    shown.settle()
    width, height = canvas.evaluate("node => [node.width, node.height]")
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return canvas, np.array([left, top, left + side, top + side])


def names_on(canvas: Any) -> list[dict[str, Any]]:
    return json.loads(canvas.get_attribute("data-names") or "[]")


def pixels(canvas: Any) -> np.ndarray:
    """RGB of a canvas on the panel's ground: [height, width, 3]."""
    data = base64.b64decode(canvas.evaluate("node => node.toDataURL()").partition(",")[2])
    ground = canvas.evaluate("node => getComputedStyle(node.parentNode).backgroundColor")
    drawn = Image.open(BytesIO(data)).convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", drawn.size, ground), drawn).convert("RGB"))


def assert_placed(named: list[dict[str, Any]], square: np.ndarray, points: np.ndarray, codes: np.ndarray) -> None:
    """No name covers another or leaves the panel, and each stands where most sentences are of its label."""
    at = square[:2] + places(points.astype(np.float32)) * (square[2] - square[0])
    for k, name in enumerate(named):
        left, top, right, bottom = name["box"]
        assert square[0] <= left < right <= square[2] and square[1] <= top < bottom <= square[3], name
        for other in named[:k]:
            apart = (
                right <= other["box"][0]
                or other["box"][2] <= left
                or bottom <= other["box"][1]
                or other["box"][3] <= top
            )
            assert apart, (name, other)
        x, y = name["anchor"]
        assert left <= x <= right and top - 30 < y < bottom + 30, name
        # As seen by eyes that are not too sharp: those nearer count more.
        weights = np.exp(-0.5 * (np.hypot(*(at - [x, y]).T) / (square[2] - square[0]) / 0.025) ** 2)
        shares = np.bincount(codes, weights) / weights.sum()
        assert shares[name["place"]] > 0.5, (name, shares)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("count", [300, 9_000])
def test_names_stand_at_the_densest_places_of_their_labels(
    theme: str, count: int, visit: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    codes = np.arange(count) % 6
    codes[codes == 5] = np.where(rng.random((codes == 5).sum()) < 0.1, 5, 4)
    middles = np.array([[0, 0], [10, 0], [0, 10], [10, 10], [5, 5], [5, 5]], float)
    points = middles[codes] + rng.normal(0, 0.7, (count, 2))
    # A label in two places: its mean lies among others, its name must not.
    away = (codes == 0) & (rng.random(count) < 0.35)
    points[away] = np.array([10, 5]) + rng.normal(0, 0.7, (away.sum(), 2))
    shown = visit(page_of(points, codes, NAMES, tmp_path), color_scheme=theme)
    canvas, square = enlarged(shown)
    named = names_on(canvas)
    assert_placed(named, square, points, codes)
    assert [n["place"] for n in named][:1] == [4] and {n["place"] for n in named} >= {0, 1, 2, 3, 4}
    # It is rare, and everywhere among another; of few sentences, one may be alone.
    assert count < 1_000 or 5 not in {n["place"] for n in named}
    texts = {n["place"]: n["text"] for n in named}
    assert (
        texts[1] == NAMES[1] and texts[2] == NAMES[2] and texts[3].startswith("a name that") and texts[3].endswith("…")
    )
    own = square[:2] + (places(points.astype(np.float32)) * (square[2] - square[0]))[(codes == 0) & ~away]
    # Of few sentences, chance decides which of the two places is the denser.
    far = np.hypot(*(np.median(own, axis=0) - next(n["anchor"] for n in named if n["place"] == 0)))
    assert count < 1_000 or far < 80, far
    # They can be read, and can be switched off, by either button.
    before = pixels(canvas)
    inner = shown.page.locator("dialog button[data-switch=names]")
    inner.focus()
    shown.page.keyboard.press("Enter")
    wait_until(lambda: canvas.get_attribute("data-names") is None)
    shown.settle()
    after = pixels(canvas)
    assert shown.page.locator("header button[data-switch=names]").get_attribute("aria-pressed") == "false"
    for name in named:
        left, top, right, bottom = map(round, name["box"])
        part = (slice(top, bottom), slice(left, right))
        changed = before[part][(before[part] != after[part]).any(axis=2)] / 255
        light = np.where(changed <= 0.04045, changed / 12.92, ((changed + 0.055) / 1.055) ** 2.4) @ [
            0.2126,
            0.7152,
            0.0722,
        ]
        contrast = 1.05 / (light.min() + 0.05) if theme == "light" else (light.max() + 0.05) / 0.05
        assert len(light) > 30 and contrast >= 4.4, (name, contrast)


def test_of_many_labels_the_most_frequent_have_names(visit: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    weights = np.linspace(1, 4, 100)
    codes = rng.choice(100, 4_000, p=weights / weights.sum())
    points = np.stack(np.divmod(np.arange(100), 10), axis=1)[codes] * 4 + rng.normal(0, 0.4, (4_000, 2))
    shown = visit(page_of(points, codes, tuple(f"label number {k}" for k in range(100)), tmp_path))
    canvas, square = enlarged(shown)
    named = names_on(canvas)
    assert 10 < len(named) <= 30
    assert_placed(named, square, points, codes)
    thirty = set(np.argsort(-np.bincount(codes), kind="stable")[:30].tolist())
    assert {n["place"] for n in named} <= thirty
    # Hidden labels have no name, and their room is others'.
    shown.page.locator("#closeup-legend button", has_text="label number 99 ").click(modifiers=["Shift"])
    wait_until(lambda: [n["place"] for n in names_on(canvas)] == [99])
    # Panels of the grid are too small.
    shown.page.locator("#closeup-close").click()
    assert shown.page.locator(".panel canvas[data-names]").count() == 0


def test_without_labels_there_are_no_names(visit: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    shown = visit(page_of(rng.normal(size=(50, 2)), np.zeros(50), (), tmp_path))
    canvas, _ = enlarged(shown)
    assert canvas.get_attribute("data-names") is None and canvas.get_attribute("data-contours") == "0"
    for selector in ("button[data-switch]", "label.colour-by"):
        assert not any(shown.page.locator(selector).nth(k).is_visible() for k in range(2))


def shares_within(lines: np.ndarray, at: np.ndarray, middle: np.ndarray) -> list[float]:
    """Shares of places that lines around a middle enclose, the largest first. lines: [height, width], where drawn."""
    numbered, _ = regions(~lines)
    x, y = np.clip(at.round().astype(int), 0, np.array(lines.shape)[::-1] - 1).T
    of = numbered[y, x]
    counts = np.bincount(of[of > 0])
    rings = np.argsort(-counts)[:4]
    far = [np.hypot(*(at[of == ring] - middle).T).mean() for ring in rings]
    outwards = counts[rings[np.argsort(far)]]
    return (np.cumsum(outwards)[:3] / outwards.sum())[::-1].tolist()


@pytest.mark.parametrize("is_image", [False, True])
def test_contours_enclose_the_shares_that_they_stand_for(
    is_image: bool, visit: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    count = 30_000
    points, codes = rng.normal(size=(count, 2)), np.zeros(count)
    settings = {"max_panel_points": 16_000} if is_image else {}
    shown = visit(page_of(points, codes, ("Montreal",), tmp_path, **settings))
    canvas, square = enlarged(shown)
    assert canvas.get_attribute("data-contours") == "3"
    shown.page.locator("dialog button[data-switch=names]").click()
    shown.settle()
    before = pixels(canvas)
    shown.page.locator("dialog button[data-switch=contours]").click()
    wait_until(lambda: canvas.get_attribute("data-contours") == "0")
    shown.settle()
    lines = (before != pixels(canvas)).any(axis=2)
    at = square[:2] + places(points.astype(np.float32)) * (square[2] - square[0])
    shares = shares_within(lines, at, np.median(at, axis=0))
    assert np.allclose(shares, [0.9, 0.5, 0.25], atol=0.04), shares


def test_contours_are_of_each_of_a_few_labels_and_of_all_of_many(
    visit: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    for labels, count, wanted in ((4, 6_000, 12), (20, 6_000, 3), (4, 5_000, 0)):
        points, codes = rng.normal(size=(count, 2)), np.arange(count) % labels
        shown = visit(page_of(points, codes, tuple(f"l{k}" for k in range(labels)), tmp_path))
        canvas, _ = enlarged(shown)
        assert canvas.get_attribute("data-contours") == str(wanted), labels
        assert shown.page.locator("header button[data-switch=contours]").is_hidden() == (wanted == 0)
