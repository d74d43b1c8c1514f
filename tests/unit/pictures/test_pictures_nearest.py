"""The nearest sentences that a report holds: few bytes, within their budget, the smaller datasets first."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drillcore.pictures.data import Grid, Nearest, Panel, PanelRow, Report, ReportDataset
from drillcore.pictures.report.encode import packed_indexes
from drillcore.pictures.report.nearest import MAX_NEAREST_BYTES, why_not
from drillcore.pictures.report.write import write_report


def dataset(texts: Any, layers: int, read: Any = None, *, recolours: bool = False) -> ReportDataset:
    count = len(texts)
    points = np.random.default_rng(count).normal(size=(layers, 2, 2)).astype(np.float32)
    panels = [Panel(f"block_{k}", np.resize(points[k], (count, 2)), np.zeros(count, np.int32)) for k in range(layers)]
    nearest = Nearest(
        "drillcore.open(...)",
        read or (lambda place: (np.arange(count)[:, None] + np.arange(1, 11)).astype(np.int32) % count),
    )
    return ReportDataset("d", texts, Grid("d", "", (PanelRow("m", tuple(panels), nearest),)), recolours=recolours)


def page(*datasets: ReportDataset) -> Report:
    return Report("r", "", (), (), datasets)


def told(path: Path) -> list[dict[str, Any]]:
    """What the page is told of the nearest sentences of the first row of each dataset."""
    (meta,) = re.findall(r'id="meta">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)
    return [each["rows"][0]["nearest"] for each in json.loads(meta)["datasets"]]


@pytest.mark.parametrize("count", [256, 65_535, 65_536])
def test_numbers_take_as_few_bytes_as_they_need_and_none_is_none(count: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(-1, count, (2, 7, 10)).astype(np.int32)
    values[0, 0], values[1, 0] = -1, count - 1
    raw = zlib.decompress(base64.b64decode(packed_indexes(list(values), count)))
    assert len(raw) == values.size * (2 if count < 65_536 else 4)
    found = np.frombuffer(raw, np.uint8).reshape(2, -1).T.copy().view("<u2").ravel()
    found = found.view("<u4") if count == 65_536 else found
    none = np.iinfo(found.dtype).max
    assert np.where(found == none, -1, found.astype(np.int64)).tolist() == values.ravel().tolist()


@pytest.mark.parametrize("count", [1, 3, 11, 40, 255])
def test_few_sentences_are_ranks_which_are_zero_where_nothing_changes(count: int, seed: int) -> None:
    draw, layer = np.random.default_rng(seed), np.full((count, 10), -1, np.int32)
    for i in range(count):
        others = draw.permutation([j for j in range(count) if j != i])[:10]
        layer[i, : len(others)] = others
    raw = zlib.decompress(base64.b64decode(packed_indexes([layer, layer], count)))
    first, again = np.frombuffer(raw, np.uint8).reshape(2, count, 10)
    assert (again == np.where(layer < 0, 255, 0)).all()
    for i in range(count):
        left = list(range(count))
        found = [left.pop(int(rank)) for rank in first[i] if rank != 255]
        assert found == [j for j in layer[i].tolist() if j >= 0]


def test_a_small_page_stays_small_with_them(tmp_path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    texts = ["".join(map(chr, draw.integers(97, 123, 120))) for _ in range(50)]
    found = np.array([[draw.permutation(50)[:10] for _ in range(50)] for _ in range(32)], np.int32)
    with_them = write_report(page(dataset(texts, 32, found.__getitem__)), tmp_path / "a.html").stat().st_size
    assert with_them < 300_000
    without = write_report(page(dataset(texts, 32)), tmp_path / "b.html").stat().st_size
    assert 0 < with_them - without < 20_000


def test_the_smaller_datasets_have_them_and_a_recoloured_one_takes_no_more_room() -> None:
    large, small = dataset(range(300), 2), dataset(range(100), 2)
    again = dataset(range(300), 2, recolours=True)
    whole = [False] * 3
    assert why_not([large, again, small], whole, 14_000) == ["", "", ""]
    assert why_not([large, again, small], whole, 13_999) == ["they would take 0.0 MB"] * 2 + [""]
    assert (
        why_not([large, again, small], [True, True, False], 14_000)[:2]
        == ["the page holds a sample of the sentences"] * 2
    )
    wide = dataset(range(100_000), 2)
    (many,) = why_not([wide], [False], 2 * 100_000 * 40 - 1)
    assert many == "they would take 8.0 MB" and MAX_NEAREST_BYTES < 31 * 100_000 * 40


def test_what_does_not_fit_is_not_even_read(tmp_path: Path) -> None:
    def never(place: int) -> Any:
        raise AssertionError(place)

    texts = [f"s {i}" for i in range(300)]
    path = write_report(page(dataset(texts, 2, never)), tmp_path / "r.html", max_nearest_bytes=11_999)
    (about,) = told(path)
    assert about["why"] == "The nearest sentences are not in this page: they would take 0.0 MB." and "blob" not in about
    path = write_report(page(dataset(texts, 2)), tmp_path / "r.html", max_nearest_bytes=12_000)
    assert told(path)[0]["blob"] == "d0-r0-nearest" and told(path)[0]["most"] == 10


def test_those_of_other_sentences_are_refused(tmp_path: Path) -> None:
    wrong = dataset(["a", "b"], 1, lambda place: np.zeros((3, 10), np.int32))
    with pytest.raises(ValueError, match=r"nearest sentences must have shape \[2, 10\]"):
        write_report(page(wrong), tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()
