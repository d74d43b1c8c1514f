"""The job: its parts, as frozen, closed pydantic models, and where it was read from.

Units, meanings and defaults stand at the fields. Reading a job file and its errors is `file`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from drillcore.job.common import Closed, Name, expand, in_place
from drillcore.job.extract import Extract
from drillcore.job.groups import Group, groups_of
from drillcore.job.inputs import Dataset, Model
from drillcore.job.stages import Measure, Project, Render, Run


class Job(Closed):
    """One run: models × datasets, from sentences to pictures."""

    name: Name = "job"
    """Name of the job; by default the job file's stem."""
    store: str | None = None
    """Path or s3:// address of the store; by default runs/<job-stem>.zarr. Paths are relative to the job file."""
    models: Annotated[tuple[Model, ...], Field(min_length=1)]
    datasets: Annotated[tuple[Dataset, ...], Field(min_length=1)]
    extract: Extract = Extract()
    measure: Measure = Measure()
    project: Project = Project()
    render: Render = Render()
    run: Run = Run()

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        value = dict(value)
        if isinstance(value.get("models"), list):
            value["models"] = [{"id": m} if isinstance(m, str) else m for m in value["models"]]
        if isinstance(value.get("datasets"), dict):
            named = value["datasets"].items()
            value["datasets"] = [{**(d if isinstance(d, dict) else {"path": d}), "name": str(n)} for n, d in named]
        return value

    @model_validator(mode="after")
    def _predicts_from_last(self) -> Job:
        if any(position.is_last for position in self.extract.positions):
            return self
        for dataset in self.datasets:
            if dataset.expected_next is not None or dataset.candidates:
                raise ValueError(
                    f"datasets: {dataset.name}: expected_next and candidates follow the last token; add `last` to "
                    "extract.positions"
                )
        return self

    @model_validator(mode="after")
    def _distinct(self) -> Job:
        for kind, names in (
            ("models", [m.group for m in self.models]),
            ("datasets", [d.name for d in self.datasets]),
        ):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                remedy = "give one of them another name with `as:`" if kind == "models" else "names must differ"
                raise ValueError(f"{kind}: {', '.join(twice)} is named twice; {remedy}")
        return self

    @property
    def groups(self) -> tuple[Group, ...]:
        """What each model's states are stored in: every dataset at every position."""
        return groups_of(self)

    @property
    def measured_groups(self) -> tuple[Group, ...]:
        """Those of them that are measured, projected and drawn."""
        return tuple(group for group in self.groups if group.position.is_measured)


class LoadedJob(Closed):
    """A job together with where it was read from."""

    job: Job
    base: Path
    """Folder that relative paths start from."""
    source: str
    """The job file, as the user named it."""

    @property
    def store(self) -> str:
        """Path or s3:// address of the store."""
        named = self.job.store
        if named is None:
            return str(self.base.absolute() / self._default)
        return named if named.startswith("s3://") else str(in_place(self.base / expand(named)))

    @property
    def former_store(self) -> str | None:
        """Where the default store was while it was relative to the working directory; None where that changes nothing.

        A job that names its store has no default.
        """
        former = str(Path.cwd() / self._default)
        return None if self.job.store is not None or former == self.store else former

    @property
    def _default(self) -> Path:
        return Path("runs") / f"{Path(self.source).stem}.zarr"

    def path(self, dataset: Dataset) -> Path:
        """Where a dataset's file is."""
        return in_place(self.base / expand(dataset.path))
