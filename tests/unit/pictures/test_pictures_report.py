"""The report's file: sizes, escaping, samples, and the form of its data, read back in Python."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drillcore.pictures.data import Chart, Grid, Panel, PanelRow, Report, ReportDataset, Series, Table
from drillcore.pictures.report.encode import LARGEST, MISSING, cut, cut_length, packed_numbers, quantised, script_json
from drillcore.pictures.report.write import write_report

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!-- <script>",
    "<img src=x onerror=alert(1)>",
    "\"'`&amp;\\ ${1} \u2028\u2029",
    "\u202eright to left שלום",
    "lone \ud800 surrogate \x00 \x07",
]


def rng() -> np.random.Generator:
    seed = secrets.randbits(32)
    print("seed", seed)
    return np.random.default_rng(seed)


def panel(points_N2: np.ndarray, title: str = "block_1", **changes: Any) -> Panel:
    return Panel(title, points_N2, (np.arange(len(points_N2)) % 2).astype(np.int32), **changes)


def report(texts: list[str], *rows: PanelRow, charts: tuple[Chart, ...] = (), title: str = "Report") -> Report:
    grid = Grid("Grid", "", rows, ("Montreal", "Toronto"))
    table = Table("Run", (), (("job", "demo"),))
    return Report(title, "", (table,), charts, (ReportDataset("incomplete", texts, grid),))


def elements(path: Path) -> dict[str, str]:
    pairs = re.findall(r'<script type="[^"]+" id="([^"]+)">(.*?)</script>', path.read_text("utf-8"), re.DOTALL)
    return dict(pairs)


def numbers(blob: str) -> np.ndarray:
    raw = np.frombuffer(zlib.decompress(base64.b64decode(blob)), np.uint8).reshape(2, -1)
    return raw[0].astype(np.uint16) | raw[1].astype(np.uint16) << 8


def test_data_survive_the_file(tmp_path: Path) -> None:
    random = rng()
    points = random.normal(size=(3, 50, 2)).astype(np.float32)
    points[1, 7] = np.nan
    texts = [f"sentence {i} " + "é" * (i % 5) for i in range(50)]
    row = PanelRow("m", (panel(points[0]), panel(points[2], degenerate=True), None, lambda: panel(points[1])))
    content = elements(write_report(report(texts, row), tmp_path / "r.html"))
    meta = json.loads(content["meta"])
    dataset = meta["datasets"][0]
    panels = dataset["rows"][0]["panels"]
    assert [p and p.get("degenerate", False) for p in panels] == [False, True, None, False]
    assert json.loads(zlib.decompress(base64.b64decode(content[dataset["texts"]]))) == texts
    assert numbers(content[dataset["codes"]]).tolist() == [i % 2 for i in range(50)]
    stored = numbers(content[dataset["rows"][0]["points"]]).reshape(2, 2, 50)
    np.testing.assert_array_equal(stored[0], quantised(points[0]))
    np.testing.assert_array_equal(stored[1], quantised(points[1]))
    assert dataset["shown"] == dataset["count"] == 50 and dataset["cut"] is None


def test_quantised_points_keep_shape_within_their_step() -> None:
    random = rng()
    points = (random.normal(size=(500, 2)) * [1, 30] + 1000).astype(np.float32)
    scaled = quantised(points).astype(np.float64).T / LARGEST
    assert scaled.min() >= 0.04 and scaled.max() <= 0.96
    factor = np.ptp(points[:, 1]) / np.ptp(scaled[:, 1])
    moved = (scaled - scaled.mean(axis=0)) * factor - (points - points.mean(axis=0, dtype=np.float64))
    assert np.abs(moved).max() < factor / LARGEST * 2
    points[3] = [np.inf, 0]
    assert quantised(points)[:, 3].tolist() == [MISSING, MISSING] and quantised(points)[:, 4].max() < MISSING
    assert quantised(np.zeros((0, 2), np.float32)).shape == (2, 0)
    assert numbers(packed_numbers([]).decode()).size == 0


def test_same_report_same_bytes(tmp_path: Path) -> None:
    points = rng().normal(size=(6000, 2)).astype(np.float32)
    shown = report([f"s {i}" for i in range(6000)], PanelRow("m", (panel(points), panel(points))))
    for name in ("a.html", "b.html"):
        write_report(shown, tmp_path / name, max_panel_points=5_000)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_nothing_in_the_data_can_become_markup_or_script(tmp_path: Path) -> None:
    n, bad = len(HOSTILE), HOSTILE[0]
    points = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
    grid = Grid(bad, bad, (PanelRow(bad, (panel(points, bad),)),), (bad, HOSTILE[2]), footer=bad)
    line = Series(bad, np.arange(2), np.array([0.5, np.nan]))
    chart = Chart(bad, bad, (line,), note=bad)
    table = Table(bad, (bad, bad), ((bad, bad),))
    page = Report(bad, bad, (table,), (chart,), (ReportDataset(bad, HOSTILE, grid, HOSTILE),), bad)
    path = write_report(page, tmp_path / "r.html")
    text = path.read_text("utf-8")
    blobs = len(elements(path))
    assert text.count("<script") == text.count("</script") == blobs + 1
    assert "alert(1)</" not in text and "<img" not in text and "<!--" not in text
    meta = json.loads(elements(path)["meta"])
    assert meta["title"] == bad and meta["charts"][0]["series"][0]["value"] == [0.5, None]
    assert meta["datasets"][0]["categories"] == [bad, HOSTILE[2]]


def test_policy_forbids_the_network_and_allows_just_this_script_and_style(tmp_path: Path) -> None:
    text = write_report(
        report(["a", "b"], PanelRow("", (panel(np.eye(2, dtype=np.float32)),))), tmp_path / "r.html"
    ).read_text()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy and "connect-src" not in policy
    for kind in ("script", "style"):
        (content,) = re.findall(rf"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not re.search(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:|//)""", text)


def test_small_reports_are_small(tmp_path: Path) -> None:
    random = rng()
    texts = ["".join(map(chr, random.integers(97, 123, 120))) for _ in range(50)]
    panels = tuple(panel(random.normal(size=(50, 2)).astype(np.float32), f"block_{i}") for i in range(31))
    path = write_report(report(texts, PanelRow("model", panels)), tmp_path / "r.html")
    assert path.stat().st_size < 300_000


def test_large_datasets_are_sampled_and_shown_as_images(tmp_path: Path) -> None:
    random = rng()
    points = random.normal(size=(2, 9_000, 2)).astype(np.float32)
    texts = [f"sentence {i}" for i in range(9_000)]
    shown = report(texts, PanelRow("m", (panel(points[0]), panel(points[1]))))
    content = elements(write_report(shown, tmp_path / "r.html", max_panel_points=4_000))
    dataset = json.loads(content["meta"])["datasets"][0]
    assert dataset["count"] == 9_000 and dataset["shown"] == 2_000
    chosen = numbers(content[dataset["numbers"]]).view(np.uint32)
    assert len(set(chosen.tolist())) == 2_000
    sampled = json.loads(zlib.decompress(base64.b64decode(content[dataset["texts"]])))
    assert sampled == [f"sentence {i}" for i in chosen]
    stored = numbers(content[dataset["rows"][0]["points"]]).reshape(2, 2, 2_000)
    np.testing.assert_array_equal(stored[1], quantised(points[1])[:, chosen])
    images = json.loads(content[dataset["rows"][0]["images"]])
    assert len(images) == 2 and all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)


def test_long_texts_are_cut_to_fit(tmp_path: Path) -> None:
    random = rng()
    for _ in range(20):
        texts = ["x" * int(length) for length in random.integers(0, 500, random.integers(1, 60))]
        budget = int(random.integers(30 * len(texts), 40_000))
        length = cut_length(texts, budget)
        fitted = [cut(text, length) for text in texts]
        assert sum(map(len, fitted)) <= budget
        if length is None:
            assert fitted == texts
        else:
            assert sum(len(cut(text, length + 1)) for text in texts) > budget, "no longer cut would have fitted"
    assert cut_length(["a" * 20, "b" * 100], 41) == 21, "what a whole text leaves goes to the others"
    assert cut("abcdef", 4) == "abc…" and cut("abcd", 4) == "abcd"
    path = write_report(
        report(["y" * 300, "z"], PanelRow("", (panel(np.eye(2, dtype=np.float32)),))),
        tmp_path / "r.html",
        max_text_characters=99,
    )
    assert json.loads(elements(path)["meta"])["datasets"][0]["cut"] == 98


def test_points_that_do_not_fit_the_sentences_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    path.write_text("old")
    shown = report(["a", "b", "c"], PanelRow("model", (panel(np.eye(2, dtype=np.float32)),)))
    with pytest.raises(ValueError, match="model, block_1: 2 points for 3 sentences"):
        write_report(shown, path)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ValueError, match=r"rows of \[1, 2\] cells"):
        Table("t", ("a", "b"), (("c",),))


def test_json_for_scripts() -> None:
    value = {"text": HOSTILE}
    text = script_json(value)
    assert not set("<>&\u2028\u2029") & set(text)
    text.encode("utf-8")
    assert json.loads(text)["text"][:5] == HOSTILE[:5]
    with pytest.raises(ValueError, match="JSON"):
        script_json([float("nan")])
