"""Reading a job file: its YAML, overrides of its fields, and mistakes that name file, line and field."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from drillcore.errors import JobError
from drillcore.job.choices import nearest
from drillcore.job.common import in_place
from drillcore.job.document import parse
from drillcore.job.fields import Job, LoadedJob
from drillcore.job.mistakes import MOST, Place, mistakes_of
from drillcore.job.overrides import Override, blamed, override, within
from drillcore.system.bounds import read_bytes, real_path
from drillcore.system.tables import SUFFIXES

# Bytes of a job file, which takes seconds to read for each million.
MOST_BYTES = 2**20
# Characters of a path that are repeated.
LONGEST = 300


def load_job(
    path: Path, overrides: Sequence[str] = (), store: str | None = None, limit: int | None = None
) -> LoadedJob:
    """Read and check a job file.

    overrides: `a.b=c`, c being YAML. store: replaces the job's store. limit: caps the sentences of every dataset, and
    the store is one of its own, beside the job's, unless `store` names one. Raises JobError, which lists every mistake
    with its line, or with the override that made it.
    """
    _refuse_other_kinds(path)
    tree, value = parse(_read(path), str(path), "Fix the YAML.")
    if not isinstance(value, dict):
        raise JobError(f"{path}: {_no_mapping(value)}", hint="A job file has at least `models:` and `datasets:`.")
    value.setdefault("name", path.stem)
    made = override(value, overrides)
    if store is not None:
        value["store"] = store if store.startswith(("s3://", "hf://")) else str(in_place(Path(store)))
    job = checked_job(value, made, lambda place: f"{path}:{_line(tree, place)}")
    if limit is not None:
        capped = [d.model_copy(update={"limit": min(limit, d.limit or limit)}) for d in job.datasets]
        job = job.model_copy(update={"datasets": tuple(capped)})
    loaded = LoadedJob(job=job, base=real_path(path).parent, source=str(path))
    if limit is None or store is not None:
        return loaded
    return loaded.model_copy(update={"job": job.model_copy(update={"store": limited_store(loaded.store, limit)})})


def checked_job(
    value: Any, overrides: Sequence[Override] = (), where: Callable[[Place], str] = lambda place: ""
) -> Job:
    """The job that a value describes.

    overrides: that were put into it. where: what a message begins with, by the place in the value. Raises JobError,
    which lists every mistake.
    """
    try:
        return Job.model_validate(value)
    except ValidationError as error:
        lines = "\n".join(_explain(value, overrides, where, error))
        raise JobError(lines, hint="`drillcore schema job` prints every field.") from None


def limited_store(address: str, limit: int) -> str:
    """Address of the store for the first `limit` sentences: beside the whole one, which it must not overwrite.

    >>> limited_store("s3://bucket/runs/job.zarr", 10)
    's3://bucket/runs/job-limit10.zarr'
    """
    folder, slash, name = address.rstrip("/").rpartition("/")
    suffix = Path(name).suffix
    return f"{folder}{slash}{name.removesuffix(suffix)}-limit{limit}{suffix}"


def _refuse_other_kinds(path: Path) -> None:
    """Raise JobError where a store or a file of sentences is named in place of a job file."""
    named = str(path)
    try:
        is_store, is_file = (path / "zarr.json").is_file(), path.is_file()
    except (OSError, ValueError):
        return
    if is_store or (named.startswith("s3:/") and not is_file):
        shown = named.replace("s3:/", "s3://", 1) if named.startswith("s3:/") else named
        raise JobError(f"{shown} is a store, not a job file", hint=f"`drillcore show {shown}` shows what it holds.")
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    if is_file and name.endswith(tuple(s for s in SUFFIXES if s not in (".txt", ".json"))):
        raise JobError(
            f"{path} is a file of sentences, not a job file", hint=f"`drillcore init {path}` writes a job file for it."
        )


def _read(path: Path) -> str:
    try:
        return read_bytes(path, MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise JobError(f"{path}: not UTF-8 at byte {error.start}", hint="Save it as UTF-8.") from None
    except OSError as error:
        name = str(path) if len(str(path)) <= LONGEST else f"{str(path)[:LONGEST]}..."
        why = error.strerror or str(error)
        message = f"there is no job file {name}" if "no such file" in why else f"{name}: {why}"
        near = _beside(path) if "no such file" in why else ""
        raise JobError(message, hint=f"There is {near} in the same folder." if near else "Check the path.") from None


def _beside(path: Path) -> str:
    """A job file with another ending, or whose name is nearly this one; empty where there is none."""
    try:
        names = sorted(p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml") and p.is_file())
    except OSError:
        return ""
    same = [name for name in names if Path(name).stem == path.stem]
    return same[0] if same else nearest(path.name, names, cutoff=0.8)


def _no_mapping(value: object) -> str:
    """What to say of a document that is no job."""
    if value is None:
        return "is empty"
    kind = "a list" if isinstance(value, list) else "text"
    return f"is {kind}, not a job: each line is a field, a colon, a blank and its value"


def _explain(
    value: Any, overrides: Sequence[Override], said: Callable[[Place], str], error: ValidationError
) -> Iterable[str]:
    """One line for each mistake: file and line, or the override that made it; the field; what is wrong."""
    mistakes = mistakes_of(error)
    for mistake in mistakes[:MOST]:
        place = _as_written(mistake.place, value)
        name = ".".join(map(_printable, place))
        made = blamed(overrides, place)
        where = said(place) if made is None else made.shown
        also = ", ".join(o.shown for o in within(overrides, place)) if made is None else ""
        yield ": ".join(filter(None, (where, name, mistake.message))) + (f" (with {also})" if also else "")
    if len(mistakes) > MOST:
        yield "... and more"


def _as_written(place: Place, value: Any) -> Place:
    """A place with the names of datasets that the job file gives as keys of a mapping."""
    found = list[str | int]()
    for part in place:
        if isinstance(value, dict) and isinstance(part, int) and part < len(value):
            part = list(value)[part]
        found.append(part)
        if isinstance(value, list) and isinstance(part, int):
            value = value[part] if part < len(value) else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return tuple(found)


def _printable(part: str | int) -> str:
    short = str(part) if len(str(part)) <= LONGEST else f"{str(part)[:LONGEST]}..."
    return short if short.isprintable() else repr(short)


def _line(node: yaml.Node | None, place: Place) -> int:
    """Line of the deepest node that a place reaches."""
    line = 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            entry = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if entry is None:
                break
            line, node = entry[0].start_mark.line + 1, entry[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
