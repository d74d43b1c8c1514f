"""Text in pictures, set in a font that matplotlib ships, and in those of the system for what that one lacks.

A character that no font has is written as its escape, such as \\u65e5, so that no two look alike.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import groupby
from pathlib import Path

import matplotlib
from fontTools.ttLib import TTFont, TTLibError
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

INK = (34, 34, 34)
FAINT_INK = (96, 96, 96)
# Tried before the others, which come in the order of their files' names.
PREFERRED = ("notosanscjk", "notosans", "wqy", "droidsansfallback", "unifont")
# Have no shape of their own, but change that of their neighbours.
JOINERS = ("\u200c", "\u200d", "\ufe0f")
OUTLINES = ("glyf", "CFF ", "CFF2")


@dataclass(frozen=True)
class Face:
    """A font at a size in pixels."""

    size: int
    bold: bool = False

    def getlength(self, text: str) -> float:
        """Width of one line of text in pixels."""
        return _length(text, self.size, self.bold)

    @property
    def height(self) -> int:
        """From the highest to the lowest of its letters, in pixels."""
        return sum(_font(_own(self.bold), self.size).getmetrics())


def font(size_px: int, *, bold: bool = False) -> Face:
    """The font of pictures at a size in pixels."""
    return Face(size_px, bold)


def printable(text: str) -> str:
    """One line of text as pictures show it: blanks, line breaks and other control characters become spaces.

    Characters of no font, and those that cannot be seen, become their escapes.

    >>> printable("two\\nlines"), printable("\\ue000")
    ('two lines', '\\\\ue000')
    """
    return "".join(_shown(c) for c in text)


def families(texts: Iterable[str]) -> list[str]:
    """Names of the fonts, for matplotlib, that some texts need."""
    files = dict.fromkeys(_file_with(c, False) for text in texts for c in sorted({*printable(text)}))
    names = ["DejaVu Sans"]
    for path in files:
        if path is not None and path != _own(False):
            font_manager.fontManager.addfont(path)
            names.append(font_manager.FontProperties(fname=path).get_name())
    return names


def width_px(text: str, face: Face) -> int:
    """Width of a line of text in pixels."""
    return round(face.getlength(text))


@lru_cache(maxsize=4096)
def fitted(text: str, face: Face, limit_px: int) -> str:
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


def wrapped(text: str, face: Face, limit_px: int) -> list[str]:
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
        lines.append(line)
    return [fitted(line, face, limit_px) for line in lines]


def write(
    draw: ImageDraw.ImageDraw,
    xy: tuple[float, float],
    text: str,
    face: Face,
    fill: tuple[int, int, int] = INK,
    *,
    anchor: str = "l",
    halo_px: int = 0,
) -> None:
    """Draw one line of text, its middle at the height y.

    anchor: l or m, which of its ends or middle is at x. halo_px: width of the white around it.
    """
    x, y = xy
    above, below = _font(_own(face.bold), face.size).getmetrics()
    if anchor == "m":
        x -= face.getlength(text) / 2
    for part, path in _runs(text, face.bold):
        own = _font(path, face.size)
        base = (x, y + (above - below) / 2)
        draw.text(base, part, fill=fill, font=own, anchor="ls", stroke_width=halo_px, stroke_fill="white")
        x += own.getlength(part)


def draw_centered(
    image: Image.Image, center_xy: tuple[int, int], text: str, face: Face, fill: tuple[int, int, int]
) -> None:
    """Draw one line of text centred on a point; the height of its letters does not move it up or down."""
    write(ImageDraw.Draw(image), center_xy, text, face, fill, anchor="m")


@lru_cache(maxsize=4096)
def _runs(text: str, bold: bool) -> tuple[tuple[str, str], ...]:
    """Parts of a text, each with the file of its font."""
    files = ((c, _file_with(c, bold) or _own(bold)) for c in text)
    return tuple(("".join(c for c, _ in part), path) for path, part in groupby(files, key=lambda pair: pair[1]))


@lru_cache(maxsize=4096)
def _length(text: str, size_px: int, bold: bool) -> float:
    """Width of a text in pixels."""
    return sum(_font(path, size_px).getlength(part) for part, path in _runs(text, bold))


@cache
def _shown(character: str) -> str:
    kind = unicodedata.category(character)
    if kind in ("Cc", "Zs", "Zl", "Zp"):
        return " "
    if character in JOINERS or (kind not in ("Cf", "Cs") and _file_with(character, False)):
        return character
    return character.encode("ascii", "backslashreplace").decode()


@cache
def _own(bold: bool) -> str:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name)


@cache
def _font(path: str, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size_px)


@cache
def _file_with(character: str, bold: bool) -> str | None:
    """The file of the first font that has a character; None where none has it."""
    own, code = _own(bold), ord(character)
    if code in _characters(own):
        return own
    return next((path for path in _fallbacks() if code in _characters(path)), None)


@cache
def _fallbacks() -> tuple[str, ...]:
    """Files of the system's fonts, those that have many scripts first."""

    def order(path: str) -> tuple[int, str, str]:
        name = Path(path).name.lower()
        known = next((i for i, start in enumerate(PREFERRED) if name.startswith(start)), len(PREFERRED))
        return known, name, path

    return tuple(sorted(map(str, font_manager.findSystemFonts()), key=order))


@cache
def _characters(path: str) -> frozenset[int]:
    """Characters of which a font has outlines; none of a font of pictures, or one that cannot be read."""
    try:
        with TTFont(path, lazy=True, fontNumber=0) as opened:
            return frozenset(opened.getBestCmap() or ()) if any(table in opened for table in OUTLINES) else frozenset()
    except (OSError, TTLibError, ValueError, KeyError, AssertionError):
        return frozenset()
