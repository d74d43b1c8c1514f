"""The reports of whole runs, opened from disk in a real headless Chromium."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from support.report_pages import HOSTILE, isolated_sentence, places

pytest_plugins = ["support.report_fixtures", "support.run_fixtures"]


@pytest.fixture(scope="module")
def run(make_work: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A job with hostile sentences, run on the command line: the job, its sentences, and what the run printed."""
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
    return work, texts, command.err


def test_the_report_of_a_run(run: Any, visit: Any, rng: np.random.Generator) -> None:
    import zarr

    work, texts, output = run
    path = work.beside / "report.html"
    assert f"report: {path}" in output and path.stat().st_size < 300_000
    group = zarr.open_group(work.store, path="m/d", mode="r", use_consolidated=False)
    points = np.asarray(group["pca"][...])
    shown = visit(path)
    page = shown.page
    layer = len(points) - 1
    for index in {*range(len(HOSTILE)), isolated_sentence(points[layer], rng)}:
        place = places(points[layer])[index]
        # The topmost disc at that place may be another's.
        there = np.hypot(*(places(points[layer]) - place).T) < 0.03
        face = shown.drawn(0, 0, layer)
        shown.hover(face, tuple(place))
        assert shown.tip() in {texts[i] for i in np.flatnonzero(there)}
        assert "expected next:  Toronto" in (page.locator("#tip .about").text_content() or "")
    tables = page.locator("#overview table").all_text_contents()
    assert any("Linear probe" in t or "best linear probe" in t for t in tables)
    assert page.locator(".chart figcaption").first.text_content() == "Linear probe (primary)"
    for name in ("control: last token and length", "control: TF-IDF"):
        assert page.locator("#series").get_by_text(name).count() == 1
    page.locator("#search").fill("number 7")
    page.locator("#results button").first.click()
    assert page.locator("#pinned .words").text_content() == "The city number 7 is"


def test_each_label_colours_the_same_points_which_the_page_holds_once(
    new_work: Any, visit: Any, rng: np.random.Generator
) -> None:
    import zarr

    work = new_work(
        project={"method": "pca"},
        measure={"permutations": 20},
        datasets=[{"name": "d", "path": "d.jsonl", "labels": ["city", "kind"]}],
    )
    rows = [{"text": f"The city number {i} is", "city": f"c{i % 2}", "kind": f"k{i % 3}"} for i in range(40)]
    work.texts("d", rows)
    work.save()
    command = work.forge.run("run", work.file, cwd=work.folder)
    assert command.status == 0, command.err
    path = work.beside / "report.html"
    written = path.read_text(encoding="utf-8")
    assert [written.count(f'id="{name}-{what}"') for what in ("texts", "codes") for name in ("d0", "d1")] == [
        1,
        0,
        1,
        1,
    ]
    assert [written.count(f'id="d{number}-r0-points"') for number in (0, 1)] == [1, 0]
    shown = visit(path)
    page = shown.page
    assert page.locator("#datasets > section h2").all_text_contents() == ["d · city", "d · kind"]
    points = np.asarray(zarr.open_group(work.store, path="m/d", mode="r")["pca"][-1])
    index = isolated_sentence(points, rng)
    # The second first: it reads what the first one holds.
    for dataset, label in ((1, "kind"), (0, "city")):
        shown.hover(shown.drawn(dataset, 0, 4), tuple(places(points)[index]))
        assert shown.tip() == rows[index]["text"]
        assert (page.locator("#tip .about").text_content() or "").startswith(rows[index][label])
    titles = page.locator("#curves .chart figcaption").all_text_contents()
    assert titles.count("Linear probe (primary) · city") == titles.count("Linear probe (primary) · kind") == 1
