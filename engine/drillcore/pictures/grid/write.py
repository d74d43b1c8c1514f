"""Grids of panels as PNG files, drawn line by line, so that memory does not grow with the grid.

The public function is `write_grid`. Sizes are in `layout`, the pixels of a panel in `shade`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from drillcore.pictures.data import Grid, Panel, PanelSource
from drillcore.pictures.grid.layout import Layout, tiles
from drillcore.pictures.grid.legend import foot, head
from drillcore.pictures.grid.png import PngWriter
from drillcore.pictures.lettering import FAINT_INK, INK, draw_centered, fitted, font, write
from drillcore.pictures.shade import Palette, shade

FRAME = (190, 190, 190)
MARKED = (240, 240, 240)
IDENTICAL = "all states identical"
EMPTY = "no points"
HEAD_ROOM_PX = 100  # for what the subtitle of a tile adds to that of the grid


def write_grid(grid: Grid, path: Path, *, columns: int | None = None, tile_px: int = 16_384) -> list[Path]:
    """Write a grid as PNG and return the files: one, or tiles `<stem>-r1-c1.png` where it is larger than `tile_px`.

    columns: panels side by side; by default rows of more than ten panels are wrapped, several of them into bands.
    tile_px: largest width and height of a file. Each tile has its own title, legend and small print. Panels are not
    cut: a tile is larger than `tile_px` where a single panel with its head is. The same grid gives the same bytes.

    Raises:
        ValueError: a point has a value without colour.
        OSError: a file cannot be written.
    """
    layout = Layout.of(grid, columns)
    width = min(layout.width, tile_px)
    head_px = sum(len(part(grid, width, layout.margin, layout.scale)) for part in (head, foot))
    parts, across = tiles(grid, columns, tile_px, head_px + round(HEAD_ROOM_PX * layout.scale))
    if len(parts) == len(parts[0]) == 1:
        _write(parts[0][0], path, layout)
        return [path]
    written = []
    for r, line in enumerate(parts, 1):
        for c, tile in enumerate(line, 1):
            tile_path = path.with_name(f"{path.stem}-r{r}-c{c}{path.suffix}")
            _write(tile, tile_path, Layout.of(tile, min(across, tile.num_columns)))
            written.append(tile_path)
    return written


def _write(grid: Grid, path: Path, layout: Layout) -> None:
    top = head(grid, layout.width, layout.margin, layout.scale)
    bottom = foot(grid, layout.width, layout.margin, layout.scale)
    height = len(top) + layout.height(grid.rows) + len(bottom)
    palette = Palette.of(grid)
    with PngWriter(path, layout.width, height) as png:
        png.write(top)
        for title, panels in layout.lines(grid.rows):
            if title:
                png.write(_heading(title, layout))
            png.write(_line(panels, layout, palette, grid.every_point))
        png.write(bottom)


def _heading(title: str, layout: Layout) -> NDArray[np.uint8]:
    image = Image.new("RGB", (layout.width, layout.heading), "white")
    face = font(round(15 * layout.scale), bold=True)
    shown = fitted(title, face, layout.width - 2 * layout.margin)
    write(ImageDraw.Draw(image), (layout.margin, image.height // 2), shown, face)
    return np.asarray(image)


class Caption(NamedTuple):
    """What is needed of a panel after its points are released."""

    title: str
    degenerate: bool
    is_notable: bool


def _line(sources: tuple[PanelSource, ...], layout: Layout, palette: Palette, every_point: bool) -> NDArray[np.uint8]:
    """One line of panels with their captions, uint8 [line_height, width, 3]."""
    captions: list[Caption | None] = []
    images = shade(_load_panels(sources, captions), layout.panel, palette, every_point=every_point)
    pixels = np.full((layout.line_height, layout.width, 3), 255, np.uint8)
    for i, image in enumerate(images):
        if image is not None:
            left = layout.left(i)
            pixels[layout.caption : layout.caption + layout.panel, left : left + layout.panel] = image
    strip = Image.fromarray(pixels)
    for i, (caption, image) in enumerate(zip(captions, images, strict=True)):
        if caption is not None:
            _frame(strip, caption, layout.left(i), layout, drawn=image is not None)
    return np.asarray(strip)


def _caption(panel: Panel) -> Caption:
    title = f"{panel.title}  {panel.figure}" if panel.figure else panel.title
    return Caption(title, panel.degenerate, panel.is_notable)


def _load_panels(sources: tuple[PanelSource, ...], captions: list[Caption | None]) -> Iterator[Panel | None]:
    for source in sources:
        panel = source() if callable(source) else source
        captions.append(None if panel is None else _caption(panel))
        yield panel
        del panel


def _frame(strip: Image.Image, caption: Caption, left: int, layout: Layout, *, drawn: bool) -> None:
    draw = ImageDraw.Draw(strip)
    box = (left, layout.caption, left + layout.panel - 1, layout.caption + layout.panel - 1)
    draw.rectangle(box, fill=None if drawn else MARKED, outline=FRAME, width=max(1, round(layout.scale)))
    center = left + layout.panel // 2
    face = font(round(13 * layout.scale), bold=caption.is_notable)
    draw_centered(strip, (center, layout.caption // 2), fitted(caption.title, face, layout.panel), face, INK)
    if not drawn:
        note = IDENTICAL if caption.degenerate else EMPTY
        small = font(round(12 * layout.scale))
        middle = layout.caption + layout.panel // 2
        draw_centered(strip, (center, middle), fitted(note, small, layout.panel - 4), small, FAINT_INK)
