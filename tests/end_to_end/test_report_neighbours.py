"""Nearest sentences on the page: linked, listed, followed through layers; and what moved; in a real Chromium."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from drillcore.pictures.data import Grid, Nearest, Panel, PanelRow, Report, ReportDataset
from drillcore.pictures.report.write import write_report
from support.nearest import in_plain_numpy
from support.report_pages import places, spaced, stage_place, wait_until
from support.runs import sentences

pytest_plugins = ["support.report_fixtures", "support.run_fixtures"]
LISTED = "#nearest ol button"


def numbers(shown: Any) -> list[int]:
    """The sentences that are listed as nearest, from 0."""
    listed = "all => all.map((b) => [b.dataset.sentence, b.title, b.querySelector('.words').textContent])"
    rows = shown.page.locator(LISTED).evaluate_all(listed)
    assert all(title == words for _, title, words in rows)
    return [int(number) for number, _, _ in rows]


def linked(node: Any) -> list[int]:
    """The sentences that are linked in a panel."""
    return [int(i) for i in node.locator(".links circle").evaluate_all("all => all.map((c) => c.dataset.sentence)")]


def drawn_report(rng: np.random.Generator, count: int, layers: int, **more: Any) -> tuple[Report, Any, Any]:
    """Points that a pointer can tell apart, and states of which others are near."""
    points, states = spaced(rng, layers, count), rng.normal(size=(layers, count, 6)).astype(np.float32)
    found = np.array([in_plain_numpy(layer, 10) for layer in states], np.int32)
    panels = tuple(Panel(f"block {k}", xy, np.zeros(count, np.int32), layer=k) for k, xy in enumerate(points))
    nearest = Nearest('drillcore.open("s.zarr")["m/d"].nearest', found.__getitem__, **more)
    texts = [f"Sentence <b>{i}</b>" for i in range(count)]
    grid = Grid("d", "", (PanelRow("m", panels, nearest),))
    return Report("r", "", (), (), (ReportDataset("d", texts, grid),)), points, found


def test_a_sentence_is_linked_to_its_nearest_where_it_is_pointed_at_and_pinned(
    visit: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    report, points, found = drawn_report(rng, 300, 3)
    shown = visit(write_report(report, tmp_path / "report.html"))
    page, face, other = shown.page, shown.drawn(0, 0, 1), shown.drawn(0, 0, 2)
    one, two = (int(i) for i in rng.choice(300, 2, replace=False))
    shown.hover(face, tuple(places(points[1])[one]))
    wait_until(lambda: linked(face) == found[1][one].tolist())
    assert linked(other) == [] and page.locator("#nearest").is_hidden()
    # The ring of each is at its point.
    read = "all => all.map((c) => [parseFloat(c.getAttribute('cx')) / 100, parseFloat(c.getAttribute('cy')) / 100])"
    at = face.locator(".links circle").evaluate_all(read)
    np.testing.assert_allclose(at, places(points[1])[found[1][one]], atol=0.01)
    page.mouse.down()
    page.mouse.up()
    wait_until(lambda: numbers(shown) == found[1][one].tolist())
    words = page.locator("#nearest-words").text_content()
    assert words == f"10 nearest to sentence {one + 1} of d in the raw space of m · block 1"
    shown.hover(other, tuple(places(points[2])[two]))
    wait_until(lambda: linked(other) == found[2][two].tolist())
    page.mouse.move(5, 5)
    wait_until(lambda: linked(other) == [] and linked(face) == found[1][one].tolist())
    # A row rings its sentence in every panel, and is where to go on.
    row = page.locator("#nearest ol button").nth(4)
    row.focus()
    wait_until(lambda: page.locator(".panel .ring:not(.pin):not([hidden])").count() == 3)
    assert "<b>" in (row.locator(".words").text_content() or "")
    row.press("Enter")
    wait_until(lambda: numbers(shown) == found[1][found[1][one][4]].tolist())
    assert page.evaluate("document.activeElement.className") == "nearest-rows"
    # The layer is chosen by keyboard.
    page.locator("#nearest select").focus()
    page.keyboard.press("ArrowUp")
    wait_until(lambda: numbers(shown) == found[0][found[1][one][4]].tolist())
    assert linked(face) == [] and page.evaluate("document.activeElement.tagName") == "SELECT"
    page.locator("#unpin").click()
    wait_until(lambda: page.locator(".links circle").count() == 0)


def test_the_closeup_lists_them_for_the_layer_that_it_shows(
    visit: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    report, points, found = drawn_report(rng, 60, 3)
    shown = visit(write_report(report, tmp_path / "report.html"))
    page, one = shown.page, int(rng.integers(60))
    shown.enlarge(0, 0, 1)
    shown.settle()
    page.mouse.click(*stage_place(shown, places(points[1])[one]))
    wait_until(lambda: numbers(shown) == found[1][one].tolist())
    assert page.locator("dialog #nearest").is_visible()
    wait_until(lambda: linked(page.locator("#stage")) == found[1][one].tolist())
    page.locator("#layer").press("End")
    wait_until(lambda: numbers(shown) == found[2][one].tolist())
    wait_until(lambda: linked(page.locator("#stage")) == found[2][one].tolist())
    page.locator("#closeup-close").click()
    wait_until(lambda: page.locator("#foot #nearest").is_visible())


@pytest.mark.parametrize("limits", [{"max_nearest_bytes": 30_000}, {"max_panel_points": 3_000}])
def test_a_page_that_does_not_hold_them_says_so(
    visit: Any, tmp_path: Path, rng: np.random.Generator, limits: dict[str, int]
) -> None:
    report, *_ = drawn_report(rng, 1_600, 2)
    path = write_report(report, tmp_path / "report.html", **limits)
    assert "-nearest" not in path.read_text(encoding="utf-8").split("<script>")[0]
    shown = visit(path)
    page = shown.page
    page.locator("#search").fill("Sentence <b>1")
    page.locator("#results button").first.click()
    why = "they would take 0.1 MB" if "max_nearest_bytes" in limits else "the page holds a sample of the sentences"
    wait_until(lambda: why in (page.locator("#nearest").text_content() or ""))
    assert page.locator("#nearest code").text_content() == 'drillcore.open("s.zarr")["m/d"].nearest'
    page.locator(".moved summary").first.click()
    wait_until(lambda: why in (page.locator(".moved").text_content() or ""))
    assert page.locator(".links circle").count() == 0 and page.locator(".moved select").count() == 0


@pytest.mark.parametrize("count", [3, 11, 12, 255, 256])
def test_what_moved_counts_the_neighbours_that_stay(
    visit: Any, tmp_path: Path, rng: np.random.Generator, count: int
) -> None:
    report, _, found = drawn_report(rng, count, 3)
    shown = visit(write_report(report, tmp_path / "report.html"))
    page = shown.page
    page.locator(".moved summary").first.click()
    if count < 12:
        wait_until(lambda: f"With {count} sentences all others" in (page.locator(".moved").text_content() or ""))
        page.locator("#search").fill("sentence")
        page.locator("#results button").first.click()
        wait_until(lambda: numbers(shown) == [i for i in found[2][0].tolist() if i >= 0])
        return
    kept = [len(set(a) & set(b)) for a, b in zip(found[0].tolist(), found[2].tolist(), strict=True)]
    rows = page.locator(".moved-rows tbody tr")
    wait_until(lambda: rows.count() == min(count, 100))
    read = "all => all.map((row) => [...row.cells].slice(0, 2).map((cell) => parseInt(cell.textContent)))"
    order = sorted(range(count), key=lambda i: (kept[i], i))
    assert rows.evaluate_all(read) == [[kept[i], i + 1] for i in order[:100]]
    words = page.locator(".moved-words").text_content() or ""
    assert f"a sentence keeps {np.median(kept):g} of its 10 nearest (median)" in words
    with page.expect_download() as download:
        page.locator(".moved .tools button", has_text="CSV").click()
    saved = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert [(int(r["number"]) - 1, int(r["kept"])) for r in saved] == [(i, kept[i]) for i in order]
    assert {(r["of"], r["from"], r["to"]) for r in saved} == {("10", "block 0", "block 2")}
    page.locator(".moved th button", has_text="number").click()
    page.locator(".moved th button", has_text="number").click()
    assert rows.first.locator("td").nth(1).text_content() == str(count)
    page.locator(".moved select").nth(1).select_option("0")
    wait_until(lambda: "keeps 10 of its 10" in (page.locator(".moved-words").text_content() or ""))
    rows.first.focus()
    rows.first.press("Enter")
    wait_until(lambda: numbers(shown) == found[0][count - 1].tolist())


def run(work: Any) -> Any:
    command = work.forge.run("run", work.file, cwd=work.folder)
    assert command.status == 0, command.err
    return work.beside / "report.html"


def test_the_page_of_a_run_lists_those_of_the_stored_states_of_each_model(
    new_work: Any, models: Any, visit: Any, rng: np.random.Generator
) -> None:
    work = new_work(
        backend="transformers",
        models=[{"id": str(models()), "as": "m"}, {"id": str(models(layers=2)), "as": "n"}],
        datasets=[{"name": "d", "path": "d.jsonl", "label": None}],
        measure={"permutations": 9},
        project={"method": "pca"},
    )
    rows = sentences(3, 40)
    work.texts("d", [{"text": row["text"]} for row in rows])
    path = run(work)
    assert path.stat().st_size < 300_000
    shown = visit(path)
    page = shown.page
    for index in rng.choice(40, 3, replace=False).tolist():
        page.locator("#search").fill(rows[index]["text"])
        page.locator("#results button", has_text=f"sentence {index + 1} of").first.click()
        for place, model in enumerate("mn"):
            states = np.asarray(zarr.open_group(work.store, path=f"{model}/d", mode="r")["hidden_states"][...])
            page.locator("#nearest select").first.select_option(str(place))
            layers = page.locator("#nearest select").nth(1).locator("option")
            drawn = [name.replace(" ", "_") for name in layers.all_text_contents()]
            names = zarr.open_group(work.store, path=f"{model}/d", mode="r")["layer_name"][...].tolist()
            for at, name in enumerate(drawn):
                page.locator("#nearest select").nth(1).select_option(str(at))
                slot = names.index(name)
                wait_until(lambda n=name: n.replace("_", " ") in (page.locator("#nearest-words").text_content() or ""))
                wait_until(lambda: len(numbers(shown)) == 10)
                wide = states[:, slot].astype(np.float64)
                far = np.sqrt(((wide - wide[index]) ** 2).sum(axis=1))
                far[index] = np.inf
                listed = numbers(shown)
                assert index not in listed and len(set(listed)) == 10
                np.testing.assert_allclose(far[listed], np.sort(far)[:10], rtol=1e-4, atol=1e-5)
    page.locator(".moved summary").first.click()
    page.locator(".moved select").first.select_option("1")
    wait_until(lambda: page.locator(".moved-rows tbody tr").count() == 40)
    nearest = np.asarray(zarr.open_group(work.store, path="n/d", mode="r")["nearest"][...])
    options = page.locator(".moved select").nth(1).locator("option").all_text_contents()
    first, last = (names.index(o.replace(" ", "_")) for o in (options[0], options[-1]))
    kept = [len(set(a) & set(b)) for a, b in zip(nearest[first].tolist(), nearest[last].tolist(), strict=True)]
    shares = page.locator(".moved-rows td:first-child").all_text_contents()
    assert shares == [f"{k} of 10" for k in sorted(kept)]


def test_pages_of_runs_whose_states_are_all_the_same_or_few(new_work: Any, visit: Any) -> None:
    work = new_work(backend="transformers", measure={"permutations": 9}, project={"method": "pca"})
    work.texts("d", [{"text": "the river is", "label": "ab"[i % 2]} for i in range(20)])
    shown = visit(run(work))
    shown.page.locator("#search").fill("river")
    shown.page.locator("#results button").first.click()
    assert shown.page.locator("#pinned").is_visible() and shown.page.locator("#nearest").is_hidden()
    shown.page.locator(".moved summary").first.click()
    wait_until(lambda: "not two layers whose states differ" in (shown.page.locator(".moved").text_content() or ""))
    few = new_work("few", count=3, backend="transformers", measure={"permutations": 9}, project={"method": "pca"})
    shown = visit(run(few))
    shown.page.locator("#search").fill("the")
    shown.page.locator("#results button").first.click()
    wait_until(lambda: len(numbers(shown)) == 2)


def test_a_store_without_them_says_how_to_get_them(new_work: Any, visit: Any) -> None:
    work = new_work(count=20, backend="transformers", measure={"permutations": 9}, project={"method": "pca"})
    forget = "from drillcore.runtime.stages import measure\nmeasure.store_nearest = lambda *given: None\n"
    done = work.forge.run("run", work.file, cwd=work.folder, first=forget)
    assert done.status == 0, done.err
    shown = visit(work.beside / "report.html")
    shown.page.locator("#search").fill("the")
    shown.page.locator("#results button").first.click()
    wait_until(lambda: "`drillcore measure` finds them" in (shown.page.locator("#nearest").text_content() or ""))
    # The next run has them, and draws the page again.
    assert 'id="d0-r0-nearest"' in run(work).read_text(encoding="utf-8")
