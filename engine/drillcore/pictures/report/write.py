"""The report: one HTML file with all of its data, script and style, which loads nothing from the network.

Owns the contents of the file and their order; the form of the data is in `encode`, their look in `assets`. Data are
written row by row, so that a large report takes only the memory of one row of panels.

Shape legend: N sentences, K sentences that the page holds.
"""

from __future__ import annotations

import base64
import hashlib
import html
from dataclasses import asdict, dataclass
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from string import Template
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from drillcore.pictures.colors import value_table
from drillcore.pictures.curves import series_hex
from drillcore.pictures.data import Chart, Grid, Panel, PanelRow, Report, ReportDataset, Series
from drillcore.pictures.frame import Frame
from drillcore.pictures.report.choices import MAX_CHARACTERS, packed_choice, palette_of
from drillcore.pictures.report.encode import (
    cut,
    cut_length,
    numbers,
    outsiders,
    packed_numbers,
    packed_texts,
    quantised,
    script_json,
)
from drillcore.pictures.report.nearest import MAX_NEAREST_BYTES, told, why_not
from drillcore.pictures.shade import Palette, shade
from drillcore.system.files import replacing

MAX_PANEL_POINTS = 3_200_000  # 100,000 sentences in 32 panels
MAX_TEXT_CHARACTERS = 12_000_000
SAMPLE_SENTENCES = (1_000, 20_000)  # fewest and most in a sample
IMAGE_COLORS = 256
SCRIPTS = (
    *("data.js", "colouring.js", "paint.js", "names.js", "panels.js", "neighbours.js", "closeup.js"),
    *("selection.js", "moved.js", "charts.js", "page.js"),
)


def write_report(
    report: Report,
    path: Path,
    *,
    max_panel_points: int = MAX_PANEL_POINTS,
    max_text_characters: int = MAX_TEXT_CHARACTERS,
    max_nearest_bytes: int = MAX_NEAREST_BYTES,
) -> Path:
    """Write the report as one HTML file and return its path.

    max_panel_points: of all panels of all datasets together. Above that, the larger datasets are shown as datashader
    images, with a random sample of their sentences to point at. max_text_characters: of all texts together; above that,
    long texts are cut. max_nearest_bytes: of all nearest sentences together; above that, and where the page holds a
    sample, the larger datasets have none. The page says so in each case. The same report gives the same bytes.

    Raises:
        ValueError: a panel does not have one point for each sentence.
        OSError: the file cannot be written.
    """
    with replacing(path) as scratch, scratch.open("w", encoding="utf-8", newline="\n") as file:
        _Writer(report, file, max_panel_points, max_text_characters, max_nearest_bytes).write()
    return path


def _asset(name: str) -> str:
    return (files("drillcore.pictures.report") / "assets" / name).read_text(encoding="utf-8")


def _script(name: str) -> str:
    """A script without its indents and its lines of comment, which are a seventh of it; no text in one spans lines."""
    lines = (line.strip() for line in _asset(name).splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("//"))


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@dataclass(frozen=True)
class _Sample:
    """Sentences of a dataset that the page holds. image_px: size of the panels' images; 0 where it holds them all."""

    indexes_K: NDArray[np.int64]
    image_px: int


class _Writer:
    def __init__(
        self, report: Report, file: TextIO, max_panel_points: int, max_text_characters: int, max_nearest_bytes: int
    ) -> None:
        self.report, self.file = report, file
        panels = [sum(p is not None for row in d.grid.rows for p in row.panels) for d in report.datasets]
        self.num_panels = sum(panels)
        held = [(len(d.texts), n) for d, n in zip(report.datasets, panels, strict=True) if not d.recolours]
        points, num_held = sum(size * n for size, n in held), sum(n for _, n in held)
        self.room = max_panel_points // max(num_held, 1) if points > max_panel_points else None
        self.text_room = max_text_characters // max(len(held), 1)
        is_sampled = [self._sample(len(d.texts)).image_px > 0 for d in report.datasets]
        self.why_no_nearest = why_not(report.datasets, is_sampled, max_nearest_bytes)
        self.blobs: dict[bytes, str] = {}
        self.choice_room = MAX_CHARACTERS

    def write(self) -> None:
        script = '"use strict";\n(() => {\n' + "".join(_script(name) for name in SCRIPTS) + "})();\n"
        style = _asset("report.css")
        policy = (
            f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
            "base-uri 'none'; form-action 'none'"
        )
        title = html.escape(self.report.title)
        page = Template(_asset("report.html")).substitute(title=title, policy=policy, style=style, data="\0")
        before, after = page.split("\0")
        self.file.write(before)
        datasets = [self._dataset(i, dataset) for i, dataset in enumerate(self.report.datasets)]
        meta = {
            "title": self.report.title,
            "subtitle": self.report.subtitle,
            "footer": self.report.footer,
            "tables": [{"title": t.title, "header": t.header, "rows": t.rows} for t in self.report.tables],
            "chartsNote": self.report.charts_note,
            "charts": [_chart(chart) for chart in self.report.charts],
            "seriesColors": series_hex(self.report.charts),
            "figure": self.report.figure,
            "coloredBy": self.report.colored_by,
            "ramp": {"colors": _hex(value_table()), "darkColors": _hex(value_table(dark=True))},
            "answer": None if self.report.answer is None else asdict(self.report.answer),
            "datasets": datasets,
        }
        self._element("meta", "application/json", script_json(meta))
        self.file.write(f"<script>{script}</script>\n{after}")

    def _element(self, name: str, kind: str, content: str) -> None:
        self.file.write(f'<script type="{kind}" id="{name}">{content}</script>\n')

    def _blob(self, name: str, data: bytes) -> str:
        """Write data as an element of the page, and return its name, or that of one that holds the same."""
        digest = hashlib.sha256(data).digest()
        if digest in self.blobs:
            return self.blobs[digest]
        self.blobs[digest] = name
        self._element(name, "application/octet-stream", data.decode("ascii"))
        return name

    def _dataset(self, number: int, dataset: ReportDataset) -> dict[str, Any]:
        count = len(dataset.texts)
        grid = dataset.grid
        name = f"d{number}"
        sample = self._sample(count)
        palette = Palette.of(grid)
        codes_N = np.zeros(count, np.int32)
        rows = []
        for r, row in enumerate(grid.rows):
            content, codes = self._row(f"{name}-r{r}", row, count, sample, grid)
            nearest = told(row, count, content["panels"], self.why_no_nearest[number])
            if nearest is not None:
                content["nearest"], packed = nearest
                if packed is not None:
                    content["nearest"]["blob"] = self._blob(f"{name}-r{r}-nearest", packed)
            rows.append(content)
            codes_N = codes_N if codes is None else codes
        chosen = [dataset.texts[i] for i in sample.indexes_K]
        length = cut_length(chosen, self.text_room)
        notes = [cut(dataset.notes[i], length) for i in sample.indexes_K] if len(dataset.notes) else []
        wide = sample.indexes_K.astype("<u4").view("<u2")
        choices, left = self._choices(name, dataset, sample)
        return {
            "name": dataset.name,
            "title": grid.title,
            "subtitle": grid.subtitle,
            "footer": grid.footer,
            "count": count,
            "shown": len(sample.indexes_K),
            "cut": length,
            "categories": grid.categories,
            "counts": np.bincount(codes_N, minlength=len(palette.table))[: len(grid.categories)].tolist(),
            "unlabelled": grid.unlabelled,
            "valueRange": grid.value_range,
            "valueName": grid.value_name,
            "colors": _hex(palette.table),
            "darkColors": _hex(value_table(dark=True)) if grid.value_range is not None else None,
            "texts": self._blob(f"{name}-texts", packed_texts([cut(text, length) for text in chosen])),
            "notes": self._blob(f"{name}-notes", packed_texts(notes)),
            "codes": self._blob(f"{name}-codes", packed_numbers([codes_N[sample.indexes_K].astype(np.uint16)])),
            "numbers": self._blob(f"{name}-numbers", packed_numbers([wide])),
            "rows": rows,
            "choices": choices,
            "choicesLeft": left,
        }

    def _choices(self, name: str, dataset: ReportDataset, sample: _Sample) -> tuple[list[dict[str, Any]], list[str]]:
        """What else the points can be coloured by, and the names of what the page has no room for."""
        found, left = list[dict[str, Any]](), list[str]()
        for number, choice in enumerate(dataset.choices):
            packed = packed_choice(choice, len(dataset.texts), len(dataset.grid.rows), sample.indexes_K)
            size = sum(len(data) for data in packed.blobs if hashlib.sha256(data).digest() not in self.blobs)
            if size > self.choice_room:
                left.append(choice.name)
                continue
            self.choice_room -= size
            of, palette = f"{name}-c{number}", palette_of(choice)
            blobs = {n: self._blob(f"{of}-{n}", getattr(packed, n)) for n in ("words", "places")}
            codes = [self._blob(f"{of}-r{r}", data) for r, data in enumerate(packed.codes)]
            found.append({**packed.info, **blobs, "codes": codes, "colors": None if palette is None else _hex(palette)})
        return found, left

    def _sample(self, count: int) -> _Sample:
        if self.room is None or count <= self.room:
            return _Sample(np.arange(count), 0)
        size = min(count, max(SAMPLE_SENTENCES[0], min(SAMPLE_SENTENCES[1], self.room)))
        chosen = np.sort(np.random.default_rng(0).choice(count, size, replace=False))
        return _Sample(chosen, 400 if self.num_panels <= 64 else 240 if self.num_panels <= 512 else 150)

    def _row(
        self, name: str, row: PanelRow, count: int, sample: _Sample, grid: Grid
    ) -> tuple[dict[str, Any], NDArray[np.int32] | None]:
        panels: list[dict[str, Any] | None] = []
        points = []
        images = []
        codes, palette = None, Palette.of(grid)
        for source in row.panels:
            panel = source() if callable(source) else source
            if panel is None:
                panels.append(None)
                continue
            if len(panel.points_N2) != count:
                raise ValueError(
                    f"{row.title}, {panel.title}: {len(panel.points_N2)} points for {count} sentences of the report"
                )
            codes = palette.codes(panel) if codes is None else codes
            frame = Frame.around(panel.points_N2, every=grid.every_point)
            panels.append(_panel(panel, outsiders(panel.points_N2[sample.indexes_K], frame)))
            if not panel.degenerate:
                points.append(quantised(panel.points_N2, frame)[:, sample.indexes_K])
                images.append(_image(panel, sample.image_px, palette, every_point=grid.every_point))
        content: dict[str, Any] = {"title": row.title, "panels": panels}
        content["points"] = self._blob(f"{name}-points", packed_numbers(points))
        if sample.image_px:
            self._element(f"{name}-images", "application/json", script_json(images))
            content["images"] = f"{name}-images"
        return content, codes


def _hex(table: NDArray[np.uint8]) -> list[str]:
    return ["#{:02x}{:02x}{:02x}".format(*color) for color in table.tolist()]


def _panel(panel: Panel, outside: list[tuple[int, float, float]]) -> dict[str, Any]:
    """What the page is told of a panel, without what it has not."""
    told = {
        "layer": panel.layer,
        "figure": panel.figure,
        "notable": panel.is_notable or None,
        "outside": outside,
    }
    kept = {name: value for name, value in told.items() if value not in (None, "", [])}
    return {"title": panel.title, **({"degenerate": True} if panel.degenerate else {}), **kept}


def _image(panel: Panel, image_px: int, palette: Palette, *, every_point: bool) -> str:
    """The panel as a PNG of few colours on no ground, in base64; empty without an image."""
    (pixels,) = shade([panel], image_px, palette, every_point=every_point, ground=None) if image_px else (None,)
    if pixels is None:
        return ""
    buffer = BytesIO()
    few = Image.fromarray(pixels).quantize(IMAGE_COLORS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _chart(chart: Chart) -> dict[str, Any]:
    return {
        "title": chart.title,
        "valueName": chart.value_name,
        "range": chart.value_range,
        "note": chart.note,
        "relativeDepth": chart.relative_depth,
        "series": [_series(series) for series in chart.series],
    }


def _series(series: Series) -> dict[str, Any]:
    return {
        "name": series.name,
        "control": series.control,
        "of": series.of,
        "shows": series.shows,
        "layers": [int(layer) for layer in series.layers_L],
        "value": numbers(series.value_L),
        "low": numbers(series.low_L),
        "high": numbers(series.high_L),
        "nullMean": numbers(series.null_mean_L),
        "nullHigh": numbers(series.null_high_L),
        "p": numbers(series.p_L),
    }
