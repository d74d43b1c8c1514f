"""Text in pictures, set in a font that matplotlib ships, so that no machine needs to have fonts installed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

INK = (34, 34, 34)
FAINT_INK = (96, 96, 96)


@cache
def font(size_px: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans at a size in pixels."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size_px)


def printable(text: str) -> str:
    """One line of text: line breaks and other control characters become spaces.

    >>> printable("two\\nlines")
    'two lines'
    """
    return "".join(c if c.isprintable() else " " for c in text)


def width_px(text: str, face: ImageFont.FreeTypeFont) -> int:
    """Width of a line of text in pixels."""
    return round(face.getlength(text))


def fitted(text: str, face: ImageFont.FreeTypeFont, limit_px: int) -> str:
    """The text as one line, cut with an ellipsis where it is wider than `limit_px`.

    >>> fitted("Montreal", font(14), 200), fitted("Montreal" * 100, font(14), 60)
    ('Montreal', 'Montr…')
    """
    text = printable(text)
    if width_px(text, face) <= limit_px:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if width_px(text[:middle] + "…", face) <= limit_px:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"


def wrapped(text: str, face: ImageFont.FreeTypeFont, limit_px: int) -> list[str]:
    """Lines no wider than `limit_px`, broken at spaces and at the line breaks of the text."""
    lines = []
    for paragraph in filter(None, text.split("\n")):
        line = ""
        for word in printable(paragraph).split():
            longer = f"{line} {word}".lstrip()
            if line and width_px(longer, face) > limit_px:
                lines.append(line)
                longer = word
            line = longer
        lines.append(fitted(line, face, limit_px))
    return lines


def draw_centered(
    image: Image.Image, center_xy: tuple[int, int], text: str, face: ImageFont.FreeTypeFont, fill: tuple[int, int, int]
) -> None:
    """Draw one line of text centred on a point; the height of its letters does not move it up or down."""
    ImageDraw.Draw(image).text(center_xy, text, fill=fill, font=face, anchor="mm")
