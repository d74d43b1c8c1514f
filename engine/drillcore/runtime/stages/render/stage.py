"""The render stage: grids, curves and the report, each drawn again only where what it shows has changed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from drillcore.errors import CommitError, RunError
from drillcore.job.stages import Render
from drillcore.pictures.curves import write_curves
from drillcore.pictures.grid.write import write_grid
from drillcore.runtime.context import Context
from drillcore.runtime.failures import Failures
from drillcore.runtime.stages.render.charts import side_by_side
from drillcore.runtime.stages.render.curves import CurvesSpec, curve_specs
from drillcore.runtime.stages.render.grids import GridSpec, build_grid, grid_specs
from drillcore.runtime.stages.render.layers import unprojected
from drillcore.runtime.stages.render.names import main_of
from drillcore.runtime.stages.render.report import REPORT, draw_report, report_inputs
from drillcore.store.places.location import make_folder
from drillcore.system.bounds import objects_in, read_object
from drillcore.system.files import digest, write_atomic

# Version of the pictures' look: to be increased when the same data are drawn in another way; all are drawn again then.
LOOK = 3
NOTES = "made_from.json"
# Settings that the inputs of every picture hold, whatever their value.
ALWAYS = frozenset(("panel_px", "layers", "align_depth", "color", "tile_px"))


@dataclass(frozen=True)
class Picture:
    """A file or files to draw. inputs: what it depends on, JSON-ready. draw: writes the files and returns them."""

    name: str
    inputs: Any
    draw: Callable[[], list[Path]]


def render(context: Context) -> None:
    """Draw every picture whose inputs changed since it was last drawn.

    Raises RunError where nothing is projected, PartFailed, once all others are drawn, where something cannot be.
    """
    started, failures = time.perf_counter(), Failures("render")
    missing = unprojected(context)
    for (model, dataset), why in missing.items():
        with failures.of(f"{model}/{dataset}"):
            raise RunError(why)
    if len(missing) == len(context.inputs.pairs):
        failures.raise_if_any()
    folder = context.out / "pictures"
    make_folder(folder)
    *pictures, report = _pictures(context, folder)
    context.listener.start("render", len(pictures), "pictures")
    notes = {name: n for name, n in objects_in(read_object(folder / NOTES)).items() if _is_note(n)}
    draws_all, drawn = not notes, 0
    for picture in pictures:
        with failures.of(f"picture {picture.name}"):
            drawn += _drawn(picture, folder, notes)
        context.listener.advance(1)
    with failures.of(f"picture {report.name}"):
        _drawn(report, folder, notes)
    _remove_left({picture.name for picture in (*pictures, report)}, folder, notes)
    for pair in context.inputs.pairs if draws_all else ():
        if pair.dataset.position.is_measured:
            context.manifest.did("render", pair.path)
    context.manifest.record("stages", "render", wall_seconds=round(time.perf_counter() - started, 3))
    context.listener.finish(f"pictures: {drawn} drawn, {len(pictures) - drawn} up to date, in {folder}")
    context.listener.say(f"report: {(context.out / REPORT).absolute()}")
    failures.raise_if_any()


def _settings(render: Render) -> dict[str, Any]:
    """The settings of the pictures, without fields that came later and have their default."""
    default = type(render)().model_dump(mode="json")
    return {k: v for k, v in render.model_dump(mode="json").items() if k in ALWAYS or v != default[k]}


def _pictures(context: Context, folder: Path) -> Iterator[Picture]:
    """Grids, curves, and the report as the last."""
    job = context.job
    settings = [LOOK, _settings(job.render), job.project.method]
    grids, curves = grid_specs(context), curve_specs(context)
    for grid in grids:
        yield Picture(grid.name, [*settings, grid.inputs(job.project.method)], partial(_grid, context, grid, folder))
    for spec in curves:
        yield Picture(spec.name, [LOOK, spec.inputs()], partial(_curves, spec, folder))
    shown = [*settings, report_inputs(context), [spec.inputs() for spec in curves]]
    yield Picture(REPORT, shown, lambda: [draw_report(context, curves)])


def _grid(context: Context, spec: GridSpec, folder: Path) -> list[Path]:
    job = context.job
    grid = build_grid(spec, job.render, job.project)
    chosen = job.render.columns
    columns = {"auto": None, "all": grid.num_columns}[chosen] if isinstance(chosen, str) else chosen
    return write_grid(grid, folder / f"{spec.name}.png", columns=columns, tile_px=job.render.tile_px)


def _curves(spec: CurvesSpec, folder: Path) -> list[Path]:
    charts = spec.charts()
    if charts is None:
        return []
    return [write_curves(charts, folder / f"{spec.name}.png", columns=side_by_side(charts.charts))]


def _drawn(picture: Picture, folder: Path, notes: dict[str, Any]) -> bool:
    """`_redraw`, whose files the place may refuse: raises CommitError."""
    try:
        return _redraw(picture, folder, notes)
    except OSError as error:
        raise CommitError(
            f"{error.filename or folder} could not be written: {error.strerror or error}",
            hint="Free space or fix the folder, then run `drillcore render`.",
        ) from error


def _redraw(picture: Picture, folder: Path, notes: dict[str, Any]) -> bool:
    """Draw a picture unless it is up to date; returns whether it was drawn."""
    made_from, before = digest(picture.inputs), notes.get(picture.name, {})
    old = before.get("files", [])
    if before.get("made_from") == made_from and all((folder / f).is_file() for f in old):
        return False
    files = [_beside(path, folder) for path in picture.draw()]
    for outdated in set(old) - set(files):
        (folder / outdated).unlink(missing_ok=True)
    notes[picture.name] = {"made_from": made_from, "files": files}
    _write_notes(folder, notes)
    return bool(files)


def _remove_left(names: set[str], folder: Path, notes: dict[str, Any]) -> None:
    """Remove the pictures of labels that a dataset no longer has beside its main one."""
    left = [n for n in notes if n not in names and main_of(n) in names]
    for name in left:
        for file in notes.pop(name)["files"]:
            (folder / file).unlink(missing_ok=True)
    if left:
        _write_notes(folder, notes)


def _write_notes(folder: Path, notes: dict[str, Any]) -> None:
    write_atomic(folder / NOTES, json.dumps(notes, indent=2, sort_keys=True).encode())


def _is_note(note: dict[str, Any]) -> bool:
    """Whether a note names the files of a picture, in the folder or beside it; outdated ones are removed by it."""
    files = note.get("files")
    return isinstance(files, list) and all(
        isinstance(f, str) and "\0" not in f and Path(f).name == f.removeprefix("../") != ".." for f in files
    )


def _beside(path: Path, folder: Path) -> str:
    return path.name if path.parent == folder else f"../{path.name}"
