"""What a report shows whatever its data: hostile texts, long names, themes, samples; in a real headless Chromium."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drillcore.pictures.data import Chart, Grid, Panel, PanelRow, Report, ReportDataset, Series, Table
from drillcore.pictures.report.write import write_report
from support.report_pages import HOSTILE, WORDS, canvas_bytes, clouds, example, places, row, spaced, wait_until

pytest_plugins = ["support.report_fixtures"]


def test_hostile_text_is_shown_as_text(visit: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    n = len(HOSTILE)
    points = spaced(rng, 3, n)
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
            listed = page.locator("#results .words")
            wait_until(lambda text=text, listed=listed: text in listed.all_text_contents())
            page.locator("#results button").first.hover()
            place = places(points[2])[index]
            page.keyboard.press("Escape")
            page.locator("#search").fill("")
            wait_until(lambda page=page: page.locator("#found").text_content() == "")
            shown.hover(shown.face(0, 0, 2), place)
            assert shown.tip() == text
        shown.enlarge(0, 0, 1)
        assert bad in (page.locator("#closeup-title").text_content() or "")
        page.locator("#closeup-close").click()
        page.locator(".chart summary").first.click()
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
            shown.enlarge(0, 0, 2)
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
    distances = [np.partition(np.hypot(*(at - place).T), 1)[1] for place in at]
    index = int(np.argmax(distances))
    face = shown.face(0, 0, 2)
    face.locator("canvas[data-image=true]").wait_for()
    shown.hover(face, tuple(at[index]))
    assert shown.tip() == texts[chosen[index]]
    shown.enlarge(0, 0, 2)
    first = canvas_bytes(shown)
    page.keyboard.press("+")
    assert canvas_bytes(shown) != first
    page.keyboard.press("Escape")
    page.locator("#search").fill("lake")
    page.locator("#results button").first.wait_for()
    page.keyboard.press("Escape")
    shown.face(0, 0, 2).locator("canvas[data-image=false]").wait_for()
