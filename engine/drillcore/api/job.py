"""A job as a Python value: built from typed arguments, checked at once, loaded from a job file and saved as one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel

from drillcore.api import given
from drillcore.api.page import table
from drillcore.api.texts import are_files
from drillcore.errors import CommitError, JobError
from drillcore.job.common import expand, in_place
from drillcore.job.fields import Job as Fields
from drillcore.job.fields import LoadedJob
from drillcore.job.file import checked_job, limited_store, load_job
from drillcore.job.inputs import Dataset
from drillcore.job.model import Model, is_local
from drillcore.job.overrides import override
from drillcore.system.bounds import problem_with_output, real_path
from drillcore.system.files import canonical, write_atomic

# Positions that have a short form, as they are dumped.
SHORT: dict[str, dict[str, Any]] = {"last": {"last": 1, "name": ""}, **{k: {k: {}} for k in ("mean", "all", "turns")}}


class Job:
    """One run: models × datasets, from sentences to pictures.

    models: hub ids, directories (beginning with . or /, or a Path) or mappings. datasets: files or mappings by name,
    or a list of mappings. name: of the job, and in the default address of its store. store: path or s3:// address.
    extract, measure, project, render, run: the sections of a job file. base: folder that relative paths start from, by
    default the working directory. Every argument takes what a job file takes: `drillcore schema job` describes it.

    Jobs cannot be changed; equal ones do the same with the same store. Raises JobError, which lists every mistake.

    >>> job = Job(models=["./model"], datasets={"sentences": "sentences.jsonl"}, extract={"layers": [0, 2]})
    >>> job
    Job(name='job', models=['model'], datasets=['sentences'], store='runs/job.zarr')
    >>> print(job.to_yaml(), end="")
    models:
    - ./model
    datasets:
      sentences: sentences.jsonl
    extract:
      layers:
      - 0
      - 2
    """

    _loaded: LoadedJob

    def __init__(
        self,
        *,
        models: given.AnyPath
        | given.ModelFields
        | Mapping[str, Any]
        | Sequence[given.AnyPath | given.ModelFields | Mapping[str, Any]],
        datasets: Mapping[str, given.AnyPath | given.DatasetFields | Mapping[str, Any]]
        | Sequence[given.DatasetFields | Mapping[str, Any]],
        name: str = "job",
        store: given.AnyPath | None = None,
        extract: given.ExtractFields | Mapping[str, Any] | None = None,
        measure: given.MeasureFields | Mapping[str, Any] | None = None,
        project: given.ProjectFields | Mapping[str, Any] | None = None,
        render: given.RenderFields | Mapping[str, Any] | None = None,
        run: given.RunFields | Mapping[str, Any] | None = None,
        base: given.AnyPath | None = None,
    ) -> None:
        sections = {"extract": extract, "measure": measure, "project": project, "render": render, "run": run}
        _refuse_tables(datasets, Path(os.fspath(base or ".")))
        given_ = {"name": name, "store": store, "datasets": datasets, **sections}
        value = {field: _plain(v) for field, v in given_.items() if v is not None}
        value["models"] = _models(models)
        self._loaded = LoadedJob(
            job=checked_job(value), base=real_path(expand(os.fspath(base or "."))), source=f"{_stem(name)}.yaml"
        )

    @classmethod
    def of(cls, loaded: LoadedJob) -> Self:
        """The job of one that the engine has read."""
        job = cls.__new__(cls)
        job._loaded = loaded
        return job

    @classmethod
    def load(
        cls,
        path: given.AnyPath,
        *,
        set: Sequence[str] = (),
        store: given.AnyPath | None = None,
        limit: int | None = None,
    ) -> Self:
        """Read a job file. set: overrides such as `extract.dtype=float32`. store: in place of the job's.

        limit: the first sentences of each dataset, with a store of their own. Raises JobError, which lists every
        mistake with its line.

        >>> Job.load("job.yaml", limit=3).store
        '...job-limit3.zarr'
        """
        return cls.of(load_job(Path(path), set, None if store is None else os.fspath(store), limit))

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], *, set: Sequence[str] = (), base: given.AnyPath | None = None) -> Self:
        """The job that a mapping describes, as a job file would. set: overrides, as for `load`.

        >>> Job.from_dict({"models": ["./model"], "datasets": {"d": "d.txt"}}).datasets[0].name
        'd'
        """
        plain = _plain(value)
        made = override(plain, set)
        name = plain.get("name", "job")
        plain["models"] = _models(plain.get("models", []))
        folder = real_path(expand(os.fspath(base or ".")))
        return cls.of(LoadedJob(job=checked_job(plain, made), base=folder, source=f"{_stem(name)}.yaml"))

    def changed(self, *, set: Sequence[str] = (), store: given.AnyPath | None = None, limit: int | None = None) -> Job:
        """The job with some fields changed; the arguments are those of `load`. Raises JobError.

        Datasets are named in overrides, not numbered.

        >>> job = Job(models=["./model"], datasets={"d": "d.txt"})
        >>> job.changed(set=["datasets.d.text=sentence", "extract.layers=hf"]).fields.extract.layers
        'hf'
        """
        if not set and store is None and limit is None:
            return self
        if limit is not None and limit < 1:
            raise JobError(f"limit: {limit} is less than 1", hint="Pass a number of sentences, or leave it out.")
        value = _dumped(self._loaded.job)
        made = override(value, set)
        loaded = self._loaded.model_copy(update={"job": checked_job(value, made)})
        if store is not None:
            place = os.fspath(store)
            address = place if place.startswith(("s3://", "hf://")) else str(in_place(expand(place)))
            loaded = loaded.model_copy(update={"job": loaded.job.model_copy(update={"store": address})})
        return Job.of(loaded if limit is None else _limited(loaded, limit, own_store=store is None))

    @property
    def loaded(self) -> LoadedJob:
        """The job as the engine takes it."""
        return self._loaded

    @property
    def name(self) -> str:
        """Name of the job."""
        return self._loaded.job.name

    @property
    def store(self) -> str:
        """Path or s3:// address of the store."""
        return self._loaded.store

    @property
    def base(self) -> Path:
        """Folder that relative paths start from."""
        return self._loaded.base

    @property
    def models(self) -> tuple[Model, ...]:
        """The models, with all their fields."""
        return self._loaded.job.models

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """The datasets, with all their fields."""
        return self._loaded.job.datasets

    @property
    def fields(self) -> Fields:
        """Everything that the job says, defaults included: `job.fields.extract.dtype`."""
        return self._loaded.job

    def to_dict(self) -> dict[str, Any]:
        """What differs from the defaults, JSON-ready, as a job file has it; paths stay relative to `base`.

        >>> Job(models=["./model"], datasets={"d": "d.txt"}).to_dict()
        {'models': ['./model'], 'datasets': {'d': 'd.txt'}}
        """
        return _short_form(self._loaded.job)

    def to_yaml(self) -> str:
        """The text of a job file: what differs from the defaults; paths stay relative to `base`."""
        text: str = yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=120)
        return text

    def save(self, path: given.AnyPath, *, overwrite: bool = False) -> Path:
        """Write a job file that loads to an equal job; returns its path.

        Relative paths are written as seen from the file's folder. Raises JobError where there is a file already, unless
        `overwrite`, and CommitError where it cannot be written.

        >>> job = Job.load("job.yaml")
        >>> Job.load(job.save("copy.yaml")) == job
        True
        """
        file = expand(os.fspath(path))
        problem = problem_with_output(file)
        if problem:
            raise JobError(f"{file} {problem}", hint="Name another file.")
        if file.exists() and not overwrite:
            raise JobError(f"{file} exists already", hint="Name another file, or pass overwrite=True.")
        moved = Job.of(_moved(self._loaded, file))
        value = moved.to_dict()
        if moved.name != file.stem:
            value = {"name": moved.name, **value}
        else:
            value.pop("name", None)
        text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)
        try:
            write_atomic(file, text.encode())
        except OSError as error:
            raise CommitError(f"{file} could not be written: {error.strerror or error}", hint="Name another.") from None
        return file

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> bytes:
        """What the job does, whatever its paths are relative to."""
        loaded = self._loaded
        job: dict[str, Any] = loaded.job.model_dump(mode="json", by_alias=True)
        job["store"] = loaded.store
        for dataset, dumped in zip(loaded.job.datasets, job["datasets"], strict=True):
            dumped["path"] = [str(path) for path in loaded.paths(dataset)] or dataset.path
        for model in job["models"]:
            for name in ("id", "tokenizer"):
                if model[name] is not None and is_local(model[name]):
                    model[name] = str(real_path(loaded.base / expand(model[name])))
        return canonical(job)

    def __repr__(self) -> str:
        models, datasets = [m.group for m in self.models], [d.name for d in self.datasets]
        return f"Job(name={self.name!r}, models={models}, datasets={datasets}, store={nearby(self.store)!r})"

    def _repr_html_(self) -> str:
        rows = [("store", nearby(self.store))]
        rows += [(f"model {m.group}", m.id) for m in self.models]
        rows += [
            (f"dataset {d.name}", ", ".join(nearby(str(path)) for path in self._loaded.paths(d)) or str(d.path))
            for d in self.datasets
        ]
        sections = {k: v for k, v in self.to_dict().items() if isinstance(v, dict) and k != "datasets"}
        rows += [(section, ", ".join(f"{k}: {v}" for k, v in fields.items())) for section, fields in sections.items()]
        return table(f"Job {self.name}", (), rows)


def asked_job(
    job: Job | given.AnyPath | Mapping[str, Any], set: Sequence[str], store: given.AnyPath | None, limit: int | None
) -> Job:
    """The job that a caller named: a `Job`, a job file, or a mapping such as a job file holds; raises JobError."""
    if isinstance(job, Job):
        return job.changed(set=set, store=store, limit=limit)
    if isinstance(job, Mapping):
        return Job.from_dict(job, set=set).changed(store=store, limit=limit)
    return Job.load(job, set=set, store=store, limit=limit)


def _folders(model: Model) -> list[tuple[str, str]]:
    """Fields of a model that name a folder."""
    places = (("id", model.id), ("tokenizer", model.tokenizer), ("adapter", model.adapter))
    return [(name, place) for name, place in places if place is not None and is_local(place)]


def nearby(path: str) -> str:
    """A path relative to the working directory where it lies below it."""
    if path.startswith("s3://"):
        return path
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _plain(value: Any) -> Any:
    """A value in the kinds that a job file has: paths are texts, arrays and ranges lists."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if isinstance(value, Mapping):
        return {name: _plain(v) for name, v in value.items()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple | range):
        return [_plain(v) for v in value]
    return _plain(value.tolist()) if hasattr(value, "tolist") else value


def _refuse_tables(datasets: Any, base: Path) -> None:
    """Raise JobError for texts in memory where files are named, and for files that might be taken for such."""
    each = {f"datasets.{name}": value for name, value in datasets.items()} if isinstance(datasets, Mapping) else {}
    for where, value in {"datasets": datasets, **each}.items():
        if hasattr(value, "columns") or (hasattr(value, "dtype") and hasattr(value, "__len__")):
            kind = type(value).__name__
        elif where != "datasets" and isinstance(value, list | tuple):
            if are_files(value, base):
                raise JobError(
                    f"{where}: a list would be texts in memory, and these are files",
                    hint=f'Name several files of one dataset as {{"path": {[os.fspath(v) for v in value]}}}.',
                )
            kind = "list"
        else:
            continue
        raise JobError(
            f"{where}: a {kind} is no file, and a job reads texts from files",
            hint="Write it (to_parquet or to_csv) and name the file, or pass texts to drillcore.extract. Several files "
            'of one dataset are named {"path": [...]}.',
        )


def _models(models: Any) -> Any:
    """The models as a list; a Path is a directory, whatever it begins with."""
    several = [models] if isinstance(models, str | os.PathLike | Mapping | BaseModel) else models
    if not isinstance(several, list | tuple):
        return _plain(several)
    return [{**m, "id": _id(m["id"])} if isinstance(m, Mapping) and "id" in m else _id(m) for m in several]


def _id(model: Any) -> Any:
    if not isinstance(model, os.PathLike):
        return _plain(model)
    path = os.fspath(model)
    return path if is_local(path) else f"./{path}"


def _limited(loaded: LoadedJob, limit: int, *, own_store: bool) -> LoadedJob:
    """The first sentences of each dataset; own_store: with a store of their own beside the job's."""
    datasets = tuple(d.model_copy(update={"limit": min(limit, d.limit or limit)}) for d in loaded.job.datasets)
    store = limited_store(loaded.store, limit) if own_store else loaded.job.store
    return loaded.model_copy(update={"job": loaded.job.model_copy(update={"datasets": datasets, "store": store})})


def _stem(name: object) -> str:
    """What the default store is called after; a wrong name is a mistake of its own."""
    return name if isinstance(name, str) and name and "/" not in name else "job"


def _short_form(job: Fields) -> dict[str, Any]:
    value = _dumped(job)
    value["models"] = [m["id"] if set(m) == {"id"} else m for m in value["models"]]
    for section in (value.get("extract", {}), *value["datasets"].values()):
        if section.get("positions") is not None:
            section["positions"] = [_short_position(position) for position in section["positions"]]
    value["datasets"] = {
        name: d["path"] if set(d) == {"path"} and isinstance(d["path"], str) else d
        for name, d in value["datasets"].items()
    }
    return value


def _dumped(job: Fields) -> dict[str, Any]:
    """What differs from the defaults, JSON-ready; models and datasets are mappings, datasets by name."""
    value: dict[str, Any] = job.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    value["datasets"] = {dataset.pop("name"): dataset for dataset in value["datasets"]}
    return value


def _short_position(position: dict[str, Any]) -> Any:
    return next((short for short, dumped in SHORT.items() if position == dumped), position)


def _moved(loaded: LoadedJob, file: Path) -> LoadedJob:
    """The same job for a job file elsewhere: relative paths as seen from its folder."""
    folder = real_path(file).parent

    def all_seen(path: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return seen(path) if isinstance(path, str) else tuple(map(seen, path))

    def seen(path: str) -> str:
        if expand(path).is_absolute() or path.startswith(("s3://", "hf:/")):
            return path
        relative = Path(os.path.relpath(in_place(loaded.base / path), folder)).as_posix()
        return relative if not is_local(path) or is_local(relative) else f"./{relative}"

    job = loaded.job
    datasets = tuple(d.model_copy(update={"path": all_seen(d.path)}) for d in job.datasets)
    models = tuple(m.model_copy(update={name: seen(place) for name, place in _folders(m)}) for m in job.models)
    store = None if job.store is None else seen(job.store)
    moved = job.model_copy(update={"datasets": datasets, "models": models, "store": store})
    found = LoadedJob(job=moved, base=folder, source=str(file))
    if found.store == loaded.store:
        return found
    store = Path(os.path.relpath(loaded.store, folder)).as_posix()
    return found.model_copy(update={"job": moved.model_copy(update={"store": store})})
