"""Grids against matplotlib and datamapplot, and reports: time of drawing and writing, size, time to open.

    python -m benchmarks.parts.pictures [--quick] [--repeats R] [--datamapplot-python PYTHON] [--browser] [--out FILE]

Contenders take turns within a round, on the same clouds of two labels; every figure is a written PNG. `cpu` is the
process's CPU time, `cold` that of the first grid in a fresh process, imports and numba's compiling included.
datamapplot draws one panel at a time and is timed on a few; it runs under the Python given (by default that of
.venv-peers, see `make bench-peers`). `--browser` opens reports in a headless Chromium. Exit status 1 where a target is
missed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT, child_cpu, make_parser, parse, scratch_folder, write_results

QUICK = {"points": 6000, "most_points": 20_000, "repeats": 1}
LABELS = ("Montreal", "Toronto")
COLORS = ("#0072B2", "#D55E00")
PX = 200
PEERS = ROOT / ".venv-peers/bin/python"
PEER_PANELS = 3
# Required: matplotlib's time over ours for 31 x 100,000; CPU seconds for 31 x 1,000,000; ours over the
# fastest matplotlib way for 310 x 50.
TARGETS = {"faster_than_scatter": 50.0, "million_cpu_seconds": 3.0, "small_over_fastest": 1.0}


def clouds(panels: int, points: int) -> tuple[list[Any], Any]:
    """Points of each panel, float32 [points, 2], and their labels' indexes."""
    rng, codes = np.random.default_rng(0), (np.arange(points) % 2).astype(np.int32)
    shift = rng.normal(size=(panels, 2, 2)) * 3
    return [(shift[p][codes] + rng.normal(size=(points, 2))).astype(np.float32) for p in range(panels)], codes


def drillcore_grid(xys: list[Any], codes: Any, rows: int, path: Path) -> None:
    """Ours."""
    from drillcore.pictures.data import Grid, Panel, PanelRow
    from drillcore.pictures.grid.write import write_grid

    wide = len(xys) // rows
    lines = (
        PanelRow(f"model {r}", tuple(Panel(f"block_{c}", xys[r * wide + c], codes) for c in range(wide)))
        for r in range(rows)
    )
    write_grid(Grid("benchmark", "", tuple(lines), LABELS), path, columns=wide)


def matplotlib_scatter(xys: list[Any], codes: Any, rows: int, path: Path) -> None:
    """The way that is written most often: an axes a panel, `scatter`."""
    from matplotlib.figure import Figure

    wide, colors = len(xys) // rows, np.array(COLORS)[codes]
    figure = Figure(figsize=(wide * PX / 100, rows * PX / 100), dpi=100)
    for i, (ax, xy) in enumerate(zip(figure.subplots(rows, wide, squeeze=False).flat, xys, strict=True)):
        ax.scatter(xy[:, 0], xy[:, 1], c=colors, s=16 if len(xy) < 5000 else 1)
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"block_{i}", fontsize=8)
    figure.savefig(path)


def matplotlib_fastest(xys: list[Any], codes: Any, rows: int, path: Path) -> None:
    """The fastest way found: a single axes for all panels, a marker line for each label."""
    from matplotlib.figure import Figure

    wide, placed = len(xys) // rows, []
    figure = Figure(figsize=(wide * PX / 100, rows * PX / 100), dpi=100)
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, wide), ylim=(0, rows))
    ax.set_axis_off()
    for i, xy in enumerate(xys):
        row, column = divmod(i, wide)
        placed.append((xy - xy.min(axis=0)) / np.ptp(xy, axis=0).max() * 0.9 + [column + 0.05, rows - 1 - row + 0.02])
        ax.text(column + 0.5, rows - row - 0.01, f"block_{column}", ha="center", va="top", fontsize=8)
    all_xy, all_codes = np.concatenate(placed), np.tile(codes, len(xys))
    for code, color in enumerate(COLORS):
        xy = all_xy[all_codes == code]
        ax.plot(xy[:, 0], xy[:, 1], "o" if len(xys[0]) < 5000 else ",", ms=4, mew=0, color=color)
    figure.savefig(path)


def timed(draw: Callable[[], None]) -> dict[str, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    draw()
    return {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


def compare(panels: int, points: int, rows: int, repeats: int, folder: Path, ways: tuple[Any, ...]) -> dict[str, Any]:
    """Every way in turn, as often as asked; medians."""
    xys, codes = clouds(panels, points)
    seconds: dict[str, list[dict[str, float]]] = {way.__name__: [] for way in ways}
    for way in ways:  # imports and compiling; what they cost stands under `cold`
        few_xys, few_codes = clouds(2, min(points, 6000))
        way(few_xys, few_codes, 1, folder / "warm.png")
    for number in range(repeats):
        for way in ways if number % 2 == 0 else ways[::-1]:
            seconds[way.__name__].append(timed(lambda way=way: way(xys, codes, rows, folder / f"{way.__name__}.png")))
    medians = {
        name: {key: statistics.median(one[key] for one in times) for key in times[0]} for name, times in seconds.items()
    }
    return {"panels": panels, "points": points, "rows": rows, "ways": medians, "all": seconds}


def cold(panels: int, points: int, rows: int, folder: Path) -> float:
    """CPU seconds of a fresh process that makes the clouds and draws them, less one that only makes them."""
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import benchmarks.parts.pictures as b; "
        f"from pathlib import Path; x, c = b.clouds({panels}, {points})"
    )
    drawn = f"{script}; b.drillcore_grid(x, c, {rows}, Path({str(folder / 'cold.png')!r}))"
    return child_cpu([sys.executable, "-c", drawn]) - child_cpu([sys.executable, "-c", script])


PEER = """
import sys, time, numpy as np, matplotlib
matplotlib.use("Agg")
import datamapplot
folder, panels = sys.argv[1], int(sys.argv[2])
data = np.load(folder + "/clouds.npz")
labels = np.array(["Montreal", "Toronto"])[data["codes"]]
def draw(xy):
    figure, _ = datamapplot.create_plot(xy, labels, figsize=(2, 2), dpi=100)
    figure.savefig(folder + "/datamapplot.png")
    matplotlib.pyplot.close("all")
draw(data["xys"][0])
cpu, wall = time.process_time(), time.perf_counter()
for p in range(panels):
    draw(data["xys"][p])
print((time.perf_counter() - wall) / panels, (time.process_time() - cpu) / panels, datamapplot.__version__)
"""


def datamapplot_panel(python: str, points: int, folder: Path) -> dict[str, Any]:
    """Seconds a panel of datamapplot, warm."""
    xys, codes = clouds(PEER_PANELS, points)
    np.savez(folder / "clouds.npz", xys=np.stack(xys), codes=codes)
    command = [python, "-W", "ignore", "-c", PEER, str(folder), str(PEER_PANELS)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"absent": done.stderr.strip().splitlines()[-1:]}
    wall, cpu, version = done.stdout.split()[-3:]
    return {"wall_seconds_a_panel": float(wall), "cpu_seconds_a_panel": float(cpu), "version": version}


def report_figures(sentences: int, folder: Path, browser: bool) -> dict[str, Any]:
    """Size, time of writing and, in a browser, seconds from opening until the first grid is painted."""
    from drillcore.pictures.data import Grid, Panel, PanelRow, Report, ReportDataset
    from drillcore.pictures.report.write import write_report

    xys, codes = clouds(31, sentences)
    words = np.random.default_rng(1).choice([f"word{i}" for i in range(2000)], (sentences, 14))
    texts = [" ".join(line) for line in words.tolist()]
    row = PanelRow("model", tuple(Panel(f"block_{i}", xy, codes) for i, xy in enumerate(xys)))
    page = Report("benchmark", "", (), (), (ReportDataset("texts", texts, Grid("texts", "", (row,), LABELS)),))
    path = folder / f"report-{sentences}.html"
    figures: dict[str, Any] = {"sentences": sentences, **timed(lambda: write_report(page, path) and None)}
    figures["bytes"] = path.stat().st_size
    if browser:
        figures["open_seconds"] = open_seconds(path)
    return figures


def open_seconds(path: Path) -> float:
    """Seconds from opening a report in Chromium until its first panels are painted."""
    import shutil

    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), headless=True, args=flags)
        page = chromium.new_page(viewport={"width": 1400, "height": 1000})
        started = time.perf_counter()
        page.goto(path.as_uri())
        while not page.evaluate(
            "[...document.querySelectorAll('.face canvas')].filter((c) => c.width !== 300).length > 6"
        ):
            time.sleep(0.01)
        return time.perf_counter() - started


def table(facts: dict[str, Any]) -> str:
    """What to read first."""
    lines = ["| grid | way | wall s | cpu s |", "| --- | --- | ---: | ---: |"]
    for run in facts["grids"]:
        for name, times in run["ways"].items():
            seconds = f"{times['wall_seconds']:.3f} | {times['cpu_seconds']:.3f}"
            lines.append(f"| {run['panels']} × {run['points']:,} | {name} | {seconds} |")
    lines += [f"| {key} | | | {value:.2f} |" for key, value in facts["figures"].items()]
    lines += [
        "",
        f"datamapplot, a panel: {facts['datamapplot']}",
        *(f"report: {figures}" for figures in facts["reports"]),
    ]
    return "\n".join(lines)


def arguments() -> Any:
    """The command line."""
    parser = make_parser(__doc__, quick="few points, one round")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--points", type=int, default=100_000, help="of a panel")
    parser.add_argument("--most-points", type=int, default=1_000_000, help="of a panel of the largest grid")
    parser.add_argument("--datamapplot-python", default=str(PEERS if PEERS.exists() else sys.executable))
    parser.add_argument("--browser", action="store_true")
    return parse(parser, QUICK)


def all_grids(options: Any, folder: Path) -> list[dict[str, Any]]:
    """31 panels of many points, 31 of most, and 310 of 50."""
    ways = (drillcore_grid, matplotlib_scatter, matplotlib_fastest)
    return [
        compare(31, options.points, 1, max(1, options.repeats // 2), folder, ways),
        compare(31, options.most_points, 1, options.repeats, folder, ways[:1]),
        compare(310, 50, 10, options.repeats, folder, ways),
    ]


def figures_of(grids: list[dict[str, Any]], most_points: int, folder: Path) -> dict[str, float]:
    """The figures that have targets, and CPU seconds of first grids in fresh processes."""
    large, million, small = (run["ways"] for run in grids)
    return {
        "faster_than_scatter": large["matplotlib_scatter"]["cpu_seconds"] / large["drillcore_grid"]["cpu_seconds"],
        "million_cpu_seconds": million["drillcore_grid"]["cpu_seconds"],
        "small_over_fastest": small["drillcore_grid"]["cpu_seconds"] / small["matplotlib_fastest"]["cpu_seconds"],
        "million_cold_cpu_seconds": cold(31, most_points, 1, folder),
        "small_cold_cpu_seconds": cold(310, 50, 10, folder),
    }


def main() -> int:
    """Run, print, write; 1 where a target is missed."""
    options = arguments()
    with scratch_folder(options, "pictures") as folder:
        grids = all_grids(options, folder)
        facts = {
            "targets": TARGETS,
            "figures": figures_of(grids, options.most_points, folder),
            "grids": grids,
            "datamapplot": datamapplot_panel(options.datamapplot_python, options.points, folder),
            "reports": [report_figures(n, folder, options.browser) for n in (50, options.points)],
        }
    print(table(facts))
    write_results("pictures", options, facts)
    figures = facts["figures"]
    met = (
        figures["faster_than_scatter"] >= TARGETS["faster_than_scatter"],
        figures["million_cpu_seconds"] <= TARGETS["million_cpu_seconds"],
        figures["small_over_fastest"] <= TARGETS["small_over_fastest"],
    )
    return 0 if options.quick or all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
