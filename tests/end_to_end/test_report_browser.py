"""The report in a real headless Chromium, opened from disk: what it shows, what answers, that nothing is fetched."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import require
from drillcore.pictures.data import Chart, Grid, Panel, PanelRow, Report, ReportDataset, Series, Table
from drillcore.pictures.report.encode import LARGEST, quantised
from drillcore.pictures.report.write import write_report

pytest_plugins = ["support.run_fixtures"]
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]  # Playwright gives the browser an empty --user-data-dir of its own.
READY_MS = 60_000
# The demo model is converted once, for all.
CACHE = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
LARGE = pytest.param("large", marks=pytest.mark.long)
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        require("browser", "the Python package playwright is missing")
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next((found for name in names if (found := shutil.which(name))), None)
    if executable is None:
        require("browser", "Chromium is missing")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


def box_of(locator: Any) -> tuple[float, float, float, float]:
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
        found = self.page.locator("#datasets > section").nth(dataset).locator(".panels").nth(row)
        face = found.locator(".panel").nth(panel).locator(".face")
        face.scroll_into_view_if_needed()
        return face

    def drawn(self, dataset: int, row: int, panel: int) -> Any:
        """The same, once its points are there. (An untouched canvas is 300 px wide.)"""
        face = self.face(dataset, row, panel)
        until(lambda: face.evaluate("node => node.firstChild.width !== 300"))
        return face

    def hover(self, face: Any, place: tuple[float, float]) -> None:
        """Move the pointer to a place of a panel: x to the right, y downwards, 0 to 1."""
        box = box_of(face)
        self.page.mouse.move(box[0] + place[0] * box[2], box[1] + place[1] * box[3])

    def settle(self) -> None:
        """Wait until what was asked for before is drawn."""
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def tip(self) -> str | None:
        """The sentence in the tooltip."""
        tip = self.page.locator("#tip")
        return tip.locator(".words").text_content() if tip.is_visible() else None


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    visits: list[Visit] = []

    def go(path: Path, **options: Any) -> Visit:
        page = browser.new_page(**{"viewport": {"width": 1400, "height": 1000}, "reduced_motion": "reduce", **options})
        found = Visit(page)
        page.on("console", lambda m: found.problems.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: found.problems.append(str(error)))
        page.on("request", lambda request: found.requests.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready=true]", timeout=READY_MS)
        visits.append(found)
        return found

    yield go
    for found in visits:
        # Images of the page's own are data: addresses, which ask nobody.
        fetched = [url for url in found.requests[1:] if not url.startswith("data:")]
        assert not found.problems and not fetched, (found.problems, fetched)
        assert found.page.evaluate("window.hacked") is None
        assert found.page.locator("#problem").is_hidden()
        found.page.close()


def until(holds: Callable[[], Any]) -> None:
    """Wait until something holds. (Playwright's own waiting needs eval, which the page's policy forbids.)"""
    end = time.monotonic() + READY_MS / 1000
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def clouds(rng: np.random.Generator, layers: int, n: int) -> list[np.ndarray]:
    codes = np.arange(n) % 2
    centers = rng.normal(size=(layers, 2, 2)) * np.linspace(0, 4, layers)[:, None, None]
    return [(centers[k][codes] + rng.normal(size=(n, 2))).astype(np.float32) for k in range(layers)]


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


def lonely(points_N2: np.ndarray, rng: np.random.Generator) -> int:
    """A sentence whose point stands well apart from the others, most likely at the edge."""
    at = places(points_N2)
    outer = np.argsort(-np.hypot(*(at - np.median(at, axis=0)).T))[:200]
    away = np.array([np.partition(np.hypot(*(at - at[i]).T), 1)[1] for i in outer])
    return int(rng.choice(outer[np.argsort(-away)[:5]]))


def ring_places(visit: Visit, kind: str) -> dict[str, tuple[float, float]]:
    """Shown rings of the page's panels, by the panel's accessible name, as parts of the panel's width and height."""
    script = """(rings) => rings.filter((r) => !r.hidden).map((r) => [
      r.closest(".panel").getAttribute("aria-label"), parseFloat(r.style.left) / 100, parseFloat(r.style.top) / 100])"""
    found = visit.page.locator(f".panel {kind}").evaluate_all(script)
    return {name: (x, y) for name, x, y in found}


@pytest.fixture(scope="module")
def rng() -> np.random.Generator:
    found = int(os.environ.get("DRILLCORE_SEED", secrets.randbits(32)))
    print(f"DRILLCORE_SEED={found}")
    return np.random.default_rng(found)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, rng: np.random.Generator) -> Any:
    report, points = example(rng, 50, 32, models=2)
    return write_report(report, tmp_path_factory.mktemp("report") / "report.html"), report, points, rng


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, rng: np.random.Generator) -> Any:
    report, points = example(rng, 100_000, 31)
    path = write_report(report, tmp_path_factory.mktemp("report") / "report.html")
    assert path.stat().st_size < 25_000_000
    return path, report, points, rng


@pytest.mark.parametrize("size", ["small", LARGE])
def test_hover_shows_the_sentence_and_rings_it_in_every_panel(size: str, visit: Any, request: Any) -> None:
    path, report, points, rng = request.getfixturevalue(size)
    shown, texts = visit(path), report.datasets[0].texts
    for layer in rng.integers(1, len(points[0]), 3).tolist():
        index = lonely(points[0][layer], rng)
        face = shown.drawn(0, 0, layer)
        shown.hover(face, places(points[0][layer])[index])
        assert shown.tip() == texts[index]
        assert ("Montreal", "Toronto")[index % 2] in (shown.page.locator("#tip .about").text_content() or "")
        rings = ring_places(shown, ".ring:not(.pin)")
        assert any(f"block_{layer}," in name for name in rings) and len(rings) >= 10
        for name, place in rings.items():
            title, model = name.split(":")[0].split(", ")
            there = points[int(model.split()[1])][int(title.removeprefix("block_"))]
            np.testing.assert_allclose(place, places(there)[index], atol=1e-5)
        shown.page.mouse.move(2, 2)
        assert shown.tip() is None and not ring_places(shown, ".ring:not(.pin)")


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


@pytest.mark.parametrize("size", ["small", LARGE])
def test_close_up_zooms_moves_and_morphs(size: str, visit: Any, request: Any) -> None:
    path, report, points, rng = request.getfixturevalue(size)
    shown, texts = visit(path), report.datasets[0].texts
    page = shown.page
    index = lonely(points[0][5], rng)
    shown.face(0, 0, 5).click()
    assert page.locator("#closeup").is_visible() and "block_5" in page.locator("#closeup-title").text_content()
    whole = canvas_bytes(shown)
    x, y = stage_place(shown, places(points[0][5])[index])
    page.mouse.move(x, y)
    assert shown.tip() == texts[index]
    page.mouse.wheel(0, -600)
    zoomed = canvas_bytes(shown)
    assert zoomed != whole
    page.mouse.move(x + 1, y)
    assert shown.tip() == texts[index], "what is under the pointer stays there"
    page.mouse.down()
    # Towards the middle: a point at the edge, dragged outwards, would leave the stage.
    across, down = np.copysign((60, 40), 0.5 - places(points[0][5])[index])
    page.mouse.move(x + 1 + across, y + down, steps=4)
    page.mouse.up()
    assert canvas_bytes(shown) != zoomed
    page.mouse.move(x + across, y + down)
    assert shown.tip() == texts[index], "the point moved with the pointer"
    page.locator("#zoom-reset").click()
    assert canvas_bytes(shown) == whole
    page.mouse.click(x, y)
    assert page.locator("#pinned .words").text_content() == texts[index]
    for position in (6, 6.5, 31 if size == "small" else 30):
        page.locator("#layer").evaluate(
            f"node => {{ node.value = {position}; node.dispatchEvent(new Event('input')) }}"
        )
        shown.settle()
        before, after = (points[0][int(np.floor(position))], points[0][int(np.ceil(position))])
        middle = (places(before)[index] + places(after)[index]) / 2
        wanted = stage_place(shown, middle)
        ring = page.locator("#stage .ring.pin").evaluate(
            "node => { const b = node.getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2] }"
        )
        np.testing.assert_allclose(ring, wanted, atol=1.5)
    page.locator("#layer").evaluate("node => { node.value = 0; node.dispatchEvent(new Event('input')) }")
    shown.settle()
    assert page.locator("#closeup-mark").is_visible()


@pytest.mark.parametrize("size", ["small", LARGE])
def test_search_finds_rings_and_pins(size: str, visit: Any, request: Any) -> None:
    path, report, points, rng = request.getfixturevalue(size)
    shown, texts = visit(path), report.datasets[0].texts
    page, index = shown.page, int(rng.integers(len(texts)))
    page.locator("#search").fill(f"SENTENCE {index}:")
    results = page.locator("#results button")
    results.first.wait_for(timeout=READY_MS)
    assert results.count() == 1 and results.locator(".words").text_content() == texts[index]
    assert page.locator("#found").text_content() == f"1 of {len(texts):,} sentences"
    results.click()
    assert page.locator("#pinned .words").text_content() == texts[index]
    shown.face(0, 0, 3)
    name = f"block_3, model 0: {len(texts):,} sentences; enlarge"
    until(lambda: name in ring_places(shown, ".ring.pin"))
    place = ring_places(shown, ".ring.pin")[name]
    np.testing.assert_allclose(place, places(points[0][3])[index], atol=1e-5)
    page.locator("#search").fill("lake")
    until(lambda: results.count() > 1)
    matches = sum("lake" in text for text in texts)
    assert (page.locator("#found").text_content() or "").startswith(f"{matches:,} of ")
    assert results.count() == min(matches, 50)
    page.locator("#search").fill("no sentence has this")
    until(lambda: (page.locator("#found").text_content() or "").startswith("0 of"))
    page.locator("#unpin").click()
    assert page.locator("#pinned").is_hidden() and not ring_places(shown, ".ring.pin")


def test_keyboard_alone_is_enough(small: Any, visit: Any) -> None:
    path, report, _, _ = small
    shown = visit(path)
    page = shown.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    panel = page.locator(".panel").nth(4)
    panel.focus()
    page.keyboard.press("Enter")
    assert page.locator("#closeup").is_visible() and page.evaluate("document.activeElement.id") == "stage"
    whole = canvas_bytes(shown)
    page.keyboard.press("+")
    page.keyboard.press("ArrowLeft")
    assert canvas_bytes(shown) != whole
    page.keyboard.press("0")
    assert canvas_bytes(shown) == whole
    slider = page.locator("#layer")
    slider.focus()
    for key, name in (("ArrowRight", "block_5"), ("ArrowRight", "block_6"), ("Home", "embed"), ("End", "block_31")):
        page.keyboard.press(key)
        assert slider.get_attribute("aria-valuetext") == name == page.locator("#layer-name").text_content()
    page.keyboard.press("Escape")
    assert page.locator("#closeup").is_hidden()
    assert panel.evaluate("node => node === document.activeElement")
    page.locator("#search").focus()
    page.keyboard.type("sentence 7:")
    page.locator("#results button").first.wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator("#pinned .words").text_content() == report.datasets[0].texts[7]
    chart = page.locator(".chart [role=application]")
    chart.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "layer 1" in (page.locator(".chart .read").text_content() or "")
    unnamed = page.locator("button, input, dialog, figure [tabindex]").evaluate_all(
        "nodes => nodes.filter((n) => !(n.getAttribute('aria-label') || n.getAttribute('aria-labelledby') ||"
        " n.labels?.length || n.textContent.trim())).map((n) => n.outerHTML)"
    )
    assert unnamed == []


def test_labels_can_be_hidden_and_shown(small: Any, visit: Any) -> None:
    path, _, points, rng = small
    shown = visit(path)
    layer, index = 20, 0
    index = lonely(points[0][layer], rng)
    name = ("Montreal", "Toronto")[index % 2]
    face = shown.face(0, 0, layer)
    shown.hover(face, places(points[0][layer])[index])
    assert shown.tip() is not None
    switch = shown.page.locator("#datasets .keys button", has_text=name)
    switch.click()
    assert switch.get_attribute("aria-pressed") == "false"
    face = shown.face(0, 0, layer)
    shown.hover(face, places(points[0][layer])[index])
    assert f"Sentence {index}:" not in (shown.tip() or "")
    switch.click()
    shown.hover(shown.face(0, 0, layer), places(points[0][layer])[index])
    assert f"Sentence {index}:" in (shown.tip() or "")


def test_hostile_text_is_shown_as_text(visit: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    n = len(HOSTILE)
    points = clouds(rng, 3, n)
    codes = (np.arange(n) % 2).astype(np.int32)
    for bad in HOSTILE[:2]:
        panels = tuple(Panel(bad, xy, codes) for xy in points)
        grid = Grid(bad, bad, (PanelRow(bad, panels),), (bad, HOSTILE[6]), footer=bad)
        chart = Chart(bad, bad, (Series(bad, np.arange(3), np.arange(3.0)),), note=bad)
        table = Table(bad, (bad, bad), ((bad, bad),))
        dataset = ReportDataset(bad, HOSTILE, grid, HOSTILE)
        path = write_report(Report(bad, bad, (table,), (chart,), (dataset,), bad), tmp_path / "report.html")
        shown = visit(path)
        page = shown.page
        assert page.locator("#title").text_content() == bad and page.title().strip() == " ".join(bad.split())
        for index, text in enumerate(HOSTILE if bad == HOSTILE[0] else ()):
            page.locator("#search").fill(text[:100])
            found = page.locator("#results .words")
            until(lambda text=text, found=found: text in found.all_text_contents())
            page.locator("#results button").first.hover()
            place = places(points[2])[index]
            page.keyboard.press("Escape")
            page.locator("#search").fill("")
            until(lambda page=page: page.locator("#found").text_content() == "")
            shown.hover(shown.face(0, 0, 2), place)
            assert shown.tip() == text
        shown.face(0, 0, 1).click()
        assert bad in (page.locator("#closeup-title").text_content() or "")
        page.locator("#closeup-close").click()
        page.locator("summary").first.click()
        assert page.locator("img, iframe, object, embed, form, main script").count() == 0
        assert page.locator("body > script").count() <= 6


@pytest.mark.parametrize("width", [1000, *(pytest.param(w, marks=pytest.mark.long) for w in (1280, 1920)), 2560])
def test_nothing_overflows(width: int, visit: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    long = "organisation--a-model-name-without-any-space-" + "x" * 150
    points, codes = clouds(rng, 33, 30), np.zeros(30, np.int32)
    grid = Grid(long, long, (row(long, points, codes),), tuple(f"{long}{i}" for i in range(30)), footer=long)
    line = Series(long, np.arange(33), np.linspace(0, 1, 33))
    tables = (Table(long, (), ((long, long),)), Table("many columns", tuple(WORDS), (tuple(WORDS),)))
    datasets = tuple(ReportDataset(f"{long} {i}", [long] * 30, grid) for i in range(3))
    report = Report(long, long, tables, (Chart(long, long, (line,)),) * 3, datasets, long)
    shown = visit(write_report(report, tmp_path / "report.html"), viewport={"width": width, "height": 900})
    page = shown.page
    for step in range(3):
        assert page.evaluate("document.documentElement.scrollWidth") <= width, step
        if step == 0:
            page.locator("#search").fill("organisation")
            page.locator("#results button").first.wait_for()
            page.locator("#results button").first.click()
        elif step == 1:
            shown.face(0, 0, 2).click()
            inside = page.locator("#closeup").evaluate(
                "node => [node.scrollWidth - node.clientWidth, node.scrollHeight - node.clientHeight]"
            )
            assert max(inside) <= 0
            assert page.locator("#stage").evaluate("node => node.clientHeight") > 300


def test_themes(small: Any, visit: Any) -> None:
    path = small[0]
    backgrounds = []
    for scheme in ("light", "dark"):
        page = visit(path, color_scheme=scheme).page
        background = "getComputedStyle(document.body).backgroundColor"
        backgrounds.append(page.evaluate(background))
        button = page.locator("#theme")
        button.click()
        assert button.text_content() == "Theme: light" and page.evaluate(background) == "rgb(255, 255, 255)"
        button.click()
        assert button.text_content() == "Theme: dark" and page.evaluate(background) != "rgb(255, 255, 255)"
    assert backgrounds[0] != backgrounds[1]


@pytest.mark.long
def test_sampled_reports_show_images_and_answer_for_the_sample(
    visit: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    report, points = example(rng, 30_000, 4)
    path = write_report(report, tmp_path / "report.html", max_panel_points=8_000)
    shown = visit(path)
    page, texts = shown.page, report.datasets[0].texts
    about = page.locator("#datasets .subtitle").text_content() or ""
    assert "30,000 sentences" in about and "2,000, drawn at random" in about
    chosen = np.sort(np.random.default_rng(0).choice(30_000, 2_000, replace=False))
    at = places(points[0][2])[chosen]
    away = [np.partition(np.hypot(*(at - place).T), 1)[1] for place in at]
    index = int(np.argmax(away))
    face = shown.face(0, 0, 2)
    face.locator("img").wait_for()
    assert face.locator("img").evaluate("node => node.decode().then(() => node.naturalWidth)") == 400
    shown.hover(face, tuple(at[index]))
    assert shown.tip() == texts[chosen[index]]
    face.click()
    first = canvas_bytes(shown)
    page.keyboard.press("+")
    assert canvas_bytes(shown) != first
    page.keyboard.press("Escape")
    page.locator("#search").fill("lake")
    page.locator("#results button").first.wait_for()
    page.keyboard.press("Escape")
    until(shown.face(0, 0, 2).locator("img").is_hidden)


@pytest.fixture(scope="module")
def run(make_work: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A job with hostile sentences run through the command line, its folder and its rows."""
    work = make_work(
        tmp_path_factory.mktemp("run"),
        project={"method": "pca"},
        measure={"permutations": 20},
        datasets=[{"name": "d", "path": "d.jsonl", "expected_next": "expected_next"}],
    )
    texts = [*(text[:200] for text in HOSTILE), *(f"The city number {i} is" for i in range(30))]
    rows = [
        {"text": text, "label": ("Montreal", HOSTILE[0])[i % 2], "expected_next": " Toronto"}
        for i, text in enumerate(texts)
    ]
    work.texts("d", rows)
    work.save()
    command = work.forge.run("run", work.file, cwd=work.folder)
    assert command.status == 0, command.err
    return work, texts, command.out


def test_the_report_of_a_run(run: Any, visit: Any, rng: np.random.Generator) -> None:
    import zarr

    work, texts, said = run
    path = work.beside / "report.html"
    assert f"report: {path}" in said and path.stat().st_size < 300_000
    group = zarr.open_group(work.store, path="m/d", mode="r", use_consolidated=False)
    points = np.asarray(group["pca"][...])
    shown = visit(path)
    page = shown.page
    layer = len(points) - 1
    for index in {*range(len(HOSTILE)), lonely(points[layer], rng)}:
        place = places(points[layer])[index]
        nearest = int(np.argmin(np.hypot(*(places(points[layer]) - place).T)))
        face = shown.drawn(0, 0, layer)
        shown.hover(face, tuple(place))
        assert shown.tip() == texts[nearest]
        assert "expected next:  Toronto" in (page.locator("#tip .about").text_content() or "")
    tables = page.locator("#overview table").all_text_contents()
    assert any("Linear probe" in t or "best linear probe" in t for t in tables)
    assert page.locator(".chart figcaption").first.text_content() == "Linear probe (primary)"
    for name in ("control: last token and length", "control: TF-IDF"):
        assert page.locator("#series").get_by_text(name).count() == 1
    page.locator("#search").fill("number 7")
    page.locator("#results button").first.click()
    assert page.locator("#pinned .words").text_content() == "The city number 7 is"


@pytest.mark.long
def test_the_demo_s_report(visit: Any, forge: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    job = Path(__file__).parents[2] / "jobs" / "demo.yaml"
    done = forge.start("run", job, "--store", tmp_path / "demo.zarr", cwd=tmp_path, env={"XDG_CACHE_HOME": CACHE})
    assert done.wait(250) == 0, done.err
    path = tmp_path / "demo" / "report.html"
    assert path.stat().st_size < 300_000
    import zarr

    group = zarr.open_group(tmp_path / "demo.zarr/demo--smollm2-135m-instruct/incomplete", mode="r")
    points, texts = np.asarray(group["umap"][...]), [str(t) for t in group["text"][...]]
    shown = visit(path)
    for layer in rng.integers(2, len(points), 4).tolist():
        index = lonely(points[layer], rng)
        shown.hover(shown.drawn(1, 0, layer), tuple(places(points[layer])[index]))
        assert shown.tip() == texts[index]
    assert "instruct, 4-bit weights" in (shown.page.locator("h3").first.text_content() or "")
