"""What a report answers to pointer, wheel, search and keyboard, in a real headless Chromium."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from support.report_pages import READY_MS, canvas_bytes, isolated_sentence, places, ring_places, stage_place, wait_until

pytest_plugins = ["support.report_fixtures"]
LARGE = pytest.param("large", marks=pytest.mark.long)


@pytest.mark.parametrize("size", ["small", LARGE])
def test_hover_shows_the_sentence_and_rings_it_in_every_panel(size: str, visit: Any, request: Any) -> None:
    path, report, points, rng = request.getfixturevalue(size)
    shown, texts = visit(path), report.datasets[0].texts
    for layer in rng.integers(1, len(points[0]), 3).tolist():
        index = isolated_sentence(points[0][layer], rng)
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


@pytest.mark.parametrize("size", ["small", LARGE])
def test_close_up_zooms_moves_and_morphs(size: str, visit: Any, request: Any) -> None:
    path, report, points, rng = request.getfixturevalue(size)
    shown, texts = visit(path), report.datasets[0].texts
    page = shown.page
    index = isolated_sentence(points[0][5], rng)
    shown.enlarge(0, 0, 5)
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
def test_search_lists_sentences_and_pins_one(size: str, visit: Any, request: Any) -> None:
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
    wait_until(lambda: name in ring_places(shown, ".ring.pin"))
    place = ring_places(shown, ".ring.pin")[name]
    np.testing.assert_allclose(place, places(points[0][3])[index], atol=1e-5)
    page.locator("#search").fill("lake")
    wait_until(lambda: results.count() > 1)
    matches = sum("lake" in text for text in texts)
    assert (page.locator("#found").text_content() or "").startswith(f"{matches:,} of ")
    assert results.count() == min(matches, 50)
    page.locator("#search").fill("no sentence has this")
    wait_until(lambda: (page.locator("#found").text_content() or "").startswith("0 of"))
    page.locator("#unpin").click()
    assert page.locator("#pinned").is_hidden() and not ring_places(shown, ".ring.pin")


def test_everything_works_by_keyboard(small: Any, visit: Any) -> None:
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
    # What was found of the first letters is on the page until all of them are looked for.
    page.locator("#results button").first.filter(has_text="Sentence 7:").wait_for()
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
    index = isolated_sentence(points[0][layer], rng)
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
