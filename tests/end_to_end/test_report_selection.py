"""Sentences enclosed in the close-up: ringed everywhere, listed, sorted, filtered, copied out; in a real Chromium."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from drillcore.pictures.data import Grid, Panel, PanelRow, Report, ReportDataset
from drillcore.pictures.report.write import write_report
from support.report_pages import canvas_bytes, places, stage_place, wait_until

pytest_plugins = ["support.report_fixtures"]
TEXTS = [f'Sentence {i}, "quoted"; of many' for i in range(40)]


def enclose(shown: Any, corners: list[tuple[float, float]]) -> None:
    """Draw a line around places of the panel."""
    page = shown.page
    page.locator("#select").click()
    page.mouse.move(*stage_place(shown, np.array(corners[0])))
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*stage_place(shown, np.array(corner)), steps=3)
    page.mouse.up()
    shown.settle()


def test_what_is_enclosed_is_ringed_listed_and_saved(visit: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    clouds = [rng.uniform(-1, 1, (40, 2)).astype(np.float32) for _ in range(3)]
    codes = (np.arange(40) % 2).astype(np.int32)
    panels = tuple(Panel(f"block {k}", xy, codes, layer=k) for k, xy in enumerate(clouds))
    grid = Grid("d", "", (PanelRow("m", panels),), ("Montreal", "Toronto"))
    path = write_report(Report("r", "", (), (), (ReportDataset("d", TEXTS, grid),)), tmp_path / "report.html")
    shown = visit(path)
    page, other = shown.page, shown.drawn(0, 0, 2).locator("canvas")
    before = other.evaluate("node => node.toDataURL()")
    shown.enlarge(0, 0, 1)
    whole = canvas_bytes(shown)
    at = places(clouds[1])
    wanted = {i for i in range(40) if at[i, 0] < 0.5}
    enclose(shown, [(0.01, 0.01), (0.5, 0.01), (0.5, 0.99), (0.01, 0.99)])
    table = page.locator("#selected-rows")
    assert {int(n) - 1 for n in table.locator("td:first-child").all_text_contents()} == wanted
    words = page.locator("#selected-words").text_content() or ""
    assert words.startswith(f"{len(wanted)} sentences of d selected: ")
    assert f"Montreal {sum(i % 2 == 0 for i in wanted)}" in words
    table.locator("th button", has_text="text").click()
    assert table.locator("td:nth-child(3)").all_text_contents() == sorted(TEXTS[i] for i in wanted) or len(wanted) > 9
    assert table.locator("th[aria-sort=ascending]").text_content().startswith("text")
    with page.expect_download() as download:
        page.locator("#selected-save").click()
    saved = Path(download.value.path()).read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(saved)))
    assert {r["text"] for r in rows} == {TEXTS[i] for i in wanted} and download.value.suggested_filename == "d.csv"
    assert all(r["label"] == ("Montreal", "Toronto")[(int(r["number"]) - 1) % 2] for r in rows)
    page.locator("#selected-filter").fill("toronto")
    wait_until(lambda: table.locator("tbody tr").count() == sum(i % 2 for i in wanted))
    assert canvas_bytes(shown) != whole
    with page.expect_download() as download:
        page.locator("#closeup-save").click()
    assert download.value.suggested_filename == "d-m-block-1.png"
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")
    page.locator("#closeup-close").click()
    wait_until(lambda: other.evaluate("node => node.toDataURL()") != before)
    page.locator("#selected-clear").click()
    assert page.locator("#selection").is_hidden()
    wait_until(lambda: other.evaluate("node => node.toDataURL()") == before)
