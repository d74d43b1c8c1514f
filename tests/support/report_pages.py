"""Reports of random clouds, and a visit to one in a browser; `report_fixtures` opens them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drillcore.pictures.data import Chart, Grid, Panel, PanelRow, Report, ReportDataset, Series, Table
from drillcore.pictures.report.encode import LARGEST, quantised

READY_MS = 60_000
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
# Colour of a canvas at a place in parts of its width and height, and whether anything is drawn on it.
COLOR = """(node, [x, y]) => {
  const one = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  one.drawImage(node, -Math.floor(x * node.width), -Math.floor(y * node.height));
  return [...one.getImageData(0, 0, 1, 1).data];
}"""
IS_DRAWN = """(node) => {
  const copy = new OffscreenCanvas(node.width, node.height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(node, 0, 0);
  return copy.getImageData(0, 0, node.width, node.height).data.some((value) => value);
}"""
WORDS = ["city", "lake", "subway", "hockey", "mountain", "bridge", "station", "festival", "island", "tower", "street"]
HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 2'>",
    '"><svg onload=window.hacked=3>',
    "javascript:window.hacked=4",
    "\"'`&amp; &lt;b&gt; \\ ${window.hacked=5} {{7*7}}",
    "<!-- <script> --!>",
    "\u202eright to left override, שלום עולם",
    "مرحبا <b>بالعالم</b>",
    "x" * 3000,
]


def inner_box(locator: Any) -> tuple[float, float, float, float]:
    """Left, top, width and height of an element inside its border, in pixels of the window."""
    left, top, width, height = locator.evaluate(
        "node => { const b = node.getBoundingClientRect();"
        " return [b.left + node.clientLeft, b.top + node.clientTop, node.clientWidth, node.clientHeight]; }"
    )
    return left, top, width, height


@dataclass
class Visit:
    """A report in a page, with everything that went wrong and everything that was asked for."""

    page: Any
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def face(self, dataset: int, row: int, panel: int) -> Any:
        """The square of a panel, scrolled into view."""
        panels = self.page.locator("#datasets > section").nth(dataset).locator(".panels").nth(row)
        face = panels.locator(".panel").nth(panel).locator(".face")
        face.scroll_into_view_if_needed()
        return face

    def drawn(self, dataset: int, row: int, panel: int) -> Any:
        """The square of a panel once its points are drawn. (An untouched canvas is 300 px wide.)"""
        face = self.face(dataset, row, panel)
        wait_until(lambda: face.evaluate("node => node.firstChild.width !== 300"))
        return face

    def enlarge(self, dataset: int, row: int, panel: int) -> None:
        """Enlarge a panel by a click on its name."""
        self.face(dataset, row, panel).locator("xpath=..").locator(".name").click()

    def hover(self, face: Any, place: tuple[float, float]) -> None:
        """Move the pointer to a place of a panel: x to the right, y downwards, 0 to 1."""
        box = inner_box(face)
        self.page.mouse.move(box[0] + place[0] * box[2], box[1] + place[1] * box[3])

    def settle(self) -> None:
        """Wait until all earlier changes are drawn."""
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def tip(self) -> str | None:
        """The sentence in the tooltip."""
        tip = self.page.locator("#tip")
        return tip.locator(".words").text_content() if tip.is_visible() else None


def color_at(face: Any, place: Any) -> tuple[int, ...]:
    """Red, green, blue and opacity of a panel's square at a place, x to the right, y downwards, 0 to 1."""
    return tuple(face.locator("canvas").evaluate(COLOR, [float(place[0]), float(place[1])]))


def is_drawn(face: Any) -> bool:
    """Whether anything stands in a panel's square."""
    return bool(face.locator("canvas").evaluate(IS_DRAWN))


def wait_until(holds: Callable[[], Any]) -> None:
    """Wait until something holds. (Playwright's own waiting needs eval, which the page's policy forbids.)"""
    end = time.monotonic() + READY_MS / 1000
    while not holds():
        assert time.monotonic() < end, "it did not hold in time"
        time.sleep(0.02)


def clouds(rng: np.random.Generator, layers: int, n: int) -> list[np.ndarray]:
    codes = np.arange(n) % 2
    centers = rng.normal(size=(layers, 2, 2)) * np.linspace(0, 4, layers)[:, None, None]
    return [(centers[k][codes] + rng.normal(size=(n, 2))).astype(np.float32) for k in range(layers)]


def spaced(rng: np.random.Generator, layers: int, n: int) -> list[np.ndarray]:
    """Points in random order of which no two are so close that a pointer could not tell them apart: [n, 2] a layer."""
    side = int(np.ceil(np.sqrt(n)))
    cells = np.stack(np.divmod(np.arange(n), side), axis=1)
    return [(rng.permutation(cells) + rng.uniform(-0.3, 0.3, (n, 2))).astype(np.float32) for _ in range(layers)]


def row(title: str, points: list[np.ndarray], codes: np.ndarray) -> PanelRow:
    names = ["embed", *(f"block_{k}" for k in range(1, len(points)))]
    panels = (Panel(name, xy, codes, degenerate=k == 0) for k, (name, xy) in enumerate(zip(names, points, strict=True)))
    return PanelRow(title, tuple(panels))


def example(rng: np.random.Generator, n: int, layers: int, models: int = 1) -> tuple[Report, list[list[np.ndarray]]]:
    """A report of random clouds, the first layer degenerate; and the points of each model and layer."""
    points = [clouds(rng, layers, n) for _ in range(models)]
    codes = (np.arange(n) % 2).astype(np.int32)
    texts = [f"Sentence {i}: " + " ".join(rng.choice(WORDS, 12)) for i in range(n)]
    rows = tuple(row(f"model {m}", points[m], codes) for m in range(models))
    grid = Grid("incomplete", "random clouds", rows, ("Montreal", "Toronto"), footer="UMAP, seed 0")
    value = np.linspace(0.5, 0.9, layers)
    line = Series("model 0", np.arange(layers), value, value - 0.1, value + 0.1, 0 * value + 0.5, 0 * value + 0.6)
    control = Series("TF-IDF probe", np.arange(layers), 0 * value + 0.55, control=True)
    table = Table("Run", (), (("job", "example"), ("sentences", str(n))))
    chart = Chart("Linear probe", "accuracy", (line, control), (0.0, 1.0), "primary metric")
    return Report("Example", "", (table,), (chart,), (ReportDataset("incomplete", texts, grid),), "drillcore"), points


def places(points_N2: np.ndarray) -> np.ndarray:
    """Where the page draws each point of a panel: x to the right, y downwards, 0 to 1: [N, 2]."""
    xy = quantised(points_N2).astype(np.float64) / LARGEST
    return np.stack([xy[0], 1 - xy[1]], axis=1)


def isolated_sentence(points_N2: np.ndarray, rng: np.random.Generator) -> int:
    """A sentence whose point lies far from all others, most likely at the edge."""
    at = places(points_N2)
    outer = np.argsort(-np.hypot(*(at - np.median(at, axis=0)).T))[:200]
    distances = np.array([np.partition(np.hypot(*(at - at[i]).T), 1)[1] for i in outer])
    return int(rng.choice(outer[np.argsort(-distances)[:5]]))


def ring_places(visit: Visit, kind: str) -> dict[str, tuple[float, float]]:
    """Shown rings of the page's panels, by the panel's accessible name, as parts of the panel's width and height."""
    script = """(rings) => rings.filter((r) => !r.hidden).map((r) => [
      r.closest(".panel").getAttribute("aria-label"), parseFloat(r.style.left) / 100, parseFloat(r.style.top) / 100])"""
    rings = visit.page.locator(f".panel {kind}").evaluate_all(script)
    return {name: (x, y) for name, x, y in rings}


def canvas_bytes(visit: Visit) -> str:
    visit.settle()
    return str(visit.page.evaluate("document.getElementById('closeup-canvas').toDataURL()"))


def stage_place(visit: Visit, place: np.ndarray) -> tuple[float, float]:
    """Where a place of the panel stands on the stage while the whole panel is shown, in pixels of the window."""
    left, top, width, height = visit.page.locator("#stage").evaluate(
        "node => [node.getBoundingClientRect().left, node.getBoundingClientRect().top, node.clientWidth, node.clientHeight]"  # noqa: E501
    )
    side = min(width, height)
    return left + 1 + width / 2 + (place[0] - 0.5) * side, top + 1 + height / 2 + (place[1] - 0.5) * side
