"""Makes the pictures of docs/ and of the README from a finished run of jobs/demo.yaml.

    python docs/pictures/make.py STORE

Needs Chromium and Playwright for those of the report. Pictures are reduced to 256 colours, so that they stay small.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from PIL import Image

HERE = Path(__file__).parent
MODEL, DATASET = "demo--smollm2-135m-instruct", "incomplete"
COLORS = {"Montreal": "#0072B2", "Toronto": "#D55E00"}


def main() -> None:
    """Make all of them."""
    store = Path(sys.argv[1]).resolve()
    beside = store.with_suffix("")
    drawn = beside / "pictures"
    for name, source in (("grid", f"{MODEL}--{DATASET}"), ("curves", f"{MODEL}--curves")):
        keep(drawn / f"{source}.png", f"demo-{name}.png")
    scatter(zarr.open_group(store, path=f"{MODEL}/{DATASET}", mode="r"))
    screenshots(beside / "report.html")


def keep(path: Path, name: str) -> None:
    """Store a picture, small."""
    with Image.open(path) as image:
        reduced = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    reduced.save(HERE / name, optimize=True)
    print(HERE / name, (HERE / name).stat().st_size)


def scatter(group: zarr.Group) -> None:
    """The grid's points as matplotlib draws them, in the way that is written most often."""
    from matplotlib.figure import Figure

    points, labels, names = (np.asarray(group[name]) for name in ("umap", "label", "layer_name"))
    colors = [COLORS[str(label)] for label in labels]
    figure = Figure(figsize=(17.1, 10.6), dpi=100)
    for ax, xy, name in zip(figure.subplots(4, 8).flat, points, names, strict=True):
        ax.scatter(xy[:, 0], xy[:, 1], c=colors)
        ax.set(xticks=[], yticks=[], title=str(name))
    figure.suptitle(f"{MODEL} · {DATASET}")
    path = HERE / "matplotlib.png"
    figure.savefig(path)
    keep(path, path.name)


def screenshots(report: Path) -> None:
    """The report in a browser: its answer, its curves, and its panels with a sentence pointed at."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-ready=true]")
        page.wait_for_timeout(1000)
        take(page, None, "report-answer.png")
        take(page, "#curves", "report-curves.png")
        section = page.locator("#datasets > section").last
        section.evaluate("node => node.scrollIntoView()")
        page.wait_for_timeout(1000)
        face = section.locator(".face").nth(25)
        box = face.bounding_box()
        # Wherever a point of that panel is first met.
        for step in range(40):
            page.mouse.move(box["x"] + box["width"] * (0.3 + step / 80), box["y"] + box["height"] / 2)
            if page.locator("#tip").is_visible():
                break
        take(page, None, "report.png")
        browser.close()


def take(page: Any, anchor: str | None, name: str) -> None:
    """A picture of what the window shows."""
    if anchor:
        page.locator(anchor).evaluate("node => node.scrollIntoView()")
        page.wait_for_timeout(1000)
    path = HERE / name
    page.screenshot(path=path)
    keep(path, name)


if __name__ == "__main__":
    main()
