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
from drillcore.pictures.frame import Frame, outside
from drillcore.pictures.marks import Pile, beside, with_numbers, with_outliers

FEW_POINTS = 5_000
SUPERSAMPLING = 2
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


def shade(
    panels: Iterable[Panel | None],
    panel_px: int,
    palette: Palette,
    *,
    every_point: bool = False,
    ground: str | None = "white",
) -> list[RGB | None]:
    """Each panel as RGB on white, uint8 [panel_px, panel_px, 3]; None where there is no finite point to draw.

    every_point: draw all points to scale; by default a few that are far away are triangles at the edges. ground: None
    for RGBA on no ground, uint8 [panel_px, panel_px, 4], without numbers and triangles.

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
            strip = _few([(panel, frame) for _, panel, frame in waiting], panel_px, palette, ground)
            for (i, _, _), image in zip(waiting, strip, strict=True):
                images[i] = image
            waiting.clear()

    for panel in panels:
        images.append(None)
        frame = None if panel is None or panel.degenerate else Frame.around(panel.points_N2, every=every_point)
        if panel is None or frame is None:
            continue
        if len(panel.points_N2) > FEW_POINTS:
            images[-1] = _many(panel, frame, panel_px, palette, ground)
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


def number_px(panel_px: int) -> int:
    """Size of the numbers beside piles, in pixels."""
    return max(9, round(panel_px / 18))


def _few(framed: Sequence[tuple[Panel, Frame]], panel_px: int, palette: Palette, ground: str | None) -> Iterator[RGB]:
    size, parts = panel_px * SUPERSAMPLING, []
    units = [frame.unit(panel.points_N2) for panel, frame in framed]
    nobody = np.empty(0, np.int64)
    outsiders = [nobody if f.is_whole else outside(u) for (_, f), u in zip(framed, units, strict=True)]
    for position, (unit_N2, out_M) in enumerate(zip(units, outsiders, strict=True)):
        # Centres of pixels: at an edge, rounding would depend on the panel's position among the others.
        parts.append(np.floor(unit_N2 * size) + np.array([0.5 + position * size, 0.5]))
        parts[-1][out_M] = np.nan
    codes_N = np.concatenate([palette.codes(panel) for panel, _ in framed])
    reach_N = np.repeat([0.6 * disc_px(len(p), panel_px) for p in parts], [len(p) for p in parts])
    spots_N2 = np.concatenate(parts)
    xy_N2, sizes_N = beside(spots_N2, codes_N, reach_N)
    canvas = ds.Canvas(size * len(framed), size, (0, size * len(framed)), (0, size))
    points = pd.DataFrame({"x": xy_N2[:, 0], "y": xy_N2[:, 1], "code": codes_N})
    # The last point in a pixel gives its colour: a mixture would be a colour that is not in the legend.
    codes_YX = canvas.points(points, "x", "y", ds.last("code")).values
    rgba = np.zeros(codes_YX.shape, np.uint32)
    drawn = ~np.isnan(codes_YX)
    table = palette.table.astype(np.uint32)
    opaque = np.uint32(0xFF000000) | table[:, 2] << 16 | table[:, 1] << 8 | table[:, 0]
    rgba[drawn] = opaque[codes_YX[drawn].astype(np.int64)]
    ends, has_piles = np.cumsum([0, *map(len, parts)]), int(sizes_N.max(initial=1)) > 1
    for position, (panel, _) in enumerate(framed):
        image = tf.Image(rgba[:, position * size : (position + 1) * size], dims=["y", "x"])
        disc = disc_px(len(panel.points_N2), panel_px)
        reduced = _reduced(tf.spread(image, px=disc, shape="circle"), ground)
        if ground is None:
            yield reduced
            continue
        own, out_M = slice(ends[position], ends[position + 1]), outsiders[position]
        corner, piles = np.array([position * size, 0.0]), list[Pile]()
        if has_piles:
            piles = _piles(spots_N2[own] - corner, sizes_N[own], disc * 1.6 / SUPERSAMPLING, panel_px)
        marked = with_outliers(reduced, units[position][out_M], palette.table[codes_N[own][out_M]], number_px(panel_px))
        yield with_numbers(marked, piles, number_px(panel_px))


def _piles(spots_N2: NDArray[np.float64], sizes_N: NDArray[np.int64], reach: float, panel_px: int) -> list[Pile]:
    """The spots of a panel with more than one point. spots_N2: in supersampled pixels, y upwards."""
    chosen = np.flatnonzero((sizes_N > 1) & np.isfinite(spots_N2[:, 0]))
    if not len(chosen):
        return []
    spots, first = np.unique(spots_N2[chosen], axis=0, return_index=True)
    xy = spots / SUPERSAMPLING
    return [
        Pile(x, panel_px - y, int(sizes_N[chosen[i]]), reach)
        for (x, y), i in zip(xy.tolist(), first.tolist(), strict=True)
    ]


def _reduced(image: tf.Image, ground: str | None) -> RGB:
    pixels = image.values
    if ground is None:
        # Weighted by opacity, so that what is transparent has no colour.
        rgba = Image.frombuffer("RGBA", pixels.shape[::-1], pixels, "raw", "RGBA", 0, 1).convert("RGBa")
        return np.asarray(rgba.reduce(SUPERSAMPLING).convert("RGBA"))[::-1]
    pixels[pixels == 0] = 0xFFFFFFFF
    rgbx = Image.frombuffer("RGBX", pixels.shape[::-1], pixels, "raw", "RGBX", 0, 1).reduce(SUPERSAMPLING)
    return np.asarray(rgbx)[::-1, :, :3]


def _many(panel: Panel, frame: Frame, panel_px: int, palette: Palette, ground: str | None) -> RGB:
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
    if ground is None:
        return np.asarray(image.to_pil())
    # Without a background, dropping the alpha channel would change the colours.
    pixels = np.asarray(tf.set_background(image, "white").to_pil().convert("RGB"))
    if frame.is_whole:
        return pixels
    unit_N2 = frame.unit(panel.points_N2)
    out_M = outside(unit_N2)
    return with_outliers(pixels, unit_N2[out_M], palette.table[palette.codes(panel)[out_M]], number_px(panel_px))


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
