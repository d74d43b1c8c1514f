"""The render stage: grids, curves and the report, each drawn again only where what it shows has changed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from drillcore.pictures.curves import write_curves
from drillcore.pictures.grid.write import write_grid
from drillcore.runtime.context import Context
from drillcore.runtime.stages.render.curves import CurvesPlan, curve_plans
from drillcore.runtime.stages.render.grids import GridPlan, build_grid, grid_plans
from drillcore.runtime.stages.render.layers import check_layers, check_projected
from drillcore.runtime.stages.render.report import REPORT, draw_report, report_inputs
from drillcore.system.files import digest, write_atomic

# Another look of what is drawn from the same data; counted up, all pictures are drawn again.
LOOK = 2
NOTES = "made_from.json"


@dataclass(frozen=True)
class Picture:
    """A file or files to draw. inputs: what it depends on, JSON-ready. draw: writes and names the files."""

    name: str
    inputs: Any
    draw: Callable[[], list[Path]]


def render(context: Context) -> None:
    """Draw every picture whose inputs changed since it was last drawn.

    Raises RunError where there is no projection, or the job asks for layers or colours that are not there.
    """
    started = time.perf_counter()
    check_layers(context)
    check_projected(context)
    folder = context.out / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    pictures = list(_pictures(context, folder))
    context.listener.start("render", len(pictures), "pictures")
    notes, drawn = _read_notes(folder), 0
    for picture in pictures:
        drawn += _redraw(picture, folder, notes)
        context.listener.advance(1)
    context.manifest.record("stages", "render", wall_seconds=round(time.perf_counter() - started, 3))
    context.listener.finish(f"pictures: {drawn} drawn, {len(pictures) - drawn} there already, in {folder}")
    context.listener.say(f"report: {(context.out / REPORT).absolute()}")


def _pictures(context: Context, folder: Path) -> Iterator[Picture]:
    job = context.job
    settings = [LOOK, job.render.model_dump(mode="json"), job.project.method]
    grids, curves = grid_plans(context), curve_plans(context)
    for grid in grids:
        yield Picture(grid.name, [*settings, grid.inputs(job.project.method)], partial(_grid, context, grid, folder))
    for plan in curves:
        yield Picture(plan.name, [LOOK, plan.inputs()], partial(_curves, plan, folder))
    shown = [*settings, report_inputs(context), [plan.inputs() for plan in curves]]
    yield Picture(REPORT, shown, lambda: [draw_report(context, curves)])


def _grid(context: Context, plan: GridPlan, folder: Path) -> list[Path]:
    job = context.job
    grid = build_grid(plan, job.render, job.project)
    return write_grid(grid, folder / f"{plan.name}.png", tile_px=job.render.tile_px)


def _curves(plan: CurvesPlan, folder: Path) -> list[Path]:
    charts = plan.charts()
    return [write_curves(charts, folder / f"{plan.name}.png")] if charts else []


def _redraw(picture: Picture, folder: Path, notes: dict[str, Any]) -> bool:
    """Draw a picture unless it is there as it must be; True where it was drawn."""
    made_from, before = digest(picture.inputs), notes.get(picture.name)
    old = before["files"] if isinstance(before, dict) else []
    if isinstance(before, dict) and before["made_from"] == made_from and all((folder / f).exists() for f in old):
        return False
    files = [_beside(path, folder) for path in picture.draw()]
    for gone in set(old) - set(files):
        (folder / gone).unlink(missing_ok=True)
    notes[picture.name] = {"made_from": made_from, "files": files}
    write_atomic(folder / NOTES, json.dumps(notes, indent=2, sort_keys=True).encode())
    return bool(files)


def _beside(path: Path, folder: Path) -> str:
    return path.name if path.parent == folder else f"../{path.name}"


def _read_notes(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / NOTES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
