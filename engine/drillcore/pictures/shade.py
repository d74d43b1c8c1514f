"""One panel by datashader, readable from a handful of points to millions.

Shape legend: N sentences, P pixels of a panel's side.
"""

from __future__ import annotations

from collections.abc import Sequence

import datashader as ds
import datashader.transfer_functions as tf
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

# Up to here points are drawn as circles, above as density.
FEW = 5000
SUPERSAMPLING = 2
MARGIN = 0.06


def shade_panel(
    points_N2: NDArray[np.float32], values_N: NDArray[np.int32], colors: Sequence[str], panel_px: int
) -> Image.Image:
    """Draw the points of one layer on white, in the colours of their categories."""
    few = len(points_N2) <= FEW
    side = panel_px * (SUPERSAMPLING if few else 1)
    x_range, y_range = _ranges(points_N2)
    names = [str(i) for i in range(len(colors))]
    frame = pd.DataFrame({"x": points_N2[:, 0], "y": points_N2[:, 1]})
    frame["category"] = pd.Categorical.from_codes(values_N, categories=names)
    canvas = ds.Canvas(plot_width=side, plot_height=side, x_range=x_range, y_range=y_range)
    counts = canvas.points(frame, "x", "y", agg=ds.count_cat("category"))
    key = dict(zip(names, colors, strict=True))
    if few:
        image = tf.shade(counts, color_key=key, how="linear", min_alpha=255)
        image = tf.spread(image, px=_radius(len(points_N2), panel_px), shape="circle")
    else:
        image = tf.shade(counts, color_key=key, how="eq_hist", min_alpha=80)
    # The background first: dropping alpha would ruin the colours.
    drawn: Image.Image = tf.set_background(image, "white").to_pil().convert("RGB")
    # datashader's y axis points up, a picture's down: to_pil has turned it already.
    return drawn.resize((panel_px, panel_px), Image.Resampling.LANCZOS) if few else drawn


def _radius(num_points: int, panel_px: int) -> int:
    """Pixels around a point, before downsampling: 5 for a hundred points in 200 px, less where they crowd."""
    crowd = 1.0 if num_points <= 300 else (300 / num_points) ** 0.5
    return max(1, round(5 * panel_px / 200 * crowd))


def _ranges(points_N2: NDArray[np.float32]) -> tuple[tuple[float, float], tuple[float, float]]:
    """A square around the points with a margin, so that turning a layer does not stretch it."""
    low, high = points_N2.min(axis=0).astype(float), points_N2.max(axis=0).astype(float)
    half = max(float((high - low).max()) / 2, 1e-6) * (1 + 2 * MARGIN)
    center = (low + high) / 2
    return (center[0] - half, center[0] + half), (center[1] - half, center[1] + half)
