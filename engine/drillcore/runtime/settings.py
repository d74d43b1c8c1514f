"""Checks what a job says of this machine and of its later stages before anything is loaded or written.

Models, rows and tokens are `preflight`'s; the values of single fields are `job`'s. What this machine has is
checked for the stages that are to run only: a job may be extracted on one machine and projected on another.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from drillcore.backends import REFERENCE, check_backend
from drillcore.errors import JobError, MissingExtraError, StoreError
from drillcore.job.fields import LoadedJob
from drillcore.projections import check_projection
from drillcore.runtime import log
from drillcore.store.places.location import Location
from drillcore.system.bounds import MOST_BYTES, problem_with_folder, problem_with_output
from drillcore.texts.rows import RowTable

if TYPE_CHECKING:
    from drillcore.runtime.executors.base import Executor

# What each stage imports, and the extra that installs it.
PACKAGES = {
    "measure": (("sklearn", "scipy", "threadpoolctl", "joblib"), "umap"),
    "project": (("sklearn",), "umap"),
    "render": (("datashader", "pandas", "PIL", "matplotlib", "colorcet"), "pictures"),
}
# Files beside a store.
WRITTEN = ("manifest.json", "report.html", *log.FILES)
# Coordinates that every dataset gets.
TOKEN_COLUMNS = ("n_tokens", "last_token_id", "row_id")
# Coordinates of groups at other places than the last token, that points may be coloured by.
OF_PLACES = ("token", "token_id", "position", "message", "role", "exact")


def check_settings(loaded: LoadedJob, stages: Sequence[str], executor: Executor) -> None:
    """Check devices, packages and settings of the stages to be run.

    Raises JobError, or MissingExtraError with the remedy. Connects to the Ray cluster that the job names, if any.
    """
    job = loaded.job
    check_projection(job.project, installed="project" in stages)
    for stage in stages:
        packages, extra = PACKAGES.get(stage, ((), ""))
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        if missing:
            raise MissingExtraError(
                f"stage {stage} needs {missing[0]}, which is not installed", hint=f"pip install 'drillcore[{extra}]'"
            )
    if {"extract", "predict"} & set(stages):
        check_backend(job.extract.backend, None, job.extract)
        backend = job.extract.backend
        if job.run.executor != "local" and job.extract.tensor_parallel > 1 and backend in (REFERENCE, "auto"):
            raise JobError(
                f"extract.tensor_parallel in the backend {backend} does not go with run.executor: {job.run.executor}",
                hint="Run it on one machine: leave run.executor out; or extract.backend: vllm.",
            )
        executor.check()


def check_places(location: Location, folder: Path) -> None:
    """Raise StoreError where the store, or the folder beside it, cannot be created or written; writes nothing."""
    for place in (folder,) if location.is_s3 else (location.path, folder):
        if problem := problem_with_folder(place):
            raise StoreError(f"{place} cannot be a folder: it {problem}", hint="Name another place.")
        standing = next(p for p in (place.absolute(), *place.absolute().parents) if p.exists() or p.is_symlink())
        if not standing.is_dir():
            raise StoreError(f"{place} cannot be a folder: {standing} is a file", hint="Name another place.")
        if not os.access(standing, os.W_OK | os.X_OK):
            raise StoreError(
                f"{place} cannot be written: {standing} allows no writing",
                hint="Change its permissions, or name another place.",
            )
    around = next((p for p in (folder.absolute(), *folder.absolute().parents) if (p / "zarr.json").is_file()), None)
    if around is not None:
        raise StoreError(
            f"{folder}, the folder for manifest, pictures and report, lies in the store {around}",
            hint="Name another folder with --out, or another store.",
        )
    pictures = folder / "pictures"
    if pictures.is_symlink() and not pictures.is_dir():
        raise StoreError(f"{pictures} cannot be a folder: it is a link to none", hint="Move it away.")
    if problem := problem_with_folder(pictures):
        raise StoreError(f"{pictures} cannot be a folder: it {problem}", hint="Move it away, or name another --out.")
    drawn = sorted(path for path in (*pictures.glob("*.png"), *pictures.glob("*.json")))
    for path in (*(folder / name for name in WRITTEN), *drawn):
        if problem := problem_with_output(path, MOST_BYTES if path.suffix == ".json" else None):
            raise StoreError(f"{path}, which a run writes, {problem}", hint="Move it away, or name another --out.")


def check_pictures(loaded: LoadedJob, tables: Iterable[RowTable], layers: dict[str, tuple[int, ...]]) -> None:
    """Raise JobError where the job colours by what no dataset has, or draws layers that no model has.

    layers: numbers that each model stores, by its group.
    """
    more = OF_PLACES if any(not group.position.is_last for group in loaded.job.groups) else ()
    known = sorted({*TOKEN_COLUMNS, *more, *(name for table in tables for name in table.slice(0, 0).schema.names)})
    color, wanted = loaded.job.render.color, loaded.job.render.layers
    if color not in (*known, "label"):
        shown = ", ".join(name for name in known if name not in ("text", "row_id"))
        raise JobError(
            f"render.color: no dataset has a coordinate {color}",
            hint=f"One of {shown}; further fields of the texts come in by `keep`.",
        )
    if not isinstance(wanted, tuple):
        return
    nowhere = [n for n in wanted if not any(n in stored for stored in layers.values())]
    empty = [name for name, stored in layers.items() if not set(wanted) & set(stored)]
    if nowhere or empty or not wanted:
        what = f"layer {nowhere[0]} is in no model's store" if nowhere else f"no layer of {', '.join(empty)} is chosen"
        ranges = "; ".join(f"{name}: {_ranges(stored)}" for name, stored in layers.items())
        raise JobError(f"render.layers: {what}", hint=f"There are {ranges}.")


def _ranges(layers: Sequence[int]) -> str:
    whole = list(layers) == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]} to {layers[-1]}" if whole else ", ".join(map(str, layers))
