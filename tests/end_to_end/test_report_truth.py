"""What a report draws is what it tells: every point, line and theme, on paper and on a phone; in a real Chromium."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drillcore.pictures.colors import category_hex, rgb
from drillcore.pictures.data import Answer, Chart, Grid, Panel, PanelRow, Report, ReportDataset, Series, Table
from drillcore.pictures.report.write import write_report
from support.report_pages import COLOR, PHONE, color_at, is_drawn, places, ring_places, stage_place, wait_until

pytest_plugins = ["support.report_fixtures"]
LABELS = ("Montreal", "Toronto")
CELLS = """(node) => {
  const small = new OffscreenCanvas(40, 40).getContext("2d", { willReadFrequently: true });
  small.drawImage(node, 0, 0, 40, 40);
  return [...small.getImageData(0, 0, 40, 40).data].filter((_, i) => i % 4 === 3);
}"""


def report_of(points: list[np.ndarray], codes: np.ndarray, **changes: Any) -> Report:
    """A report of one dataset and model, with a probe whose null and p are known."""
    panels = tuple(
        Panel(f"block {k}", xy.astype(np.float32), codes, layer=k, figure="0.75", is_notable=k > 0)
        for k, xy in enumerate(points)
    )
    count = len(points)
    grid = Grid("d", "", (PanelRow("m", panels),), LABELS, footer="UMAP, seed 0")
    value = np.linspace(0.5, 0.9, count)
    line = Series(
        "m", np.arange(count), value, value - 0.1, value + 0.1, 0 * value + 0.5, 0 * value + 0.62, 0 * value + 0.0009,
        shows=("d", "m"),
    )  # fmt: skip
    other = Series("control: TF-IDF", np.arange(count), 0 * value + 0.55, control=True, of="m")
    chart = Chart("Linear probe", "accuracy", (line, other), (0.0, 1.0))
    texts = [f"Sentence {i} of many" for i in range(len(codes))]
    answer = Answer(("Which layers tell them apart?", "Best at the last one."), 0, ("d", "m", count - 1))
    page = Report("r", "", (Table("Run", (), (("job", "r"),)),), (chart,), (ReportDataset("d", texts, grid),), "", "")
    return Report(**{**page.__dict__, "answer": answer, "figure": "accuracy", **changes})


def drawn_places(face: Any) -> set[tuple[int, int]]:
    """Cells of 40 by 40 in which something is drawn, without the panel's edges."""
    cells = face.locator("canvas").evaluate(CELLS)
    return {(i % 40, i // 40) for i, value in enumerate(cells) if value and 3 < i % 40 < 36 and 3 < i // 40 < 36}


def test_every_pixel_tells_the_sentence_that_is_drawn_there(
    visit: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    codes = (np.arange(120) % 2).astype(np.int32)
    spots = rng.uniform(-1, 1, (12, 2))[np.arange(120) // 10]
    cloud = rng.normal(size=(120, 2))
    shown = visit(write_report(report_of([spots, cloud], codes), tmp_path / "report.html"))
    colors = {(*rgb(color), 255): name for color, name in zip(category_hex(LABELS), LABELS, strict=True)}
    for layer, xy in enumerate((spots, cloud)):
        face, checked = shown.drawn(0, 0, layer), 0
        for place in rng.permutation(places(xy.astype(np.float32)))[:80]:
            pointed = place + rng.uniform(-0.015, 0.015, 2)
            label = colors.get(color_at(face, pointed))
            if label is None:
                continue
            shown.hover(face, pointed)
            assert label in (shown.page.locator("#tip .about").first.text_content() or ""), (layer, pointed)
            checked += 1
        assert checked > 3


def test_a_pile_tells_its_size_and_opens_into_a_list(visit: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    codes = (np.arange(40) % 2).astype(np.int32)
    spots = rng.uniform(-1, 1, (4, 2))[np.arange(40) // 10]
    shown = visit(write_report(report_of([spots, spots], codes), tmp_path / "report.html"))
    page, reached = shown.page, set()
    face = shown.drawn(0, 0, 1)
    for place in np.unique(places(spots.astype(np.float32)), axis=0):
        shown.hover(face, place)
        wait_until(lambda: "9 others on this spot" in (page.locator("#tip").text_content() or ""))
        page.mouse.down()
        page.mouse.up()
        assert page.locator("#closeup").is_hidden()
        page.locator("#pinned summary").click()
        reached |= set(page.locator("#pinned .words").all_text_contents())
        page.locator("#unpin").click()
    assert reached == {f"Sentence {i} of many" for i in range(40)}


def test_a_click_pins_in_the_grid_and_the_name_enlarges(visit: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    codes = (np.arange(30) % 2).astype(np.int32)
    clouds = [rng.permutation(np.indices((6, 5)).reshape(2, -1).T).astype(float) for _ in range(3)]
    shown = visit(write_report(report_of(clouds, codes), tmp_path / "report.html"))
    page = shown.page
    shown.hover(shown.drawn(0, 0, 1), places(clouds[1].astype(np.float32))[7])
    page.mouse.down()
    page.mouse.up()
    assert page.locator("#pinned .words").text_content() == "Sentence 7 of many"
    for name, place in ring_places(shown, ".ring.pin").items():
        layer = int(re.findall(r"block (\d)", name)[0])
        np.testing.assert_allclose(place, places(clouds[layer].astype(np.float32))[7], atol=1e-4)
    shown.enlarge(0, 0, 1)
    assert "block 1" in (page.locator("#closeup-title").text_content() or "")


def test_the_null_is_drawn_read_and_listed(visit: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    codes = (np.arange(30) % 2).astype(np.int32)
    shown = visit(write_report(report_of([rng.normal(size=(30, 2)) for _ in range(4)], codes), tmp_path / "r.html"))
    page = shown.page
    chart = page.locator("#curves .chart")
    null = chart.locator("path.null")
    assert null.get_attribute("stroke") == "#444444" and null.get_attribute("stroke-opacity") is None
    keys = page.locator("#series .key").all_text_contents()
    assert len({key for key in keys if "null" in key}) == 2 and any("95 % interval" in key for key in keys)
    chart.locator("[role=application]").scroll_into_view_if_needed()
    before = chart.bounding_box()
    chart.locator("[role=application]").hover()
    words = chart.locator(".read").text_content() or ""
    assert "null to 0.62" in words and "p < 0.001" in words and re.search(r"\(0\.\d+ to 0\.\d+\)", words)
    assert chart.bounding_box() == before, "nothing moves"
    chart.locator("summary").click()
    with page.expect_download() as download:
        chart.locator("details button").click()
    assert Path(download.value.path()).read_text(encoding="utf-8").splitlines()[1] == "0,0.5,0.4,0.6,0.62,0.0009,0.55"
    header = chart.locator("thead th").all_text_contents()
    assert header == ["layer", "m", "m from", "m to", "m null to", "m p", "control: TF-IDF · m"]
    assert chart.locator("tbody tr").nth(2).locator("td").all_text_contents()[3:5] == ["0.62", "< 0.001"]


def test_curves_and_panels_show_each_other(visit: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    codes = (np.arange(30) % 2).astype(np.int32)
    shown = visit(write_report(report_of([rng.normal(size=(30, 2)) for _ in range(5)], codes), tmp_path / "r.html"))
    page = shown.page
    assert page.locator("#answer .lead").text_content() == "Best at the last one."
    assert page.locator("#answer .panel .name").text_content() == "block 4 0.75"
    page.locator("#answer .panel").hover()
    assert "layer 4" in (page.locator("#answer .read").text_content() or "")
    box = page.locator("#answer .chart [role=application]").bounding_box()
    page.mouse.click(box["x"] + 0.55 * box["width"], box["y"] + 0.4 * box["height"])
    assert "block 2" in (page.locator("#closeup-title").text_content() or "")


def test_outliers_stand_at_the_edge_until_all_is_to_scale(visit: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    codes = (np.arange(60) % 2).astype(np.int32)
    cloud = rng.uniform(-1, 1, (60, 2))
    cloud[7] = (400, 30)
    shown = visit(write_report(report_of([cloud, rng.normal(size=(60, 2))], codes), tmp_path / "report.html"))
    page, face = shown.page, shown.drawn(0, 0, 0)
    shown.hover(face, (0.975, 0.46))
    assert shown.tip() == "Sentence 7 of many"
    spread = drawn_places(face)
    page.locator("#scale").click()
    face.scroll_into_view_if_needed()
    shown.settle()
    squeezed = drawn_places(face)
    shown.hover(face, (0.955, 0.47))
    wait_until(shown.tip)
    assert shown.tip() == "Sentence 7 of many" and len(spread) > 20
    assert len(squeezed) < 5


def test_paper_has_every_panel(visit: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    codes = (np.arange(30) % 2).astype(np.int32)
    clouds = [rng.normal(size=(30, 2)) for _ in range(60)]
    path = write_report(report_of(clouds, codes), tmp_path / "report.html")
    page = visit(path, color_scheme="dark").page
    page.wait_for_selector("html[data-loaded=true]")
    faces = page.locator("#datasets .face")
    assert not is_drawn(faces.nth(59)), "panels far below are drawn when they are needed"
    assert page.pdf().startswith(b"%PDF")
    assert all(is_drawn(faces.nth(i)) for i in range(60))
    assert page.locator("html").get_attribute("data-shade") == "dark", "the screen has its theme again"


@pytest.mark.parametrize("by_value", [False, True])
def test_images_points_and_legend_agree_in_the_dark(
    by_value: bool, visit: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    count = 9_000
    left = np.arange(count) < count // 2
    cloud = rng.uniform(-1, 1, (count, 2)) - np.where(left, 3, -3)[:, None]
    codes = (~left).astype(np.int32)
    values = np.where(left, 0.0, 1.0).astype(np.float32)
    panel = Panel("block 0", cloud.astype(np.float32), values if by_value else codes)
    rows = (PanelRow("m", (panel,)),)
    grid = Grid("d", "", rows, value_range=(0.0, 1.0), value_name="v") if by_value else Grid("d", "", rows, LABELS)
    page_of = Report("r", "", (), (), (ReportDataset("d", ["x"] * count, grid),))
    shown = visit(write_report(page_of, tmp_path / "report.html", max_panel_points=2_000), color_scheme="dark")
    face = shown.drawn(0, 0, 0)
    face.locator("canvas[data-image=true]").wait_for()
    drawn = [np.array(color_at(face, (0.25, 0.75))[:3]), np.array(color_at(face, (0.75, 0.25))[:3])]
    if by_value:
        ramp = shown.page.locator("#datasets canvas.ramp")
        told = [np.array(ramp.evaluate(COLOR, [x, 0])[:3]) for x in (0.0, 0.999)]
        lightness = [sum(ramp.evaluate(COLOR, [x, 0])[:3]) for x in np.linspace(0, 0.999, 12)]
        assert len({round(v) for v in lightness}) > 9, "no part of the ramp is flat"
    else:
        dots = shown.page.locator("#datasets .keys i")
        styles = [dots.nth(i).evaluate("node => getComputedStyle(node).backgroundColor") for i in range(2)]
        told = [np.array([int(c) for c in re.findall(r"\d+", style)[:3]]) for style in styles]
    for of_image, of_legend in zip(drawn, told, strict=True):
        assert np.abs(of_image - of_legend).max() < 24, (drawn, told)


def test_among_many_points_hits_outshine_and_zooming_gives_discs(
    visit: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    count = 12_000
    cloud = np.concatenate([rng.normal(size=(count - 1, 2)) * 0.3, [[1.5, 1.5]]])
    page_of = report_of([cloud, cloud], (np.arange(count) % 2).astype(np.int32))
    shown = visit(write_report(page_of, tmp_path / "report.html"))
    page, place = shown.page, places(cloud.astype(np.float32))[77]
    page.locator("#search").fill("Sentence 77 of many")
    page.locator("#results button").first.wait_for()
    page.keyboard.press("Escape")
    face = shown.drawn(0, 0, 1)
    own = (*rgb(category_hex(LABELS)[1]), 255)
    wait_until(lambda: color_at(face, place) == own)
    lonely = places(cloud.astype(np.float32))[count - 1]
    page.locator("#search").fill("Sentence")
    wait_until(lambda: "12,000 of" in (page.locator("#found").text_content() or ""))
    page.keyboard.press("Escape")
    # As many hits as points: even where a hit is alone it is not faint.
    wait_until(lambda: color_at(face, lonely) == own)
    page.locator("#search").fill("")
    wait_until(lambda: 0 < color_at(face, lonely)[3] < 255)
    shown.enlarge(0, 0, 1)
    shown.settle()
    x, y = stage_place(shown, lonely)
    page.mouse.move(x, y)
    for _ in range(3):
        page.mouse.wheel(0, -400)
    shown.settle()
    assert shown.tip() == f"Sentence {count - 1} of many"
    box, ring = page.locator("#closeup-canvas").bounding_box(), page.locator("#stage .ring").first.bounding_box()
    at = [(ring[a] + ring[s] / 2 - box[a]) / box[s] for a, s in (("x", "width"), ("y", "height"))]
    around = [
        (at[0] + dx / box["width"], at[1] + dy / box["height"]) for dx, dy in ((0, 0), (2.5, 0), (-2.5, 0), (0, -2.5))
    ]
    assert {tuple(page.locator("#closeup-canvas").evaluate(COLOR, [*p])) for p in around} == {own}


def test_a_phone_shows_panels_large_and_pages_short(visit: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    codes = (np.arange(30) % 2).astype(np.int32)
    page_of = report_of([rng.normal(size=(30, 2)) for _ in range(33)], codes)
    many = Report(**{**page_of.__dict__, "datasets": page_of.datasets * 6})
    grid = many.datasets[0].grid
    names = Grid(
        **{**grid.__dict__, "categories": (*LABELS, *(f"a label of many words, number {i}" for i in range(60)))}
    )
    many = Report(**{**many.__dict__, "datasets": tuple(ReportDataset(d.name, d.texts, names) for d in many.datasets)})
    shown = visit(write_report(many, tmp_path / "report.html"), **{**PHONE, "viewport": {"width": 390, "height": 700}})
    page = shown.page
    assert page.evaluate("document.documentElement.scrollHeight") < 6_000
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    small = shown.face(0, 0, 2).bounding_box()["width"]
    shown.enlarge(0, 0, 2)
    stage = page.locator("#stage").bounding_box()
    assert min(stage["width"], stage["height"]) > 340 > small
    for button in page.locator("#closeup button:visible").all():
        box = button.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390, button.text_content()
    assert page.locator("#closeup-close").is_visible()
    before = page.locator("#closeup-canvas").evaluate("node => node.toDataURL()")
    touch, middle = page.context.new_cdp_session(page), (stage["x"] + 180, stage["y"] + 180)

    def touches(kind: str, far: float | None) -> None:
        fingers = [] if far is None else [{"x": middle[0] + s * far, "y": middle[1], "id": int(s > 0)} for s in (-1, 1)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    touches("touchStart", 20)
    for far in (40, 80, 120):
        touches("touchMove", far)
    touches("touchEnd", None)
    shown.settle()
    assert page.locator("#closeup-canvas").evaluate("node => node.toDataURL()") != before
    assert page.locator("#pinned").is_hidden(), "two fingers pin nothing"
