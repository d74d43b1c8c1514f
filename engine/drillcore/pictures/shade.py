"""Panels to pixels by datashader: one recipe for few points, one for many.

Up to 5,000 points: aggregate at twice the size, spread each point to a disc, and reduce by averaging, so that single
sentences are visible. Several panels are aggregated in one call, because a call has a fixed cost that would dominate.
More points: count them in each pixel; the opacity comes from histogram equalisation over the panel, the colour is the
mean of the labels' colours.

Shape legend: N points, Y X pixels, C categories, 2 axes, 3 red-green-blue.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import datashader as ds
import datashader.transfer_functions as tf
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from drillcore.pictures.colors import NUM_STEPS, category_table, value_steps, value_table
from drillcore.pictures.data import Grid, Panel

FEW_POINTS = 5_000
SUPERSAMPLING = 2
MARGIN = 0.05  # of a panel's width, on each side
MAX_CELLS = 1 << 23  # of an aggregate: 64 MB of float64
MIN_ALPHA = 100  # opacity of a pixel with a single point, of 255
RGB = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Palette:
    """Colours of a grid. table: RGB, uint8 [C + 1, 3]; the last row is for points without label or value."""

    table: NDArray[np.uint8]
    value_range: tuple[float, float] | None

    @classmethod
    def of(cls, grid: Grid) -> Palette:
        """The palette for the categories or values of a grid."""
        continuous = grid.value_range is not None
        return cls(value_table() if continuous else category_table(grid.categories), grid.value_range)

    def codes(self, panel: Panel) -> NDArray[np.int32]:
        """Row of the table for each point, int32 [N]. Raises ValueError for a value that has no colour in the grid."""
        last = len(self.table) - 1
        if self.value_range is not None:
            return value_steps(panel.values_N.astype(np.float64), *self.value_range)
        if panel.values_N.dtype.kind == "f":
            raise ValueError(f"Panel {panel.title!r} has continuous values, but its grid has no value_range")
        codes_N = panel.values_N.astype(np.int32)
        if codes_N.size and int(codes_N.max()) >= last:
            raise ValueError(f"Panel {panel.title!r}: category {int(codes_N.max())}, but the grid names {last}")
        return np.where(codes_N < 0, np.int32(last), codes_N)


@dataclass(frozen=True)
class Frame:
    """The square of the projection that a panel shows, at the same scale on both axes.

    x, y: its centre. half: half its side.
    """

    x: float
    y: float
    half: float

    @classmethod
    def around(cls, points_N2: NDArray[np.float32]) -> Frame | None:
        """The square around all finite points, with a margin; None where no point is finite.

        >>> Frame.around(np.array([[0, 0], [9, 1], [np.nan, 0]], np.float32))
        Frame(x=4.5, y=0.5, half=5.0)
        """
        if not points_N2.size:
            return None
        # Column by column: NumPy reduces along the long axis of [N, 2] many times slower.
        ends = [(float(column.min()), float(column.max())) for column in points_N2.T]
        if not np.isfinite(ends).all():
            return cls.around(points_N2[np.isfinite(points_N2).all(axis=1)])
        half = max(high - low for low, high in ends) / 2 / (1 - 2 * MARGIN)
        x, y = ((low + high) / 2 for low, high in ends)
        # Float32 cannot resolve smaller squares around this centre.
        return cls(x, y, max(half, 1e-6 * max(abs(x), abs(y), 1e-3)))


def shade(panels: Iterable[Panel | None], panel_px: int, palette: Palette) -> list[RGB | None]:
    """Each panel as RGB on white, uint8 [panel_px, panel_px, 3]; None where there is no finite point to draw.

    Panels are taken one at a time, so that at most two of many points are in memory at once.

    >>> unknown = Panel("block_1", np.full((2, 2), np.nan, np.float32), np.array([0, 1], np.int32))
    >>> shade([unknown], 200, Palette(category_table(["Montreal", "Toronto"]), None))
    [None]
    """
    images: list[RGB | None] = []
    waiting: list[tuple[int, Panel, Frame]] = []
    at_once = max(1, MAX_CELLS // (panel_px * SUPERSAMPLING) ** 2)

    def draw_waiting() -> None:
        if waiting:
            strip = _few([(panel, frame) for _, panel, frame in waiting], panel_px, palette)
            for (i, _, _), image in zip(waiting, strip, strict=True):
                images[i] = image
            waiting.clear()

    for panel in panels:
        images.append(None)
        frame = None if panel is None or panel.degenerate else Frame.around(panel.points_N2)
        if panel is None or frame is None:
            continue
        if len(panel.points_N2) > FEW_POINTS:
            images[-1] = _many(panel, frame, panel_px, palette)
        else:
            waiting.append((len(images) - 1, panel, frame))
        if len(waiting) == at_once:
            draw_waiting()
    draw_waiting()
    return images


def disc_px(num_points: int, panel_px: int) -> int:
    """Radius of a point in the supersampled image, in its pixels: smaller for more points, larger for larger panels.

    >>> disc_px(50, 200), disc_px(5_000, 200)
    (6, 2)
    """
    crowding = float(min(1.5, (200 / max(num_points, 1)) ** 0.3))
    return max(1, round(panel_px * SUPERSAMPLING / 100 * crowding))


def _few(framed: Sequence[tuple[Panel, Frame]], panel_px: int, palette: Palette) -> Iterator[RGB]:
    size, parts = panel_px * SUPERSAMPLING, []
    for position, (panel, frame) in enumerate(framed):
        unit_N2 = (panel.points_N2.astype(np.float64) - (frame.x, frame.y)) / (2 * frame.half) + 0.5
        # Centres of pixels: at an edge, rounding would depend on the panel's position among the others.
        parts.append(np.floor(unit_N2 * size) + np.array([0.5 + position * size, 0.5]))
    codes_N = np.concatenate([palette.codes(panel) for panel, _ in framed])
    reach_N = np.repeat([0.6 * disc_px(len(p), panel_px) for p in parts], [len(p) for p in parts])
    xy_N2 = _beside(np.concatenate(parts), codes_N, reach_N)
    canvas = ds.Canvas(size * len(framed), size, (0, size * len(framed)), (0, size))
    points = pd.DataFrame({"x": xy_N2[:, 0], "y": xy_N2[:, 1], "code": codes_N})
    # The last point in a pixel gives its colour: a mixture would be a colour that is not in the legend.
    codes_YX = canvas.points(points, "x", "y", ds.last("code")).values
    rgba = np.zeros(codes_YX.shape, np.uint32)
    drawn = ~np.isnan(codes_YX)
    table = palette.table.astype(np.uint32)
    opaque = np.uint32(0xFF000000) | table[:, 2] << 16 | table[:, 1] << 8 | table[:, 0]
    rgba[drawn] = opaque[codes_YX[drawn].astype(np.int64)]
    for position, (panel, _) in enumerate(framed):
        image = tf.Image(rgba[:, position * size : (position + 1) * size], dims=["y", "x"])
        spread = tf.spread(image, px=disc_px(len(panel.points_N2), panel_px), shape="circle")
        yield _reduced(spread)


def _beside(
    xy_N2: NDArray[np.float64], codes_N: NDArray[np.int32], reach_N: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The points, but those of several labels on one spot side by side, so that no label hides another.

    reach_N: how far such a point is moved from the spot, in pixels.
    """
    spots, spot_N = np.unique(xy_N2[:, 0] * 2.0**20 + xy_N2[:, 1], return_inverse=True)
    if len(spots) == len(xy_N2):
        return xy_N2
    # The distinct labels of each spot in order; a label's rank among them gives the direction in which it moves.
    pairs, pair_N = np.unique(spot_N * 2**20 + codes_N, return_inverse=True)
    of_pair = pairs // 2**20
    first_of_spot, labels_of_spot = np.unique(of_pair, return_index=True, return_counts=True)[1:]
    turn_N = 2 * np.pi * ((np.arange(len(pairs)) - first_of_spot[of_pair]) / labels_of_spot[of_pair])[pair_N]
    moved_N2 = np.rint(np.stack([np.cos(turn_N), np.sin(turn_N)], axis=1) * reach_N[:, None])
    return np.where(labels_of_spot[of_pair][pair_N][:, None] > 1, xy_N2 + moved_N2, xy_N2)


def _reduced(image: tf.Image) -> RGB:
    pixels = image.values
    pixels[pixels == 0] = 0xFFFFFFFF
    rgbx = Image.frombuffer("RGBX", pixels.shape[::-1], pixels, "raw", "RGBX", 0, 1).reduce(SUPERSAMPLING)
    return np.asarray(rgbx)[::-1, :, :3]


def _many(panel: Panel, frame: Frame, panel_px: int, palette: Palette) -> RGB:
    span = ((frame.x - frame.half, frame.x + frame.half), (frame.y - frame.half, frame.y + frame.half))
    canvas = ds.Canvas(panel_px, panel_px, *span)
    if palette.value_range is not None:
        image = _mean_values(canvas, panel, palette)
    else:
        image = _mixed_labels(canvas, panel, palette)
    # Where points are sparse in a large panel, a single pixel is too small to be seen.
    px = round((0.02 * panel_px**2 / len(panel.points_N2)) ** 0.5)
    if px:
        image = tf.spread(image, px=px, shape="circle")
    # Without a background, dropping the alpha channel would change the colours.
    return np.asarray(tf.set_background(image, "white").to_pil().convert("RGB"))


def _mean_values(canvas: ds.Canvas, panel: Panel, palette: Palette) -> tf.Image:
    low, high = palette.value_range or (0.0, 1.0)
    points = pd.DataFrame({"x": panel.points_N2[:, 0], "y": panel.points_N2[:, 1], "value": panel.values_N})
    summary = canvas.points(points, "x", "y", ds.summary(mean=ds.mean("value"), count=ds.count()))
    codes_YX = value_steps(summary["mean"].values, low, high)
    return _image(palette.table[np.minimum(codes_YX, NUM_STEPS)], np.where(summary["count"].values > 0, 255, 0))


def _mixed_labels(canvas: ds.Canvas, panel: Panel, palette: Palette) -> tf.Image:
    codes_N = palette.codes(panel)
    points = pd.DataFrame({"x": panel.points_N2[:, 0], "y": panel.points_N2[:, 1]})
    # Sums of red, green and blue, and the number of points.
    sums_YX4 = np.zeros((canvas.plot_height, canvas.plot_width, 4))
    at_once = max(1, 4 * MAX_CELLS // sums_YX4[:, :, 0].size)  # categories
    for first in range(0, len(palette.table), at_once):
        table = palette.table[first : first + at_once].astype(np.float64)
        chosen, labels_N = points, codes_N
        if at_once < len(palette.table):
            inside = (codes_N >= first) & (codes_N < first + at_once)
            chosen, labels_N = points[inside], codes_N[inside] - np.int32(first)
        label = pd.Categorical.from_codes(labels_N, categories=range(len(table)))
        counts_YXC = canvas.points(chosen.assign(label=label), "x", "y", ds.by("label", ds.count())).values
        sums_YX4 += counts_YXC.astype(np.float64) @ np.column_stack([table, np.ones(len(table))])
    total_YX = sums_YX4[:, :, 3].astype(np.uint32)
    counts = tf.Image(total_YX, dims=["y", "x"])
    opacity = tf.shade(counts, cmap="black", how="eq_hist", min_alpha=MIN_ALPHA).values >> 24
    mean_YX3 = np.rint(sums_YX4[:, :, :3] / np.maximum(total_YX, 1)[:, :, None])
    return _image(mean_YX3.astype(np.uint8), opacity)


def _image(color_YX3: NDArray[np.uint8], alpha_YX: NDArray[np.integer]) -> tf.Image:
    color = color_YX3.astype(np.uint32)
    packed = alpha_YX.astype(np.uint32) << 24 | color[..., 2] << 16 | color[..., 1] << 8 | color[..., 0]
    return tf.Image(packed, dims=["y", "x"])
