"""The head of a grid (title, subtitle, and legend or colour bar) and its foot (the small print), as pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from drillcore.pictures.colors import NO_LABEL_HEX, category_hex, value_table
from drillcore.pictures.data import Grid
from drillcore.pictures.lettering import FAINT_INK, INK, fitted, font, width_px, wrapped, write

MAX_LABEL_PX = 320
# With more labels than this their names are smaller; of those that do not fit into so many lines there is the number.
MANY_LABELS, MAX_LINES = 24, 10


@dataclass(frozen=True)
class Line:
    """One line of text. size_px: of its font."""

    text: str
    size_px: int
    bold: bool = False


def head(grid: Grid, width: int, margin: int, scale: float) -> NDArray[np.uint8]:
    """The head as RGB, uint8 [height, width, 3], as high as its content. scale: multiplies every size."""
    # The title of a wide picture must be readable when the picture is shrunk to the width of a screen.
    scale *= min(max(width / (2000 * scale), 1), 2)
    room = width - 2 * margin
    lines = [
        Line(text, round(22 * scale), True) for text in wrapped(grid.title, font(round(22 * scale), bold=True), room)
    ]
    lines += [Line(text, round(14 * scale)) for text in wrapped(grid.subtitle, font(round(14 * scale)), room)]
    text = _text_lines(lines, width, margin, INK)
    legend = _legend(grid, width, margin, scale) if grid.categories else _color_bar(grid, width, margin, scale)
    return np.concatenate([_blank(margin, width), text, *legend, _blank(round(6 * scale), width)])


def foot(grid: Grid, width: int, margin: int, scale: float) -> NDArray[np.uint8]:
    """The small print as RGB, uint8 [height, width, 3], as high as its content."""
    size = round(12 * scale)
    lines = [Line(text, size) for text in wrapped(grid.footer, font(size), width - 2 * margin)]
    return np.concatenate([_text_lines(lines, width, margin, FAINT_INK), _blank(margin, width)])


def _blank(height: int, width: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 255, np.uint8)


def _text_lines(lines: list[Line], width: int, margin: int, ink: tuple[int, int, int]) -> NDArray[np.uint8]:
    heights = [round(line.size_px * 1.45) for line in lines]
    image = Image.new("RGB", (width, sum(heights)), "white") if lines else None
    if image is None:
        return _blank(0, width)
    draw, y = ImageDraw.Draw(image), 0
    for line, height in zip(lines, heights, strict=True):
        write(draw, (margin, y + height // 2), line.text, font(line.size_px, bold=line.bold), ink)
        y += height
    return np.asarray(image)


def _legend(grid: Grid, width: int, margin: int, scale: float) -> list[NDArray[np.uint8]]:
    """Labels beside discs in their colours; in columns of equal width where they need several lines."""
    is_many = len(grid.categories) > MANY_LABELS
    scale *= 0.8 if is_many else 1
    face, disc = font(round(14 * scale)), round(12 * scale)
    names = [fitted(name, face, round(MAX_LABEL_PX * scale * (0.5 if is_many else 1))) for name in grid.categories]
    colors = category_hex(grid.categories)
    if grid.unlabelled:
        names, colors = [*names, f"no label ({grid.unlabelled:,})"], [*colors, NO_LABEL_HEX]
    cells = [disc + round(8 * scale) + width_px(name, face) + round(20 * scale) for name in names]
    if sum(cells) > width - 2 * margin:
        cells = [max(cells)] * len(cells)
    per_line = len(cells) if sum(cells) <= width - 2 * margin else max(1, (width - 2 * margin) // cells[0])
    if (more := len(names) - per_line * MAX_LINES) > 0:
        names, colors = names[: -more - 1], colors[: -more - 1]
        names, colors = [*names, f"and {more + 1:,} more"], [*colors, "#ffffff"]
    line_height = round(22 * scale)
    image = Image.new("RGB", (width, -(-len(names) // per_line) * line_height + round(4 * scale)), "white")
    draw = ImageDraw.Draw(image)
    for i, (name, color) in enumerate(zip(names, colors, strict=True)):
        line, column = divmod(i, per_line)
        x = margin + sum(cells[line * per_line : line * per_line + column])
        middle = line * line_height + line_height // 2
        image.paste(_disc(disc, color), (x, middle - disc // 2))
        write(draw, (x + disc + round(8 * scale), middle), name, face)
    return [np.asarray(image)]


def _disc(size: int, color: str) -> Image.Image:
    large = Image.new("RGB", (size * 4, size * 4), "white")
    ImageDraw.Draw(large).ellipse((0, 0, size * 4 - 1, size * 4 - 1), fill=color)
    return large.reduce(4)


def _color_bar(grid: Grid, width: int, margin: int, scale: float) -> list[NDArray[np.uint8]]:
    """The name of the value, its least value, the colours, its greatest value; nothing for a grid without values."""
    if grid.value_range is None:
        return []
    face = font(round(14 * scale))
    image = Image.new("RGB", (width, round(26 * scale)), "white")
    draw = ImageDraw.Draw(image)
    middle = image.height // 2
    x = margin
    name = fitted(grid.value_name, face, round(MAX_LABEL_PX * scale))
    before = f"{name}   {grid.value_range[0]:.4g}".lstrip()
    write(draw, (x, middle), before, face)
    x += width_px(before, face) + round(8 * scale)
    bar = Image.fromarray(value_table()[None, :-1]).resize((round(200 * scale), round(12 * scale)))
    image.paste(bar, (x, middle - bar.height // 2))
    x += bar.width + round(8 * scale)
    after = f"{grid.value_range[1]:.4g}"
    write(draw, (x, middle), after, face)
    if grid.unlabelled:
        x, disc = x + width_px(after, face) + round(24 * scale), round(12 * scale)
        image.paste(_disc(disc, NO_LABEL_HEX), (x, middle - disc // 2))
        write(draw, (x + disc + round(8 * scale), middle), f"no value ({grid.unlabelled:,})", face)
    return [np.asarray(image)]
