"""Grids against matplotlib and datamapplot, and reports: time of drawing and writing, size, time to open.

    python -m benchmarks.parts.pictures [--quick] [--repeats R] [--datamapplot-python PYTHON] [--browser] [--out FILE]

Contenders take turns within a round, on the same clouds of two labels; every figure is a written PNG. `cpu` is the
process's CPU time, `cold` that of the first grid in a fresh process, imports and numba's compiling included.
datamapplot draws one panel at a time and is timed on a few; it runs under the Python given (by default that of
.venv-peers, see `make bench-peers`). `--browser` opens reports in a headless Chromium. Exit status 1 where a target is
missed.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
LABELS = ("Montreal", "Toronto")
COLORS = ("#0072B2", "#D55E00")
PX = 200
PEERS = ROOT / ".venv-peers/bin/python"
PEER_PANELS = 3
# What must be shown: matplotlib's time over ours for 31 x 100,000; CPU seconds for 31 x 1,000,000; ours over the
# fastest matplotlib way for 310 x 50.
TARGETS = {"faster_than_scatter": 50.0, "million_cpu_seconds": 3.0, "small_over_fastest": 1.0}


def clouds(panels: int, points: int) -> tuple[list[Any], Any]:
    """Points of each panel, float32 [points, 2], and their labels' indexes."""
    rng, codes = np.random.default_rng(0), (np.arange(points) % 2).astype(np.int32)
    shift = rng.normal(size=(panels, 2, 2)) * 3
    return [(shift[p][codes] + rng.normal(size=(points, 2))).astype(np.float32) for p in range(panels)], codes


def drillcore_grid(xys: list[Any], codes: Any, rows: int, path: Path) -> None:
    """Ours."""
    from drillcore.pictures.data import Grid, Panel, Row
    from drillcore.pictures.grid.write import write_grid

    wide = len(xys) // rows
    lines = (
        Row(f"model {r}", tuple(Panel(f"block_{c}", xys[r * wide + c], codes) for c in range(wide)))
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
        mine = all_xy[all_codes == code]
        ax.plot(mine[:, 0], mine[:, 1], "o" if len(xys[0]) < 5000 else ",", ms=4, mew=0, color=color)
    figure.savefig(path)


def timed(draw: Callable[[], None]) -> dict[str, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    draw()
    return {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


def compare(panels: int, points: int, rows: int, repeats: int, folder: Path, ways: tuple[Any, ...]) -> dict[str, Any]:
    """Every way in turn, as often as asked; medians."""
    xys, codes = clouds(panels, points)
    found: dict[str, list[dict[str, float]]] = {way.__name__: [] for way in ways}
    for way in ways:  # imports and compiling; what they cost stands under `cold`
        few_xys, few_codes = clouds(2, min(points, 6000))
        way(few_xys, few_codes, 1, folder / "warm.png")
    for number in range(repeats):
        for way in ways if number % 2 == 0 else ways[::-1]:
            found[way.__name__].append(timed(lambda way=way: way(xys, codes, rows, folder / f"{way.__name__}.png")))
    medians = {
        name: {key: statistics.median(one[key] for one in times) for key in times[0]} for name, times in found.items()
    }
    return {"panels": panels, "points": points, "rows": rows, "ways": medians, "all": found}


def cold(panels: int, points: int, rows: int, folder: Path) -> float:
    """CPU seconds of a fresh process that makes the clouds and draws them, less one that only makes them."""
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import benchmarks.parts.pictures as b; "
        f"from pathlib import Path; x, c = b.clouds({panels}, {points})"
    )
    drawn = f"{script}; b.drillcore_grid(x, c, {rows}, Path({str(folder / 'cold.png')!r}))"
    return child_cpu([sys.executable, "-c", drawn]) - child_cpu([sys.executable, "-c", script])


def child_cpu(command: list[str]) -> float:
    """CPU seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


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
    from drillcore.pictures.data import Grid, Panel, Report, ReportDataset, Row
    from drillcore.pictures.report.write import write_report

    xys, codes = clouds(31, sentences)
    words = np.random.default_rng(1).choice([f"word{i}" for i in range(2000)], (sentences, 14))
    texts = [" ".join(line) for line in words.tolist()]
    row = Row("model", tuple(Panel(f"block_{i}", xy, codes) for i, xy in enumerate(xys)))
    page = Report("benchmark", "", (), (), (ReportDataset("texts", texts, Grid("texts", "", (row,), LABELS)),))
    path = folder / f"report-{sentences}.html"
    found: dict[str, Any] = {"sentences": sentences, **timed(lambda: write_report(page, path) and None)}
    found["bytes"] = path.stat().st_size
    if browser:
        found["open_seconds"] = open_seconds(path)
    return found


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
    lines += ["", f"datamapplot, a panel: {facts['datamapplot']}", *(f"report: {found}" for found in facts["reports"])]
    return "\n".join(lines)


def main() -> int:
    """Run, print, write; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few points, one round: does everything work?")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--datamapplot-python", default=str(PEERS if PEERS.exists() else sys.executable))
    parser.add_argument("--browser", action="store_true")
    parser.add_argument("--out", type=Path, help="JSON file (default benchmarks/results/DATE-pictures.json)")
    options = parser.parse_args()
    many, most, repeats = (6_000, 20_000, 1) if options.quick else (100_000, 1_000_000, options.repeats)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ours, scatter, fastest = drillcore_grid, matplotlib_scatter, matplotlib_fastest
        grids = [
            compare(31, many, 1, max(1, repeats // 2), folder, (ours, scatter, fastest)),
            compare(31, most, 1, repeats, folder, (ours,)),
            compare(310, 50, 10, repeats, folder, (ours, scatter, fastest)),
        ]
        large, million, small = (run["ways"] for run in grids)
        figures = {
            "faster_than_scatter": large["matplotlib_scatter"]["cpu_seconds"] / large["drillcore_grid"]["cpu_seconds"],
            "million_cpu_seconds": million["drillcore_grid"]["cpu_seconds"],
            "small_over_fastest": small["drillcore_grid"]["cpu_seconds"] / small["matplotlib_fastest"]["cpu_seconds"],
            "million_cold_cpu_seconds": cold(31, most, 1, folder),
            "small_cold_cpu_seconds": cold(310, 50, 10, folder),
        }
        facts = {
            "kind": "drillcore-pictures", "started": time.strftime("%FT%T%z"), "targets": TARGETS, "figures": figures,
            "grids": grids, "datamapplot": datamapplot_panel(options.datamapplot_python, many, folder),
            "reports": [report_figures(n, folder, options.browser) for n in (50, many)],
        }  # fmt: skip
    print(table(facts))
    if not options.quick:
        from drillcore.system.machine import hardware
        from drillcore.system.versions import git_commit, versions

        facts |= {"git_commit": git_commit(), "hardware": hardware(), "versions": versions()}
        out = options.out or ROOT / f"benchmarks/results/{time.strftime('%Y-%m-%d')}-pictures.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(facts, indent=2, default=str) + "\n", encoding="utf-8")
    met = (
        figures["faster_than_scatter"] >= TARGETS["faster_than_scatter"],
        figures["million_cpu_seconds"] <= TARGETS["million_cpu_seconds"],
        figures["small_over_fastest"] <= TARGETS["small_over_fastest"],
    )
    return 0 if options.quick or all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
