"""Characters that the shipped font lacks: through a font of the system, or written as their escapes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

from drillcore.pictures.lettering import font, printable, width_px, wrapped

# In no font: the first private characters of two planes. And one that a font of the test's own has.
NOWHERE, MADE = "\ue0f3", "\uf4a7"
DRAW = """
import sys
from pathlib import Path
import numpy as np
from drillcore.pictures.curves import write_curves
from drillcore.pictures.data import Chart, Charts, Grid, Panel, PanelRow, Series
from drillcore.pictures.grid.write import write_grid
out, label = Path(sys.argv[1]), sys.argv[2]
panel = Panel("p", np.eye(2, dtype=np.float32), np.array([0, 1], np.int32))
write_grid(Grid("t", "", (PanelRow("", (panel,)),), ("a", label)), out / "grid.png")
line = Series(label, np.arange(2), np.array([0.0, 1.0]))
write_curves(Charts("t", "", (Chart("c", "v", (line,)),)), out / "curves.png")
"""


def made_font(path: Path) -> None:
    """A font of one character, a filled square."""
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, 800), (900, 800), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    empty = TTGlyphPen(None).glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(MADE): "square"})
    builder.setupGlyf({".notdef": empty, "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 100)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Made Square", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    path.parent.mkdir(parents=True)
    builder.save(path)


def drawn(folder: Path, label: str, fonts: Path) -> dict[str, np.ndarray]:
    """The grid and the curves of a label, drawn by a process whose system has the fonts of a folder too."""
    folder.mkdir()
    env = {**os.environ, "XDG_DATA_HOME": str(fonts), "MPLCONFIGDIR": str(folder / "mpl")}
    subprocess.run([sys.executable, "-c", DRAW, str(folder), label], env=env, check=True)
    return {name: np.asarray(Image.open(folder / f"{name}.png").convert("L")) for name in ("grid", "curves")}


def darkest_square(image: np.ndarray, side: int) -> bool:
    """Whether somewhere is a dark square of some pixels' side."""
    dark = (image < 60).astype(int).cumsum(axis=0).cumsum(axis=1)
    sums = np.pad(dark, ((1, 0), (1, 0)))
    counts = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return bool((counts == side**2).any())


def test_a_font_of_the_system_has_what_the_shipped_one_lacks(tmp_path: Path) -> None:
    made_font(tmp_path / "data" / "fonts" / "made.ttf")
    with_font = drawn(tmp_path / "with", MADE * 3, tmp_path / "data")
    without = drawn(tmp_path / "without", MADE * 3, tmp_path / "none")
    escaped = drawn(tmp_path / "escaped", "\\uf4a7" * 3, tmp_path / "none")
    for name, image in with_font.items():
        assert darkest_square(image, 8) and not darkest_square(without[name], 8), name
        np.testing.assert_array_equal(without[name], escaped[name], err_msg="as its escape, not as a box")


def test_what_no_font_has_is_written_as_its_escape() -> None:
    assert printable(f"a{NOWHERE}b") == "a\\ue0f3b" and printable("\U000f1234") == "\\U000f1234"
    assert printable("Montréal שלום \t x") == "Montréal שלום   x"
    face = font(14)
    assert width_px(printable(NOWHERE), face) == width_px("\\ue0f3", face)
    assert wrapped(f"one {NOWHERE} two", face, 10_000) == ["one \\ue0f3 two"]
