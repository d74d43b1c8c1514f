"""Colours of labels that readers of normal sight and colour-blind ones can tell apart, and legends of many labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drillcore.pictures.colors import NO_LABEL_HEX, category_hex, line_hex, rgb
from drillcore.pictures.data import Grid, Panel, PanelRow
from drillcore.pictures.grid.write import write_grid

# Machado, Oliveira and Fernandes (2009), severity 1, for linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)


def lab(colors: list[str], sight: str) -> np.ndarray:
    """Colours in CIE L*a*b* as a reader sees them, [N, 3]."""
    srgb = np.array([rgb(color) for color in colors]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ SIGHT[sight].T, 0, 1) @ TO_XYZ.T / np.array([0.95047, 1, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize(("labels", "apart"), [(7, 17.8), (20, 17.8), (50, 10.5), (100, 7.0)])
def test_labels_can_be_told_apart(labels: int, apart: float, sight: str) -> None:
    seen = lab(category_hex([f"label {i}" for i in range(labels)]), sight)
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert distances.min() >= apart


def test_lines_have_other_colours_than_labels() -> None:
    assert not {c.lower() for c in line_hex(8)} & {c.lower() for c in (*category_hex(["a"] * 7), NO_LABEL_HEX)}


@pytest.mark.parametrize("name", ["{}", "a label of many words, that is number {} of all of them"])
def test_the_legend_of_many_labels_is_no_taller_than_two_panels(name: str, tmp_path: Path) -> None:
    codes = np.arange(100, dtype=np.int32)
    panel = Panel("p", np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32), codes)
    heights = []
    for count in (2, 100):
        shown = Panel("p", panel.points_N2[:count], codes[:count])
        labels = tuple(name.format(i) for i in range(count))
        (path,) = write_grid(Grid("t", "", (PanelRow("", (shown,)),), labels), tmp_path / f"{count}.png")
        with Image.open(path) as image:
            heights.append(image.height)
    assert heights[1] - heights[0] < 400
