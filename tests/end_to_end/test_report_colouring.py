"""Colours of the report, switched on the page: every pixel and word tells its sentence's value; in a real Chromium."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from drillcore.pictures.colors import value_steps, value_table
from drillcore.pictures.data import Choice, Grid, Panel, PanelRow, Report, ReportDataset
from drillcore.pictures.report import write
from drillcore.pictures.report.write import write_report
from drillcore.runtime.stages.render.choices import of_numbers
from support.report_pages import places, spaced, stage_place, wait_until
from support.runs import sentences

pytest_plugins = ["support.report_fixtures", "support.run_fixtures"]
COUNT = 80
# Values that read like nothing are values; of 26 the rarest share a colour.
TOPICS = ["nan", "None", "", "no value", "(other values)", "שלום", "🚢 ship", "x" * 200, *(f"t{i}" for i in range(19))]
COLOR = """(node, [x, y]) => {
  const one = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  one.drawImage(node, -Math.floor(x * node.width), -Math.floor(y * node.height));
  return [...one.getImageData(0, 0, 1, 1).data];
}"""


@pytest.fixture(scope="module")
def run(make_work: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A whole run with kept columns: its job, and the rows."""
    settings = {"project": {"method": "pca"}, "measure": {"permutations": 9, "metrics": ["probe"]}}
    work = make_work(tmp_path_factory.mktemp("colouring") / "work", backend="transformers", **settings)
    rows: list[dict[str, Any]] = list(sentences(11, COUNT))
    for i, row in enumerate(rows):
        row |= {
            "topic": TOPICS[i % 8 if i < 60 else i % len(TOPICS)],
            "score": (i * 7 % COUNT) / 3,
            "year": 1990 + i % 9,
        }
    rows[5]["score"], rows[6]["label"] = None, ""
    work.texts("d", rows)
    work.job["datasets"] = [
        {"name": "d", "path": "d.jsonl", "label": "label", "unlabelled": "keep", "keep": ["topic", "score", "year"]}
    ]
    work.save()
    command = work.forge.run("run", "job.yaml", cwd=work.folder)
    assert command.status == 0, command.err
    assert (work.beside / "report.html").stat().st_size < 300_000
    return work, rows


def color_by(shown: Any, name: str) -> None:
    control = shown.page.locator("header select")
    control.select_option(label=name)
    wait_until(lambda: shown.page.evaluate("document.documentElement.dataset.coloured") == control.input_value())
    shown.settle()


def apart(points: np.ndarray) -> list[int]:
    """Sentences whose discs no other one covers."""
    at = places(points)
    far = np.hypot(at[:, None, 0] - at[None, :, 0], at[:, None, 1] - at[None, :, 1]) + 9 * np.eye(len(at))
    return [int(i) for i in np.flatnonzero(far.min(axis=1) > 0.06)]


def legend_of(place: Any) -> dict[str, tuple[int, ...]]:
    """Colours of a legend by what it calls them, without numbers of sentences; what it calls no value in brackets."""
    script = """(nodes) => nodes.map((node) => [
      node.classList.contains("made") ? `[${node.textContent.replace(/ \\([\\d,]+\\)$/, "")}]` : node.textContent,
      getComputedStyle(node.querySelector("i")).backgroundColor])"""
    found = place.locator("button.key, span.key:has(i)").evaluate_all(script)
    return {re.sub(r" \([\d,]+\)$", "", text): tuple(map(int, re.findall(r"\d+", rgb)[:3])) for text, rgb in found}


def pixel(shown: Any, layer: int, place: np.ndarray) -> tuple[int, ...]:
    face = shown.drawn(0, 0, layer)
    shown.settle()
    return tuple(face.locator("canvas").evaluate(COLOR, [float(place[0]), float(place[1])])[:3])


@dataclass
class Opened:
    """The report of the run, with what its store holds, at the last layer."""

    shown: Any
    rows: list[dict[str, Any]]
    points: np.ndarray
    decided: np.ndarray
    labels: list[str]
    tokens: np.ndarray

    @property
    def layer(self) -> int:
        return len(self.points) - 1

    @property
    def legend(self) -> Any:
        return self.shown.page.locator("#datasets .legend").first

    @property
    def chosen(self) -> list[int]:
        return apart(self.points[self.layer])

    def told(self, index: int) -> str:
        self.shown.hover(self.shown.drawn(0, 0, self.layer), tuple(places(self.points[self.layer])[index]))
        assert self.shown.tip() == self.rows[index]["text"]
        return self.shown.page.locator("#tip .about").text_content() or ""

    def pixel(self, index: int, layer: int = -1) -> tuple[int, ...]:
        at = range(len(self.points))[layer]
        return pixel(self.shown, at, places(self.points[at])[index])

    def decision(self, layer: int, index: int) -> str:
        said = self.decided[layer, index]
        if said < 0:
            return "no decision"
        is_right = self.labels[said] == self.rows[index]["label"]
        return "right" if is_right else f"wrong, taken for {self.labels[said]}"


@pytest.fixture(params=["light", "dark"])
def opened(request: pytest.FixtureRequest, run: Any, visit: Any) -> Opened:
    work, rows = run
    group = zarr.open_group(work.store, path="m/d", mode="r", use_consolidated=False)
    arrays = [np.asarray(group[name][...]) for name in ("pca", "probe_decision", "n_tokens")]
    labels = dict(group.attrs)["results"]["probe_decision"]["labels"]
    found = Opened(visit(work.beside / "report.html", color_scheme=request.param), rows, *arrays[:2], labels, arrays[2])
    assert len(found.chosen) > 5
    return found


def test_values_that_are_no_numbers(opened: Opened) -> None:
    names = ["label", "topic", "score", "year", "number of tokens", "last token", "probe's decision"]
    assert opened.shown.page.locator("header select option").all_text_contents() == names
    color_by(opened.shown, "topic")
    colors = legend_of(opened.legend)
    assert len(colors) == 22 and {"nan", "None"} < colors.keys() and len(set(colors.values())) == 22
    for i in opened.chosen:
        topic = opened.rows[i]["topic"]
        named = (n for n in colors if n == topic or (len(topic) > 99 and n.startswith("xxx")))
        name = next(named, "[(other values)]") if topic else "[no value]"
        assert opened.pixel(i) == colors[name], (i, topic)
        assert opened.told(i).startswith(f"topic: {topic[:79] if topic else 'no value'}")
    color_by(opened.shown, "last token")
    colors = legend_of(opened.legend)
    for i in opened.chosen:
        told = re.match(r'last token: ("[^"]*" \(\d+\))', opened.told(i))
        assert told and opened.rows[i]["text"].endswith(json.loads(told[1].rpartition(" ")[0])), opened.told(i)
        assert opened.pixel(i) == colors.get(told[1], colors.get("[(other values)]"))


def test_numbers(opened: Opened) -> None:
    ramp = value_table(dark=opened.shown.page.evaluate("document.documentElement.dataset.shade") == "dark")
    score = np.array([row["score"] for row in opened.rows], float)
    for name, values in (("score", score), ("number of tokens", opened.tokens)):
        color_by(opened.shown, name)
        assert set(legend_of(opened.legend)) <= {"no value"}
        known = values[np.isfinite(values)]
        steps = value_steps(values, known.min(), known.max())
        for i in opened.chosen:
            word = "no value" if np.isnan(values[i]) else str(values[i].item())
            assert opened.told(i).startswith(f"{name}: {word}"), (i, word)
            assert opened.pixel(i) == tuple(lightened_grey(opened) if np.isnan(values[i]) else ramp[steps[i]]), (
                name,
                i,
            )


def lightened_grey(opened: Opened) -> tuple[int, ...]:
    return legend_of(opened.legend)["no value"]


def test_decisions_of_the_probe(opened: Opened) -> None:
    states = opened.shown.page.locator("#datasets .states").first
    assert "colour: label" in (states.text_content() or "")
    color_by(opened.shown, "probe's decision")
    assert "colour: probe's decision" in (states.text_content() or "")
    colors = legend_of(opened.legend)
    assert colors.keys() == {"wrong", "right", "[no decision]"}
    for layer in (1, opened.layer):
        for i in apart(opened.points[layer]):
            name = opened.decision(layer, i).partition(",")[0]
            assert opened.pixel(i, layer) == colors.get(name, colors["[no decision]"]), (layer, i)
    for i in opened.chosen:
        label = opened.rows[i]["label"] or "no label"
        assert opened.told(i).startswith(f"probe's decision: {opened.decision(opened.layer, i)}label: {label}")
    assert opened.decision(opened.layer, 6) == "no decision"
    # The numbers of the close-up's legend are those of its layer.
    page = opened.shown.page
    opened.shown.enlarge(0, 0, opened.layer)
    legend = page.locator("#closeup-legend")
    for layer, keys in ((opened.layer, ""), (0, "Home")):
        if keys:
            page.locator("#layer").press(keys)
        names = [opened.decision(layer, i).partition(",")[0] for i in range(COUNT)]
        wanted = [f"{name} ({names.count(name)})" for name in ("wrong", "right", "no decision")]
        wait_until(lambda: [n for n in wanted if n in (legend.text_content() or "")] == wanted)  # noqa: B023


def choice_of(key: str, codes: list[Any], words: tuple[str, ...], **more: Any) -> Choice:
    arrays = tuple((lambda codes=each: np.asarray(codes, np.int32)) for each in codes)
    return Choice(key, key, arrays, words, np.arange(len(words), dtype=np.int32), words, **more)


def synthetic(
    points: list[np.ndarray], codes: np.ndarray, choices: tuple[Choice, ...], name: str = "d"
) -> ReportDataset:
    panels = tuple(Panel(f"block {k}", xy, codes, layer=k) for k, xy in enumerate(points))
    grid = Grid(name, "", (PanelRow("m", panels),), ("Montreal", "Toronto"))
    return ReportDataset(name, [f"Sentence {i}" for i in range(len(codes))], grid, choices=choices)


def test_filter_selection_and_files_follow_the_colours(visit: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    codes, points = (np.arange(40) % 2).astype(np.int32), spaced(rng, 2, 40)
    kinds = [np.arange(40) % 3, (np.arange(40) + 1) % 3]
    kind, varied = (
        choice_of("kind", [kinds[0]], ("a", "b", "c")),
        choice_of("decision", [np.stack(kinds)], ("a", "b", "c")),
    )
    other = synthetic(points, codes, (), "other")
    page_of = Report("r", "", (), (), (synthetic(points, codes, (kind, varied)), other))
    shown = visit(write_report(page_of, tmp_path / "report.html"))
    page = shown.page
    color_by(shown, "kind")
    legends = page.locator("#datasets .legend")
    assert "No kind here: colours are those of the label." in (legends.nth(1).text_content() or "")
    assert "b (13)" in (legends.first.text_content() or "")
    legends.first.locator("button", has_text="b (13)").click(modifiers=["Shift"])
    face = shown.drawn(0, 0, 0)
    for i in range(6):
        shown.settle()
        drawn = face.locator("canvas").evaluate(COLOR, places(points[0])[i].tolist())[3] > 0
        assert drawn == (kinds[0][i] == 1), i
    # The labels are as they were: each choice has a filter of its own.
    color_by(shown, "label")
    assert legends.first.locator("button[aria-pressed=false]").count() == 0
    color_by(shown, "decision")
    shown.enlarge(0, 0, 1)
    page.locator("#select").click()
    page.mouse.move(*stage_place(shown, np.array([0.01, 0.01])))
    page.mouse.down()
    for corner in ((0.5, 0.01), (0.5, 0.99), (0.01, 0.99)):
        page.mouse.move(*stage_place(shown, np.array(corner)), steps=3)
    page.mouse.up()
    shown.settle()
    wanted = {i for i in range(40) if places(points[1])[i, 0] < 0.5}
    table = page.locator("#selected-rows")
    assert table.locator("th").nth(2).text_content() == "decision (m, block 1)"
    with page.expect_download() as download:
        page.locator("#selected-save").click()
    saved = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert {int(r["number"]) - 1 for r in saved} == wanted
    assert all(r["decision (m, block 1)"] == "abc"[kinds[1][int(r["number"]) - 1]] for r in saved)
    assert all(r["label"] == ("Montreal", "Toronto")[(int(r["number"]) - 1) % 2] for r in saved)
    # The close-up has the control too; both show the same.
    inner = page.locator("dialog select")
    assert inner.input_value() == "decision"
    inner.select_option(label="label")
    wait_until(lambda: table.locator("th").count() == 3)
    assert page.locator("header select").input_value() == ""


def test_images_are_not_coloured_anew_and_the_page_says_so(
    visit: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    count = 9_000
    cloud = [rng.uniform(-1, 1, (count, 2)).astype(np.float32)]
    right = (cloud[0][:, 0] > 0).astype(np.int32)
    choice = choice_of("side", [right], ("left", "right"))
    page_of = Report("r", "", (), (), (synthetic(cloud, (np.arange(count) % 2).astype(np.int32), (choice,)),))
    shown = visit(write_report(page_of, tmp_path / "report.html", max_panel_points=3_000))
    page, canvas = shown.page, shown.drawn(0, 0, 0).locator("canvas")
    canvas.and_(page.locator("[data-image=true]")).wait_for()
    color_by(shown, "side")
    canvas.and_(page.locator("[data-image=false]")).wait_for()
    legend = page.locator("#datasets .legend")
    assert "Images cannot be coloured anew: the 3,000 sentences" in (legend.text_content() or "")
    assert f"left ({int((right == 0).sum()):,})" in (legend.text_content() or ""), "numbers are of all sentences"
    colors = legend_of(legend)
    script = """(node, half) => { const { width, height } = node;
      const copy = new OffscreenCanvas(width, height).getContext("2d"); copy.drawImage(node, 0, 0);
      const { data } = copy.getImageData(half ? width * 0.55 : 0, 0, width * 0.45, height), found = new Set();
      for (let i = 0; i < data.length; i += 4) if (data[i + 3] === 255) found.add(data.slice(i, i + 3).join());
      return [...found]; }"""
    for half, name in ((0, "left"), (1, "right")):
        drawn = np.array([list(map(int, found.split(","))) for found in canvas.evaluate(script, half)])
        assert len(drawn) and np.abs(drawn - colors[name]).max() < 12, (drawn, colors)
    color_by(shown, "label")
    canvas.and_(page.locator("[data-image=true]")).wait_for()


def test_what_has_no_room_is_left_out_and_named(
    visit: Any, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes, points = (np.arange(400) % 2).astype(np.int32), spaced(rng, 1, 400)
    small = choice_of("small", [np.zeros(400)], ("a", "b"))
    big = choice_of("big", [rng.integers(0, 200, 400)], tuple(f"word {i}" for i in range(200)))
    monkeypatch.setattr(write, "MAX_CHARACTERS", 600)
    page_of = Report("r", "", (), (), (synthetic(points, codes, (big, small)),))
    path = write_report(page_of, tmp_path / "report.html")
    shown = visit(path)
    assert shown.page.locator("header select option").all_text_contents() == ["label", "small"]
    assert "too many sentences to be coloured by big" in (
        shown.page.locator("#datasets .subtitle").first.text_content() or ""
    )
    meta = json.loads(re.findall(r'id="meta">(.*?)</script>', path.read_text())[0])
    assert meta["datasets"][0]["choicesLeft"] == ["big"]
    with pytest.raises(ValueError, match="399 codes for 400 sentences"):
        bad = choice_of("bad", [np.zeros(399)], ("a",))
        write_report(Report("r", "", (), (), (synthetic(points, codes, (bad,)),)), tmp_path / "bad.html")


def test_sentences_without_labels_and_values_that_differ_between_models(
    visit: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    points, nothing = spaced(rng, 1, 30)[0], np.zeros(30, np.int32)
    kinds, lengths = np.arange(30) % 3, [rng.permutation(30), rng.permutation(30)]
    rows = tuple(PanelRow(name, (Panel("block 0", points, nothing, layer=0),)) for name in ("one", "other"))
    kind = choice_of("kind", [kinds], ("a", "b", "c"))
    tokens = of_numbers("tokens", "tokens", lengths)
    assert tokens is not None and len(tokens.codes) == 2
    texts = [f"Sentence {i}" for i in range(30)]
    page_of = Report("r", "", (), (), (ReportDataset("d", texts, Grid("d", "", rows), choices=(kind, tokens)),))
    shown = visit(write_report(page_of, tmp_path / "report.html"))
    legend = shown.page.locator("#datasets .legend").first
    assert legend.text_content() == ""
    color_by(shown, "kind")
    colors = legend_of(legend)
    for i in range(30):
        assert pixel(shown, 0, places(points)[i]) == colors["abc"[kinds[i]]]
    assert {"a", "b", "c"} == colors.keys(), "none is without a value"
    shown.page.locator("#search").fill("Sentence 7")
    color_by(shown, "tokens")
    assert "tokens" not in (shown.page.locator("#results").text_content() or ""), "the models differ"
    shown.page.locator("#search").fill("")
    wait_until(lambda: shown.page.locator("#results-box").is_hidden())
    for row in range(2):
        for i in (3, 11):
            shown.hover(shown.drawn(0, row, 0), tuple(places(points)[i]))
            wait_until(lambda: (shown.page.locator("#tip .about").text_content() or "").startswith("tokens: "))
            about = shown.page.locator("#tip .about").text_content() or ""
            assert about.startswith(f"tokens: {lengths[row][i]}sentence"), about
            shown.page.mouse.move(5, 5)


def test_labels_are_choices_where_another_column_colours(new_work: Any, visit: Any) -> None:
    """Of two models, the states of two tokens each, several labels, and number of tokens as the job's own colours."""
    work = new_work(
        project={"method": "pca"},
        measure={"permutations": 9, "metrics": ["probe"]},
        datasets=[{"name": "d", "path": "d.jsonl", "labels": ["city", "kind"], "keep": ["kept"]}],
        render={"color": "n_tokens"},
    )
    work.job["models"].append({**work.job["models"][0], "as": "m2", "random_weights": True})
    work.job["extract"]["positions"] = ["last", {"last": 2}]
    rows = [
        {"text": f"The city {i} is", "city": "ab"[i % 2], "kind": f"k{i % 3}", "kept": f"v{i % 4}"} for i in range(24)
    ]
    work.texts("d", rows)
    work.save()
    command = work.forge.run("run", "job.yaml", cwd=work.folder)
    assert command.status == 0, command.err
    group = zarr.open_group(work.store, path="m/d", mode="r", use_consolidated=False)
    points, decided = np.asarray(group["pca"][-1]), np.asarray(group["probe_decision~kind"][-1])
    shown = visit(work.beside / "report.html")
    names = shown.page.locator("header select option").all_text_contents()
    assert names[:4] == ["n_tokens", "city", "kind", "kept"] and "number of tokens" not in names
    assert {"probe's decision, city", "probe's decision, kind", "token", "last token"} <= set(names)
    chosen = apart(points)
    assert chosen
    for name in ("city", "kind", "kept", "probe's decision, kind"):
        color_by(shown, name)
        for i in chosen[:4]:
            shown.hover(shown.drawn(0, 0, group["layer"].shape[0] - 1), tuple(places(points)[i]))
            told = shown.page.locator("#tip .about").text_content() or ""
            said = f"k{decided[i]}"
            word = rows[i].get(name) or ("right" if said == rows[i]["kind"] else f"wrong, taken for {said}")
            assert told.startswith(f"{name}: {word}n_tokens "), told
        shown.page.mouse.move(5, 5)


def test_the_control_has_a_name_and_takes_keys(run: Any, visit: Any) -> None:
    shown = visit(run[0].beside / "report.html")
    control = shown.page.get_by_role("combobox", name="Colour by").first
    control.focus()
    shown.page.keyboard.press("ArrowDown")
    wait_until(lambda: "nan" in legend_of(shown.page.locator("#datasets .legend").first))
    shown.page.locator("#explain").click()
    words = shown.page.locator("#datasets details.help").first.text_content() or ""
    for control_name in ("Colour by", "Names", "Contours"):
        assert control_name in words
