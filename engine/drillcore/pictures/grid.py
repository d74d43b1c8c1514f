"""Grids of panels as PNG: titles, layer names, frames, legend, marks.

A strip of panels is drawn at a time. One row of many layers is wrapped, so that it stays readable on a screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from drillcore.cache import write_atomic
from drillcore.pictures.colors import assign
from drillcore.pictures.panels import Grid, Panel, Row
from drillcore.pictures.shade import shade_panel

WRAP = 8
GAP, EDGE, HEAD, TITLE, LEGEND, FOOT = 10, 24, 22, 72, 34, 34
ROW_TITLE = 30
INK, FAINT, FRAME = "#1a1a1a", "#6b6b6b", "#c8c8c8"


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib ships: no system font is needed."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def write_grid(grid: Grid, path: Path) -> list[Path]:
    """Draw a grid and write it as PNG; the same grid gives the same bytes. Returns the files written."""
    import io

    buffer = io.BytesIO()
    draw_grid(grid).save(buffer, "PNG", optimize=False, compress_level=6)
    write_atomic(path, buffer.getvalue())
    return [path]


def draw_grid(grid: Grid) -> Image.Image:
    """The picture of a grid."""
    lines = _lines(grid)
    columns = max(len(panels) for _, panels in lines)
    colors = assign(grid.categories)
    entries = _legend_lines(grid.categories, columns * (grid.panel_px + GAP))
    width = 2 * EDGE + columns * (grid.panel_px + GAP) - GAP
    heights = [(ROW_TITLE if title else 0) + HEAD + grid.panel_px + GAP for title, _ in lines]
    top = TITLE + LEGEND * len(entries)
    picture = Image.new("RGB", (width, top + sum(heights) + FOOT), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((EDGE, 14), grid.title, INK, font(22, bold=True))
    draw.text((EDGE, 44), grid.subtitle, FAINT, font(14))
    _legend(draw, entries, colors)
    y = top
    for (title, panels), height in zip(lines, heights, strict=True):
        if title:
            draw.text((EDGE, y + 6), title, INK, font(16, bold=True))
        line_y = y + (ROW_TITLE if title else 0)
        for column, panel in enumerate(panels):
            if panel is not None:
                at = (EDGE + column * (grid.panel_px + GAP), line_y)
                _panel(picture, draw, panel, at, grid.panel_px, [colors[c] for c in grid.categories])
        y += height
    draw.text((EDGE, y + 6), grid.footer, FAINT, font(12))
    return picture


def _lines(grid: Grid) -> list[tuple[str, Sequence[Panel | None]]]:
    """Rows as they are drawn: each on one line in a grid of several models, wrapped where they are few."""
    wrap = len(grid.rows) <= 2
    lines: list[tuple[str, Sequence[Panel | None]]] = []
    for row in grid.rows:
        lines += _wrapped(row) if wrap else [(row.title, row.panels)]
    return lines


def _wrapped(row: Row) -> list[tuple[str, Sequence[Panel | None]]]:
    cut = [row.panels[i : i + WRAP] for i in range(0, len(row.panels), WRAP)]
    return [(row.title if i == 0 else "", panels) for i, panels in enumerate(cut)]


def _panel(
    picture: Image.Image, draw: ImageDraw.ImageDraw, panel: Panel, at: tuple[int, int], side: int, colors: list[str]
) -> None:
    x, y = at
    draw.text((x + 1, y + 3), panel.title, INK, font(13))
    if panel.degenerate:
        draw.rectangle((x, y + HEAD, x + side - 1, y + HEAD + side - 1), fill="#f2f2f2")
        for i, line in enumerate(("all states", "are the same")):
            draw.text((x + side / 2, y + HEAD + side / 2 + (i - 0.5) * 20), line, FAINT, font(13), anchor="mm")
    else:
        picture.paste(shade_panel(panel.points_N2, panel.values_N, colors, side), (x, y + HEAD))
    draw.rectangle((x, y + HEAD, x + side - 1, y + HEAD + side - 1), outline=FRAME)


def _legend_lines(categories: Sequence[str], width: int) -> list[list[tuple[int, str]]]:
    """Entries with their x, broken into lines."""
    lines: list[list[tuple[int, str]]] = [[]]
    x = EDGE
    for name in categories:
        taken = 40 + int(font(14).getlength(name))
        if lines[-1] and x + taken > width:
            lines.append([])
            x = EDGE
        lines[-1].append((x, name))
        x += taken
    return lines


def _legend(draw: ImageDraw.ImageDraw, lines: list[list[tuple[int, str]]], colors: dict[str, str]) -> None:
    for row, line in enumerate(lines):
        y = TITLE + row * LEGEND + 4
        for x, name in line:
            draw.ellipse((x, y, x + 13, y + 13), fill=colors[name])
            draw.text((x + 20, y - 2), name, INK, font(14))
