"""Running a job from Python, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from drillcore.api.given import AnyPath
from drillcore.api.job import Job, asked_job, nearby
from drillcore.api.page import table
from drillcore.api.progress import listener
from drillcore.errors import JobError
from drillcore.job.choices import did_you_mean
from drillcore.runtime.manifest import read_manifest
from drillcore.runtime.runner import run_stages
from drillcore.runtime.stages import ALL_STAGES
from drillcore.system.progress import ProgressListener

if TYPE_CHECKING:
    import xarray as xr

PICTURES = (".png", ".svg")


@dataclass(frozen=True)
class Run:
    """A run that came to its end. It stands for its store's address wherever that is wanted.

    job: what was run. store: path or s3:// address. folder: beside the store, with manifest, pictures and report.
    report: the HTML file, pictures: image files; None and () where nothing was drawn. seconds: of each stage.
    """

    job: Job
    store: str
    folder: Path
    report: Path | None
    pictures: tuple[Path, ...]
    seconds: Mapping[str, float]

    def open(self, *, internals: bool = False) -> xr.DataTree:
        """The store as `drillcore.open` gives it."""
        from drillcore.api.stores import open

        return open(self.store, internals=internals)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "job": self.job.name,
            "store": self.store,
            "folder": str(self.folder),
            "report": None if self.report is None else str(self.report),
            "pictures": [str(path) for path in self.pictures],
            "seconds": dict(self.seconds),
        }

    def __fspath__(self) -> str:
        return self.store

    def __str__(self) -> str:
        return self.store

    def __repr__(self) -> str:
        return f"Run(store={nearby(self.store)!r}, folder={nearby(str(self.folder))!r}, seconds={dict(self.seconds)})"

    def _repr_html_(self) -> str:
        rows = [("store", nearby(self.store)), ("folder", nearby(str(self.folder)))]
        rows += [("report", nearby(str(self.report)))] if self.report else []
        rows += [(f"picture {path.stem}", nearby(str(path))) for path in self.pictures]
        rows += [(f"seconds of {stage}", f"{seconds:,.1f}") for stage, seconds in self.seconds.items()]
        return table(f"Run of {self.job.name}", (), rows)


def run(
    job: Job | AnyPath | Mapping[str, Any],
    *,
    set: Sequence[str] = (),
    store: AnyPath | None = None,
    overwrite: bool = False,
    limit: int | None = None,
    stages: Literal["all"] | Sequence[str] = "all",
    progress: bool | ProgressListener | None = None,
) -> Run:
    """Run a job: a `Job`, a job file, or a mapping such as a job file holds. What is already done is skipped.

    set: overrides such as `extract.dtype=float32`. store: in place of the job's. overwrite: whether states may be
    computed again, or dropped, where the job changed; it is refused with StoreError otherwise. limit: the first
    sentences of each dataset, into a store of their own. stages: `all`, or some of extract, measure, predict, project
    and render. progress: True shows it in a notebook or on standard error; or a listener
    (`drillcore.system.progress.ProgressListener`). Raises the errors of `drillcore.errors`.

    >>> result = drillcore.run("job.yaml", set=["render.panel_px=150"])
    >>> result.report.name, list(result.seconds)
    ('report.html', ['extract', 'measure', 'predict', 'project', 'render'])
    >>> drillcore.open(result)["model/sentences"].sizes["sentence"]
    12
    """
    chosen = chosen_stages(stages)
    heard = listener(progress, logged=False)
    asked = asked_job(job, set, store, limit)
    folder = run_stages(asked.loaded, chosen, heard, overwrite=overwrite)
    return ended(asked, chosen, folder)


def ended(asked: Job, chosen: Sequence[str], folder: Path) -> Run:
    """A run of some stages that came to its end, given the folder beside the store."""
    recorded = read_manifest(folder / "manifest.json")["stages"]
    seconds = {s: float(recorded[s]["wall_seconds"]) for s in chosen if "wall_seconds" in recorded.get(s, {})}
    report, drawn = folder / "report.html", "render" in chosen
    pictures = (folder / "pictures").iterdir() if drawn and (folder / "pictures").is_dir() else ()
    return Run(
        job=asked,
        store=asked.store,
        folder=folder,
        report=report if drawn and report.exists() else None,
        pictures=tuple(sorted(path for path in pictures if path.suffix in PICTURES)),
        seconds=seconds,
    )


def chosen_stages(stages: Literal["all"] | Sequence[str]) -> tuple[str, ...]:
    """Stages in the order of a run; raises JobError for one that there is not."""
    if stages == "all":
        return ALL_STAGES
    named = [stages] if isinstance(stages, str) else list(stages)
    for name in named:
        if name not in ALL_STAGES:
            raise JobError(
                f"there is no stage {name}{did_you_mean(name, ALL_STAGES)}", hint=f"Any of {', '.join(ALL_STAGES)}."
            )
    if not named:
        raise JobError("stages: names no stage", hint=f"Any of {', '.join(ALL_STAGES)}.")
    return tuple(stage for stage in ALL_STAGES if stage in named)
