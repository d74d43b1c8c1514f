"""The job: its parts, as frozen, closed pydantic models, and where it was read from.

Units, meanings and defaults stand at the fields. Reading a job file and its errors is `file`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from drillcore.job.choices import did_you_mean, shortened
from drillcore.job.common import Closed, Name, expand, in_place
from drillcore.job.extract import Extract
from drillcore.job.groups import Group, groups_of, positions_of
from drillcore.job.inputs import Dataset
from drillcore.job.model import Model
from drillcore.job.positions import Position
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

    @field_validator("store")
    @classmethod
    def _not_on_the_hub(cls, value: str | None) -> str | None:
        if value is not None and value.startswith("hf:"):
            raise ValueError("is on the hub, where stores are read only: run into a folder, and `drillcore push` that")
        return value

    @field_validator("models", mode="before")
    @classmethod
    def _one_model(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("datasets", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """One path, or a mapping of names to datasets or paths, as a list."""
        if isinstance(value, str):
            return [value]
        if not isinstance(value, dict):
            return value
        if "path" in value:
            raise ValueError("`path` is a field of one dataset: begin that with `- `, or with its name and a colon")
        return [_named(str(name), given) for name, given in value.items()]

    @model_validator(mode="after")
    def _places_exist(self) -> Job:
        for dataset in self.datasets:
            problem = _problem_with_positions(dataset, positions_of(self, dataset), self.extract.too_long)
            if problem:
                raise ValueError(f"datasets: {dataset.name}: {problem}")
        return self

    @model_validator(mode="after")
    def _distinct(self) -> Job:
        for kind, names in (
            ("models", [m.group for m in self.models]),
            ("datasets", [d.name for d in self.datasets]),
        ):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                remedy = (
                    "give one of them another name with `as:`"
                    if kind == "models"
                    else "give one of them another `name:`"
                )
                raise ValueError(f"{kind}: {', '.join(twice)} is named twice; {remedy}")
        return self

    @model_validator(mode="after")
    def _tested_datasets_exist(self) -> Job:
        by_name = {dataset.name: dataset for dataset in self.datasets}
        for dataset in self.datasets:
            problem = "" if dataset.tested_on is None else _problem_with_test(dataset, dataset.tested_on, by_name)
            if problem:
                raise ValueError(f"datasets: {dataset.name}: split: {problem}")
        return self

    @property
    def groups(self) -> tuple[Group, ...]:
        """What each model's states are stored in: every dataset at every position."""
        return groups_of(self)

    @property
    def extracting(self) -> Extract:
        """How states are taken, with the positions of all datasets: what a backend must be able to give."""
        every = [position for dataset in self.datasets for position in positions_of(self, dataset)]
        if all(position in self.extract.positions for position in every):
            return self.extract
        distinct = tuple(p for i, p in enumerate(every) if p not in every[:i])
        return self.extract.model_copy(update={"positions": distinct})

    @property
    def measured_groups(self) -> tuple[Group, ...]:
        """Those of them that are measured, projected and drawn."""
        return tuple(group for group in self.groups if group.position.is_measured)


def _named(name: str, given: Any) -> dict[str, Any]:
    """A dataset that stands under its name."""
    dataset = given if isinstance(given, dict) else {"path": given}
    if dataset.get("name", name) != name:
        raise ValueError(f"{name}: is called {dataset['name']} too; leave out its `name:`")
    return {**dataset, "name": name}


def _problem_with_test(dataset: Dataset, test: str, by_name: dict[str, Dataset]) -> str:
    """Why a dataset's probe cannot be tested on another one; empty where it may be, as far as the job tells."""
    if test == dataset.name:
        return "it is tested on another dataset, and names itself; without `split` the probe is cross-validated"
    if test not in by_name:
        others = [name for name in by_name if name != dataset.name]
        return f"there is no dataset {shortened(test)}{did_you_mean(test, others)}"
    if by_name[test].split_field is not None:
        field = shortened(by_name[test].split_field)
        return (
            f"{test} has a split of its own, by the field {field}, and all of its rows would be tested; take that out"
        )
    for name, each in ((dataset.name, dataset), (test, by_name[test])):
        if each.label_field is None:
            return f"{name} has no labels, which both need"
    fields = (by_name[test].label_field, *by_name[test].more_labels)
    if dataset.more_labels or by_name[test].more_labels:
        lacking = [name for name in (dataset.label_field, *dataset.more_labels) if name not in fields]
        if lacking:
            named = ", ".join(shortened(str(name)) for name in lacking)
            return f"{test} lacks the label {named}: where there are several, `labels` of both name the same fields"
    return ""


def _problem_with_positions(dataset: Dataset, positions: tuple[Position, ...], too_long: str) -> str:
    """Why a dataset has no such places; empty where it may have them."""
    kinds = [position.kind for position in positions]
    others = [position for position in positions if not position.is_last]
    if not any(p.is_last for p in positions) and (dataset.expected_next is not None or dataset.candidates):
        return "expected_next and candidates follow the last token; add `last` to the positions"
    for names, what in ((dataset.branches, "branch"), (dataset.templates, "template")):
        shared = sorted({*names} & {position.called for position in positions})
        if shared:
            return f"{shared[0]} is the name of a position and of a {what}"
    if "turns" in kinds and dataset.messages is None:
        return "turns are those of a conversation: the dataset names no field of `messages`"
    characters = next((kind for kind in ("span", "text") if kind in kinds), None)
    if characters is not None and dataset.messages is not None:
        return f"{characters}: names characters of a sentence, and a conversation has none; take turns or `after`"
    if too_long == "truncate" and (others or dataset.writes_after):
        what = "other places than the last token" if others else "what the template writes after a sentence"
        return f"extract.too_long: truncate may cut off {what}; leave long sentences out, or `too_long: error`"
    return ""


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

    def paths(self, dataset: Dataset) -> list[Path]:
        """Where a dataset's files are, patterns as they are; none of a data set of the hub."""
        if dataset.hub is not None:
            return []
        return [in_place(self.base / expand(path)) for path in dataset.paths]

    def called(self, dataset: Dataset) -> str:
        """What messages call the dataset: its file, the first of several, or its address on the hub."""
        return str(self.paths(dataset)[0]) if dataset.hub is None else dataset.hub.address
