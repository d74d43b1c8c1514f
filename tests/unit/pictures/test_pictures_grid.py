"""Grids as PNG files: where panels stand, what is marked, tiles, memory, and the same bytes every time."""

from __future__ import annotations

import gc
import secrets
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drillcore.pictures.colors import OTHER, category_hex, encode_labels
from drillcore.pictures.data import Grid, Panel, PanelRow
from drillcore.pictures.grid.layout import Layout, aligned_by_depth, columns_by_depth, default_columns
from drillcore.pictures.grid.png import PngWriter
from drillcore.pictures.grid.write import FRAME, MARKED, write_grid
from drillcore.pictures.lettering import fitted, font, width_px, wrapped


def panel(n: int, seed: int = 0, *, degenerate: bool = False) -> Panel:
    rng = np.random.default_rng(seed)
    codes = (np.arange(n) % 2).astype(np.int32)
    return Panel(f"block_{seed}", rng.normal(size=(n, 2)).astype(np.float32), codes, degenerate)


def grid(*widths: int, n: int = 20, **changes: object) -> Grid:
    rows = tuple(PanelRow(f"model {r}", tuple(panel(n, c) for c in range(width))) for r, width in enumerate(widths))
    return Grid("Title", "Subtitle", rows, ("Montreal", "Toronto"), footer="small print", **changes)  # type: ignore[arg-type]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        image.load()
        assert image.mode == "RGB"
        return np.asarray(image)


def panels_in(picture: np.ndarray, panel_px: int) -> int:
    """Number of panels in a picture, counted by the edges of their frames."""
    framed = (picture == FRAME).all(axis=2)
    edges = 0
    for line in framed:
        runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], line.astype(int), [0]]))))[::2]
        edges += int((runs == panel_px).sum())
    return edges // 2


def test_same_grid_same_bytes(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        assert write_grid(grid(3, 2, n=60), tmp_path / name) == [tmp_path / name]
        write_grid(grid(1, n=6_000), tmp_path / f"many-{name}")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert (tmp_path / "many-one.png").read_bytes() == (tmp_path / "many-two.png").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["many-one.png", "many-two.png", "one.png", "two.png"]


def test_every_panel_is_in_the_picture(tmp_path: Path) -> None:
    seed = secrets.randbits(32)
    print("seed", seed)
    rng = np.random.default_rng(seed)
    for _ in range(4):
        widths = rng.integers(1, 34, rng.integers(1, 4)).tolist()
        px = int(rng.choice([60, 200]))
        (path,) = write_grid(grid(*widths, panel_px=px), tmp_path / "grid.png")
        picture = pixels(path)
        assert panels_in(picture, px) == sum(widths), widths
        assert (picture[:, -5:] == 255).all() and (picture[-5:] == 255).all()


def test_long_rows_are_wrapped() -> None:
    assert [default_columns(grid(n)) for n in (1, 10, 31, 32, 26)] == [1, 10, 8, 8, 9]
    assert default_columns(grid(9, 5)) == 9
    for rows, columns in ((3, 32), (2, 26), (6, 24), (4, 81)):
        layout = Layout.of(wide := grid(*[columns] * rows))
        shape = layout.width / layout.height(wide.rows)
        assert 1 / 2.6 < shape < 2.6, (rows, columns, shape)


def test_the_layers_of_all_rows_stand_under_each_other_in_bands(tmp_path: Path) -> None:
    one, two = (tuple(panel(20, c + 40 * r) for c in range(8)) for r in range(2))
    lines = list(
        Layout.of(Grid("", "", (PanelRow("a", one), PanelRow("b", two[:6]))), 3).lines(
            (PanelRow("a", one), PanelRow("b", two[:6]))
        )
    )
    assert lines == [("a", one[:3]), ("b", two[:3]), ("a", one[3:6]), ("b", two[3:6]), ("a", one[6:])]
    wrapped_grid = Grid("Title", "", (PanelRow("a", one), PanelRow("b", two)), ("x", "y"))
    (banded,) = write_grid(wrapped_grid, tmp_path / "bands.png", columns=3)
    (strip,) = write_grid(wrapped_grid, tmp_path / "strip.png", columns=8)
    assert panels_in(pixels(banded), 200) == panels_in(pixels(strip), 200) == 16
    assert pixels(strip).shape[1] > 2 * pixels(banded).shape[1]
    assert Layout.of(grid(26), columns=13).columns == 13


def test_degenerate_and_missing_panels(tmp_path: Path) -> None:
    drawn, marked = panel(20, 1), panel(20, 2, degenerate=True)
    empty = Panel("empty", np.zeros((0, 2), np.float32), np.zeros(0, np.int32))
    rows = (PanelRow("model", (drawn, marked, None, empty, lambda: drawn)),)
    (path,) = write_grid(Grid("Title", "", rows, ("a", "b")), tmp_path / "grid.png")
    layout, picture = Layout.of(grid(5)), pixels(path)
    assert panels_in(picture, 200) == 4
    top = int(np.flatnonzero((picture == MARKED).all(axis=2).any(axis=1))[0]) - 1
    cells = [picture[top : top + 200, layout.left(i) : layout.left(i) + 200] for i in range(5)]
    assert (cells[2] == 255).all()
    for i in (1, 3):
        assert ((cells[i] == MARKED).all(axis=2)).mean() > 0.8
        assert np.ptp(cells[i], axis=2).max() == 0, "no coloured point in a panel that shows none"
    assert np.ptp(cells[0], axis=2).max() > 50
    np.testing.assert_array_equal(cells[0][1:-1, 1:-1], cells[4][1:-1, 1:-1])


def test_large_grids_become_tiles_that_hold_every_panel(tmp_path: Path) -> None:
    for widths in ((23, 20, 9), (37,)):
        written = write_grid(grid(*widths, panel_px=150), tmp_path / f"grid-{len(widths)}.png", tile_px=1000)
        assert len(written) > 1 and len(set(written)) == len(written)
        pictures = [pixels(path) for path in written]
        assert all(max(picture.shape[:2]) <= 1000 for picture in pictures)
        assert sum(panels_in(picture, 150) for picture in pictures) == sum(widths)
    assert written[0].name == "grid-1-r1-c1.png"
    (path,) = write_grid(grid(37, panel_px=150), tmp_path / "whole.png")
    assert path.name == "whole.png"


def test_at_most_two_panels_of_many_points_are_in_memory(tmp_path: Path) -> None:
    alive: list[weakref.ref[Panel]] = []
    most = 0

    def load() -> Panel:
        nonlocal most
        gc.collect()
        loaded = panel(6_000, len(alive))
        alive.append(weakref.ref(loaded))
        most = max(most, sum(ref() is not None for ref in alive))
        return loaded

    rows = tuple(PanelRow(f"model {r}", (load,) * 8) for r in range(2))
    write_grid(Grid("Title", "", rows, ("a", "b"), panel_px=50), tmp_path / "grid.png")
    assert len(alive) == 16 and most <= 2


def test_legends_of_many_labels_and_values(tmp_path: Path) -> None:
    names = tuple(f"label {i} " + "very " * 30 + "long" for i in range(100))
    assert len(set(category_hex(names))) == 100
    heights = []
    for categories, value_range in ((names, None), ((), (0.0, 1.0)), ((), None)):
        values = np.zeros(20, np.float32 if value_range else np.int32)
        rows = (PanelRow("", (Panel("block_1", panel(20).points_N2, values),)),)
        picture = pixels(write_grid(Grid("T", "", rows, categories, value_range, "log p"), tmp_path / "g.png")[0])
        heights.append(len(picture))
    assert heights[0] > heights[1] > heights[2]


def test_contradictory_grids_are_refused() -> None:
    rows = (PanelRow("", (panel(3),)),)
    with pytest.raises(ValueError, match="has no panels"):
        Grid("T", "", (PanelRow("", ()),))
    with pytest.raises(ValueError, match="not both"):
        Grid("T", "", rows, ("a",), (0.0, 1.0))
    with pytest.raises(ValueError, match="finite"):
        Grid("T", "", rows, (), (0.0, np.nan))
    with pytest.raises(ValueError, match="panel_px"):
        Grid("T", "", rows, panel_px=3)


def test_a_failing_panel_leaves_the_old_picture(tmp_path: Path) -> None:
    (path,) = write_grid(grid(2), tmp_path / "grid.png")
    before = path.read_bytes()
    rows = (
        PanelRow("", (panel(3),)),
        PanelRow("", (Panel("bad", np.zeros((1, 2), np.float32), np.array([7], np.int32)),)),
    )
    with pytest.raises(ValueError, match="category 7"):
        write_grid(Grid("T", "", rows, ("a", "b")), path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["grid.png"]


def test_png_writer_keeps_pixels_and_refuses_what_does_not_fit(tmp_path: Path) -> None:
    rng = np.random.default_rng(secrets.randbits(32))
    image = rng.integers(0, 256, (301, 77, 3)).astype(np.uint8)
    path = tmp_path / "p.png"
    with PngWriter(path, 77, 301) as png:
        for start, stop in ((0, 1), (1, 200), (200, 301)):
            png.write(image[start:stop])
    np.testing.assert_array_equal(pixels(path), image)
    with pytest.raises(ValueError, match="1 of 301 rows"), PngWriter(tmp_path / "q.png", 77, 301) as png:
        png.write(image[:1])
    with pytest.raises(ValueError, match="77 px wide"), PngWriter(tmp_path / "q.png", 77, 301) as png:
        png.write(image[:, :5])
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]


def test_rows_align_by_relative_depth() -> None:
    assert columns_by_depth(3, 9) == [0, 4, 8] and columns_by_depth(1, 9) == [0] and columns_by_depth(0, 9) == []
    for depth in range(2, 40):
        columns = columns_by_depth(depth, 40)
        assert columns[0] == 0 and columns[-1] == 39 and columns == sorted(set(columns))
    aligned = aligned_by_depth(grid(5, 3))
    assert [p is not None for p in aligned.rows[1].panels] == [True, False, True, False, True]
    with pytest.raises(ValueError, match="do not fit"):
        columns_by_depth(5, 4)


def test_labels_are_encoded_and_the_rarest_share_a_category() -> None:
    categories, codes = encode_labels(["b", "", "a", "b"])
    assert categories == ("a", "b") and codes.tolist() == [1, -1, 0, 1] and codes.dtype == np.int32
    labels = [f"{i:03}" for i in range(120) for _ in range(1 + (i < 99))] + [""]
    categories, codes = encode_labels(labels)
    assert len(categories) == 100 and categories[-1] == OTHER and "098" in categories and "099" not in categories
    assert codes[-1] == -1 and codes[-2] == 99 and (codes == 99).sum() == 21
    assert encode_labels([])[0] == ()


def test_colours_of_the_source_experiment_do_not_depend_on_order() -> None:
    assert category_hex(["Montreal", "Toronto"]) == ["#0072B2", "#D55E00"]
    assert category_hex(["Toronto", "Ottawa", "Montreal"]) == ["#D55E00", "#009E73", "#0072B2"]
    assert len(set(category_hex([str(i) for i in range(7)]))) == 7


def test_lines_of_text_are_no_wider_than_asked() -> None:
    face = font(14)
    text = "Lorem ipsum dolor sit amet, " * 8 + "x" * 200 + "\nnext\tline \u0007"
    lines = wrapped(text, face, 300)
    assert len(lines) > 5 and lines[-1] == "next line" and all(width_px(line, face) <= 300 for line in lines)
    assert fitted("short", face, 300) == "short" and fitted("x" * 99, face, 60).endswith("…")
