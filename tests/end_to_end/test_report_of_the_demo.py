"""What the demo's report and pictures draw is what they tell, in a real Chromium; hard cases: test_report_truth."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image

from drillcore.job.file import load_job
from drillcore.pictures.colors import category_hex, rgb
from drillcore.runtime.runner import run_stages
from drillcore.runtime.stages.render import stage
from drillcore.system.progress import Silent
from support.report_pages import PHONE, color_at, is_drawn, isolated_sentence, places, wait_until
from support.text_boxes import assert_no_text_is_cut_or_touches_another

pytestmark = pytest.mark.long
pytest_plugins = ["support.report_fixtures", "support.run_fixtures"]
JOB = Path(__file__).parents[2] / "jobs" / "demo.yaml"
# The demo model is converted once and kept there.
CACHE = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
LABELS = ("Montreal", "Toronto")
MODEL = "demo--smollm2-135m-instruct"


@pytest.fixture(scope="module")
def demo(forge: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the demo job has run; on a slow machine that takes many minutes."""
    folder = tmp_path_factory.mktemp("demo")
    command = forge.start("run", JOB, "--store", folder / "demo.zarr", cwd=folder, env={"XDG_CACHE_HOME": CACHE})
    assert command.wait(3600) == 0, command.err
    (folder / "printed").write_text(command.err, encoding="utf-8")
    return folder


@pytest.fixture
def shown(visit: Any, demo: Path) -> Any:
    return visit(demo / "demo" / "report.html")


def of_dataset(shown: Any, name: str) -> int:
    return shown.page.locator("#datasets > section h2").all_text_contents().index(name)


def stored(demo: Path, dataset: str) -> tuple[np.ndarray, list[str], list[str]]:
    """Points of all layers, texts and labels of a dataset of the trained model."""
    group = zarr.open_group(demo / f"demo.zarr/{MODEL}/{dataset}", mode="r")
    return np.asarray(group["umap"][...]), [str(t) for t in group["text"][...]], [str(t) for t in group["label"][...]]


def test_the_page_is_small_and_names_what_was_run(shown: Any, demo: Path) -> None:
    assert (demo / "demo" / "report.html").stat().st_size < 300_000
    page = shown.page
    assert "instruct, 4-bit weights" in (page.locator("h3").first.text_content() or "")
    assert "min_dist 0.1" in (page.locator("#datasets").text_content() or "")
    assert "0.000999" not in page.locator("body").inner_text() + (demo / "printed").read_text()
    assert "p < 0.001" in (page.locator("#answer").text_content() or "")


def test_every_point_tells_its_own_sentence(shown: Any, demo: Path, rng: np.random.Generator) -> None:
    points, texts, labels = stored(demo, "complete")
    number, page = of_dataset(shown, "complete"), shown.page
    colors = {(*rgb(color), 255): name for color, name in zip(category_hex(LABELS), LABELS, strict=True)}
    pointed = 0
    for layer in (1, *rng.integers(2, len(points), 3).tolist()):
        face = shown.drawn(number, 0, layer)
        at = places(points[layer])
        for place in rng.permutation(at) + rng.uniform(-0.01, 0.01, at.shape):
            label = colors.get(color_at(face, place))
            if label is not None:
                shown.hover(face, place)
                assert label in (page.locator("#tip .about").first.text_content() or ""), (layer, place)
                pointed += 1
        index = isolated_sentence(points[layer], rng)
        shown.hover(face, tuple(at[index]))
        assert shown.tip() == texts[index]
    assert pointed > 60 and set(labels) == set(LABELS)


def test_sentences_of_equal_states_can_all_be_reached(shown: Any, demo: Path) -> None:
    """The embedding of a last token is that of all sentences that end with it."""
    points, texts, _ = stored(demo, "incomplete")
    spots, counts = np.unique(places(points[0]), axis=0, return_counts=True)
    assert counts.max() > 2
    face, page, reached = shown.drawn(of_dataset(shown, "incomplete"), 0, 0), shown.page, set[str]()
    for spot in spots:
        shown.hover(face, tuple(spot))
        page.mouse.down()
        page.mouse.up()
        if page.locator("#pinned summary").count():
            page.locator("#pinned summary").click()
        reached |= set(page.locator("#pinned .words").all_text_contents())
        page.locator("#unpin").click()
    assert reached == set(texts)


def test_the_null_is_read_at_every_probe_and_the_answer_leads_to_its_layer(shown: Any) -> None:
    page = shown.page
    charts = page.locator("#curves .chart")
    probes = [i for i in range(charts.count()) if "Linear probe" in (charts.nth(i).text_content() or "")]
    assert probes
    for number in probes:
        chart = charts.nth(number)
        assert chart.locator("path.null").count() and chart.locator("path.null").first.is_visible()
        chart.locator("[role=application]").hover()
        assert re.search(r"null to 0\.\d+", chart.locator(".read").text_content() or "")
    page.locator("#answer .panel .name").click()
    best = page.locator("#closeup-title").text_content() or ""
    assert re.search(r"block[ _]24", best), best


def test_outliers_leave_room_for_all_else(shown: Any, demo: Path) -> None:
    """Nine of ten points of every panel fill at least a fifth of its width and its height."""
    for name in ("complete", "complete-no-period", "incomplete"):
        for layer, points in enumerate(stored(demo, name)[0]):
            if not np.ptp(points, axis=0).all():
                continue
            low, high = np.quantile(places(points), (0.05, 0.95), axis=0)
            assert (high - low > 0.2).all(), (name, layer)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_points_have_the_colours_of_the_legend(theme: str, visit: Any, demo: Path, rng: np.random.Generator) -> None:
    points, texts, labels = stored(demo, "incomplete")
    shown = visit(demo / "demo" / "report.html", color_scheme=theme)
    number, page = of_dataset(shown, "incomplete"), shown.page
    keys = page.locator("#datasets > section").nth(number).locator(".keys i")
    styles = [keys.nth(i).evaluate("node => getComputedStyle(node).backgroundColor") for i in range(2)]
    told = {name: tuple(int(c) for c in re.findall(r"\d+", s)[:3]) for name, s in zip(LABELS, styles, strict=True)}
    index = isolated_sentence(points[20], rng)
    face, place = shown.drawn(number, 0, 20), places(points[20])[index]
    assert color_at(face, place)[:3] == told[labels[index]]
    page.locator("#search").fill(texts[index])
    page.locator("#results button").first.wait_for()
    page.keyboard.press("Escape")
    face.scroll_into_view_if_needed()
    wait_until(lambda: color_at(face, place) == (*told[labels[index]], 255))


def test_paper_has_every_panel(shown: Any) -> None:
    shown.page.wait_for_selector("html[data-loaded=true]")
    assert shown.page.pdf().startswith(b"%PDF")
    faces = shown.page.locator("#datasets .face:has(canvas)")
    assert faces.count() == 6 * 32 - 2, "all but the embeddings of full stops"
    assert all(is_drawn(faces.nth(i)) for i in range(faces.count()))


def test_a_phone_enlarges_panels_and_reads_short_pages(visit: Any, demo: Path) -> None:
    shown = visit(demo / "demo" / "report.html", **PHONE)
    page = shown.page
    assert page.evaluate("document.documentElement.scrollHeight") < 15_000
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    small = shown.face(0, 0, 20).bounding_box()["width"]
    shown.enlarge(0, 0, 20)
    stage_box = page.locator("#stage").bounding_box()
    assert min(stage_box["width"], stage_box["height"]) > 340 > small


def test_every_picture_is_there_with_a_page_s_shape(demo: Path) -> None:
    pictures = sorted((demo / "demo" / "pictures").glob("*.png"))
    assert f"pictures: {len(pictures)} drawn, 0 up to date" in (demo / "printed").read_text()
    for path in pictures:
        with Image.open(path) as picture:
            assert max(picture.size) / min(picture.size) < 2.5, (path.name, picture.size)


def test_no_text_of_the_curves_is_cut_or_touches_another(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    write = stage.write_curves
    monkeypatch.setattr(
        stage, "write_curves", lambda charts, path, columns: (drawn.append((charts, columns)), write(charts, path))[1]
    )
    run_stages(load_job(JOB, (), str(demo / "demo.zarr"), None), ("render",), Silent(), demo / "again")
    assert sum(len(charts.charts) for charts, _ in drawn) > 10
    for charts, columns in drawn:
        assert_no_text_is_cut_or_touches_another(charts, columns)
